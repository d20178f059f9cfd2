"""Recipes: one TOML file that says what to compute, read into frozen dataclasses and checked field by field.

A recipe holds science only. How it runs (device, batch sizes, workers) is a ``Runtime``, which no fingerprint sees.
A file may extend another recipe (``extends = "world"``) and give only what differs. Fields marked ``place`` say where
something lies on this machine: they are left out of ``section_science``, because a stage fingerprints the contents
instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backend.errors import RecipeError
from precompute.data_section import DataSection
from precompute.recipe_parsing import build, read_tables

RECIPES_DIR = Path(__file__).resolve().parent / "recipes"
PLACE = {"place": True}
"""Field metadata: where, not what."""
TRAINING_FIELDS = ("n_tokens", "batch_tokens", "buffer_tokens", "learning_rate", "warmup_steps", "decay_fraction")
TRAINING_FIELDS += ("auxk_coefficient", "dead_after_tokens", "grad_clip", "seed", "checkpoint_every_steps")
"""Fields of [sae] that say nothing, and may be left out, where ``path`` gives an SAE."""


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _positive(section: object, *names: str) -> None:
    for name in names:
        _check(getattr(section, name) > 0, f"{name} must be greater than 0")


def _fractions(section: object, *names: str) -> None:
    for name in names:
        _check(0 <= getattr(section, name) <= 1, f"{name} must lie between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectSection:
    """The subject model and its hook point: the residual stream after block ``layer`` of ``tower``."""

    layer: int
    path: str | None = field(default=None, metadata=PLACE)
    """Folder written by save_pretrained; ``assets/...`` means the assets folder."""
    repository: str | None = None
    """Model repository id; with a path as well, the path is read."""
    tower: str = "vision"

    def __post_init__(self) -> None:
        _check(bool(self.path or self.repository), "give a path or a repository")
        _check(self.layer >= 0, "layer must be 0 or greater")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainerSection:
    """Another model that puts the features into words: a larger one around the same vision tower, or any other."""

    path: str | None = field(default=None, metadata=PLACE)
    """Folder written by save_pretrained; ``assets/...`` means the assets folder."""
    repository: str | None = None
    """Model repository id; with a path as well, the path is read."""
    steers: bool = True
    """Whether it is steered along the features: then its vision tower must be the subject's, which is checked. If not,
    only the arms that show it pictures are possible (``possible_arms``)."""

    def __post_init__(self) -> None:
        _check(bool(self.path or self.repository), "give a path or a repository")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgesSection:
    """Who scores: image generator, segmenter, image-text encoder, text encoder, and the truth where it is known.

    The world's judges read ``clip`` and ``text_encoder`` only. For ``paper``, ``generator``, ``segmenter`` and
    ``image_text`` name modules of precompute/judges/, and the defaults below are the paper's (arXiv 2603.22593,
    section 4, and its code) but for ``mask_choice`` and ``clip_crop``, where they mend it. No field enters a
    fingerprint by itself: each judge answers for the settings that it reads.
    """

    kind: Literal["world", "paper"]
    clip: str = field(metadata=PLACE)
    """Folder or repository of the CLIP model."""
    text_encoder: str = "all-MiniLM-L6-v2"
    """Name known to backend/text_encoders.py, folder or repository."""
    generator: str | None = None
    segmenter: str | None = None
    image_text: str = "open_clip_encoder"
    clip_crop: Literal["whole", "centre"] = "whole"
    """``whole``: pictures keep all their pixels, on black; ``centre``: the paper's, which cuts off what is outside."""
    boxes: str | None = field(default=None, metadata=PLACE)
    """Folder or repository of the detector that gives the segmenter its boxes; None: the judge's own choice."""
    masks: str | None = field(default=None, metadata=PLACE)
    """Folder or repository of the model that draws the masks; None: the judge's own choice."""
    mask_choice: Literal["union", "first"] = "union"
    """``union``: all regions of all noun phrases; ``first``: the paper's, one region of the whole sentence."""
    box_threshold: float = 0.3
    """Score (0..1) above which a box or a mask counts as found."""
    generator_model: str | None = field(default=None, metadata=PLACE)
    """Folder or repository of the diffusion model; None: the judge's own choice."""
    generator_prompt: str = "A realistic image of {text}"
    """What the generator is asked for; ``{text}`` stands for the explanation in lower case."""
    generator_steps: int = 30
    generator_guidance: float = 7.5
    generator_t5: bool = True
    """Whether the third, largest text encoder of Stable Diffusion 3 is used (9.5 GB in bfloat16)."""
    image_px: int = 512
    """Side of generated images, in pixels."""

    def __post_init__(self) -> None:
        _positive(self, "generator_steps", "image_px")
        _fractions(self, "box_threshold")
        _check(self.generator_guidance >= 0, "generator_guidance must be 0 or greater")
        _check("{text}" in self.generator_prompt, "generator_prompt must hold {text}")
        named = bool(self.generator) and bool(self.segmenter)
        _check(self.kind == "world" or named, "kind paper needs a generator and a segmenter")


@dataclass(frozen=True, slots=True, kw_only=True)
class SAESection:
    """Training of the TopK SAE. Tokens are patches of training images.

    With ``path`` an SAE that is there already is taken and nothing is trained: ``d_sae`` and ``k`` are then its own and
    the other fields may be left out.
    """

    d_sae: int
    k: int
    n_tokens: int
    batch_tokens: int
    buffer_tokens: int
    learning_rate: float
    warmup_steps: int
    decay_fraction: float
    """Last share of the steps over which the learning rate falls linearly to 0."""
    auxk_coefficient: float
    dead_after_tokens: int
    grad_clip: float
    seed: int
    checkpoint_every_steps: int
    path: str | None = field(default=None, metadata=PLACE)
    """Folder of an SAE, of an atlas, or of a run: its SAE is taken. See precompute/given_sae.py."""

    def __post_init__(self) -> None:
        names = ("d_sae", "k", "n_tokens", "batch_tokens", "buffer_tokens", "learning_rate", "dead_after_tokens")
        _positive(self, *names, "grad_clip", "checkpoint_every_steps")
        _fractions(self, "decay_fraction")
        _check(self.k <= self.d_sae, "k must not exceed d_sae")
        _check(self.warmup_steps >= 0, "warmup_steps must be 0 or greater")
        _check(self.auxk_coefficient >= 0, "auxk_coefficient must be 0 or greater")


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestSection:
    """One pass over the explain, select and score splits."""

    n_exemplars: int
    """Exemplars stored per feature, split and pooling."""
    histogram_bins: int
    n_coactivated: int
    images_per_shard: int

    def __post_init__(self) -> None:
        _positive(self, "n_exemplars", "histogram_bins", "n_coactivated", "images_per_shard")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsSection:
    """Prompts, verbatim. Steering-informed Top-k uses the Top-k ones."""

    steering: str
    top_k_masks: str
    top_k_heatmaps: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainSection:
    """Explanations by every arm, and the choice of strengths."""

    prompts: PromptsSection
    n_images: int
    max_new_tokens: int
    strengths: tuple[float, ...]
    """Candidates for STEERING, in ``strength_unit``."""
    informed_strengths: tuple[float, ...]
    n_selection_features: int
    per_feature_strength: bool
    informed_scope: Literal["active", "all"]
    features_per_shard: int
    seed: int
    heatmap_alpha: float
    answer_prefixes: tuple[str, ...]
    strength_unit: Literal["l2", "residual_norm"] = "l2"
    """``l2``: residual-stream L2 units, as in the paper; ``residual_norm``: multiples of the mean residual norm at the
    hook point, which harvest measures. Tables always hold L2 units."""

    def __post_init__(self) -> None:
        _positive(self, "n_images", "max_new_tokens", "n_selection_features", "features_per_shard")
        _fractions(self, "heatmap_alpha")
        _check(len(self.strengths) > 0, "strengths must hold at least one value")
        _check(len(self.informed_strengths) > 0, "informed_strengths must hold at least one value")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSection:
    """Scores of every explanation, with n and bootstrap intervals."""

    n_images: int
    n_synthetic: int
    n_negatives: int
    n_bootstrap: int
    seed: int
    quality_iou: float
    quality_synthetic: float
    ap_threshold: float
    """Average precision below which a feature has no truth concept."""

    def __post_init__(self) -> None:
        _positive(self, "n_images", "n_synthetic", "n_negatives", "n_bootstrap")
        _fractions(self, "quality_iou", "ap_threshold")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasSection:
    """The map and everything the explorer needs."""

    n_clusters: int
    umap_neighbors: int
    umap_min_dist: float
    seed: int
    thumbnail_px: int
    n_exemplars: int
    """Exemplars per feature and pooling that the atlas carries."""

    def __post_init__(self) -> None:
        _positive(self, "n_clusters", "thumbnail_px", "n_exemplars")
        _check(self.umap_neighbors >= 2, "umap_neighbors must be 2 or greater")
        _check(self.n_clusters <= 254, "n_clusters must not exceed 254")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole recipe; ``name`` is the file's stem."""

    name: str
    subject: SubjectSection
    data: DataSection
    judges: JudgesSection
    sae: SAESection
    harvest: HarvestSection
    explain: ExplainSection
    score: ScoreSection
    atlas: AtlasSection
    explainer: ExplainerSection | None = None
    """None: the subject explains its own features."""
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """How to run; never part of a fingerprint."""

    device: str = "auto"
    """Torch device, or ``auto``: the first GPU if there is one, else the CPU."""
    dtype: str = "float32"
    """Precision of the subject model: float32 or bfloat16. Statistics are always float32."""
    images_per_batch: int = 64
    """Images per forward pass of the vision tower."""
    prompts_per_batch: int = 128
    """Rows per batch of generation."""
    workers: int = 2
    """Threads that compute. A run resumed with as many ends with the same bytes."""
    sae_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the products in SAE training; parameters, optimiser and sums are float32. bfloat16 is for GPUs."""
    prefetch: bool = True
    """On a GPU: encode the next buffer of tokens while the SAE trains on this one (two buffers in memory)."""
    compile_models: bool = False
    """Compile what is run thousands of times at one shape (the image generator); pays off in long runs on a GPU."""


def section_science(section: Any) -> dict[str, Any]:
    """A recipe section as a dict without its ``place`` fields: the part that belongs into a fingerprint."""
    kept: dict[str, Any] = {}
    for item in dataclasses.fields(section):
        if item.metadata.get("place"):
            continue
        value = getattr(section, item.name)
        kept[item.name] = section_science(value) if dataclasses.is_dataclass(value) else value
    return kept


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the project."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a shipped recipe by name (``world``) or any recipe by path (ends in ``.toml``). Raises RecipeError."""
    text = str(name_or_path)
    path = Path(text) if text.endswith(".toml") else RECIPES_DIR / f"{text}.toml"
    if not path.is_file():
        known = ", ".join(recipe_names()) or "none"
        raise RecipeError(f"There is no recipe {text!r}. Shipped recipes: {known}; or give the path of a .toml file.")
    return parse_recipe(read_tables(path, RECIPES_DIR), path.stem)


def parse_recipe(raw: Mapping[str, Any], name: str) -> Recipe:
    """Build a recipe from parsed TOML. Raises RecipeError naming the first wrong field, e.g. ``sae.k``."""
    if "name" in raw:
        raise RecipeError(f"Recipe {name}: unknown field name (a recipe is named by its file).")
    sae = raw.get("sae")
    if isinstance(sae, Mapping) and "path" in sae:
        raw = {**raw, "sae": {**dict.fromkeys(TRAINING_FIELDS, 1), **sae}}
    return build(Recipe, {**raw, "name": name}, f"Recipe {name}", "")
