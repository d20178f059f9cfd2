"""A small planted corpus with exact masks and simple judges, for running the true stages on the shrunken subject.

Images are 4x4 patches of 8 px; a few patches are coloured, the rest is grey. Concepts are the colours. A text is
understood if it holds a colour's name. ``python -m tests.builders_pipeline OUT SUBJECT [KILL_AFTER]`` runs the pipeline
in its own process and, if asked, kills itself (SIGKILL) after so many finished shards.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32
from PIL import Image

from backend.artifact_writer import ArtifactWriter
from backend.artifacts import Artifact
from backend.errors import ImageUnreadable, UnparsableExplanation
from backend.text_encoders import TextEncoder, load_text_encoder
from backend.types import Split, TruthOutcome
from precompute import datasets, judges
from precompute.datasets import ImageSet
from precompute.judges import Judges
from precompute.progress import SilentProgress
from precompute.recipe import Recipe, Runtime, parse_recipe
from precompute.runner import run_recipe
from precompute.stage import load_stages
from precompute.stages import atlas as atlas_stage
from tests.builders_atlas import BagEncoder
from tests.builders_subject import save_tiny_subject

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 220), "grey": (128, 128, 128)}
CONCEPTS = tuple(COLOURS)
WARM = frozenset({"red"})
SIDE, PATCH_PX = 4, 8
N_IMAGES = {Split.TRAIN: 40, Split.EXPLAIN: 24, Split.SELECT: 10, Split.SCORE: 20}
UNREADABLE_IDS = frozenset({"explain-0003", "train-0001"})
WORDS = (*CONCEPTS, *"crab penguin what is shown in the image describe element a of . , nothing near far".split())
"""Few, so that the subject, which says words at random, often names a concept, of the world too."""
KIND = "planted"
BAG = "bag-of-stems"
"""Name of the planted recipe's text encoder."""


def owners(split: Split, index: int) -> np.ndarray:
    """Concept index of every patch [row col]; grey unless coloured."""
    rng = np.random.default_rng([list(Split).index(split), index])
    grid = np.full((SIDE, SIDE), CONCEPTS.index("grey"))
    for _ in range(3):
        grid[rng.integers(SIDE), rng.integers(SIDE)] = rng.integers(len(CONCEPTS) - 1)
    return grid


def picture(grid: np.ndarray) -> Image.Image:
    """The image of a grid of concepts."""
    colours = np.array([COLOURS[name] for name in CONCEPTS], dtype=np.uint8)
    return Image.fromarray(np.kron(colours[grid], np.ones((PATCH_PX, PATCH_PX, 1), np.uint8)))


class PlantedImages:
    """One split of the planted corpus."""

    name = KIND

    def __init__(self, split: Split) -> None:
        self.split = split
        self.ids = tuple(f"{split.value}-{index:04d}" for index in range(N_IMAGES[split]))
        self.fingerprint = f"planted {split.value} {N_IMAGES[split]}"

    def load(self, image_id: str) -> Image.Image:
        if image_id in UNREADABLE_IDS:
            raise ImageUnreadable(f"{image_id} is planted as corrupt")
        return picture(grid_of(image_id))


def grid_of(image_id: str) -> np.ndarray:
    """The concepts of an image by its id."""
    split, index = image_id.split("-")
    return owners(Split(split), int(index))


def named(text: str) -> list[str]:
    """Concepts a text names. Raises UnparsableExplanation."""
    found = [name for name in CONCEPTS if name in text.split()]
    if not found:
        raise UnparsableExplanation(f"no colour in {text!r}")
    return found


class PlantedJudge:
    """Generator, segmenter, CLIP and truth of the planted corpus, all exact."""

    fingerprint = "planted judge"
    concepts = CONCEPTS

    def generate(self, text: str, n: int, seed: int) -> list[Image.Image]:
        wanted = [CONCEPTS.index(name) for name in named(text)]
        rng = np.random.default_rng(seed)
        return [picture(rng.choice([*wanted, CONCEPTS.index("grey")], size=(SIDE, SIDE))) for _ in range(n)]

    def segment(self, image_ids: Sequence[str], images: Sequence[Image.Image], text: str) -> list[np.ndarray]:
        wanted = [CONCEPTS.index(name) for name in named(text)]
        masks = [np.isin(grid_of(image_id), wanted) for image_id in image_ids]
        return [np.kron(mask, np.ones((PATCH_PX, PATCH_PX), bool)) for mask in masks]

    def encode_images(self, images: Sequence[Image.Image]) -> Float32[np.ndarray, "image d"]:
        rows = np.stack([np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) + 1 for image in images])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d"]:
        rows = np.full((len(texts), 3), 0.1, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for name in CONCEPTS:
                row += np.array(COLOURS[name], np.float32) * (name in text.split())
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def masks(self, image_set: ImageSet, image_ids: Sequence[str]) -> Bool[np.ndarray, "image concept row col"]:
        grids = np.stack([grid_of(image_id) for image_id in image_ids])
        return grids[:, None] == np.arange(len(CONCEPTS))[None, :, None, None]

    def judge(self, concept: str, text: str) -> TruthOutcome:
        try:
            return TruthOutcome.RIGHT if concept in named(text) else TruthOutcome.WRONG
        except UnparsableExplanation:
            return TruthOutcome.WRONG

    def family(self, concept: str) -> str:
        return "warm" if concept in WARM else "cold"

    def kind(self, concept: str) -> str:
        return "background" if concept == "grey" else "colour"

    def terms(self, concept: str) -> Sequence[str]:
        return (concept, self.family(concept))

    def groups(self, text: str) -> Sequence[str] | None:
        try:
            return tuple(dict.fromkeys(self.family(name) for name in named(text)))
        except UnparsableExplanation:
            return None


def open_image_set(recipe: Recipe, split: Split) -> PlantedImages:
    return PlantedImages(split)


def open_judges(recipe: Recipe, runtime: Runtime | None = None) -> Judges:
    judge = PlantedJudge()
    return Judges(generator=judge, segmenter=judge, image_text=judge, truth=judge)


def install() -> None:
    """Make the recipe kind ``planted`` and its text encoder, which loads nothing, known to this process."""
    datasets.DATA_MODULES[KIND] = __name__
    judges.JUDGE_MODULES[KIND] = __name__
    setattr(atlas_stage, "load_text_encoder", _text_encoder)  # noqa: B010 - a stand-in, not the attribute


def _text_encoder(name: str) -> TextEncoder:
    return BagEncoder() if name == BAG else load_text_encoder(name)


SECTIONS: dict[str, dict[str, object]] = {
    "subject": {"layer": 1},
    "data": {"kind": KIND, "path": "nowhere", "n_train_images": N_IMAGES[Split.TRAIN]},
    "judges": {"kind": "world", "clip": "nowhere", "text_encoder": BAG},
    "sae": {
        "d_sae": 24,
        "k": 3,
        "n_tokens": 4000,
        "batch_tokens": 64,
        "buffer_tokens": 320,
        "learning_rate": 3e-3,
        "warmup_steps": 5,
        "decay_fraction": 0.2,
        "auxk_coefficient": 0.03125,
        "dead_after_tokens": 500,
        "grad_clip": 1.0,
        "seed": 1,
        "checkpoint_every_steps": 20,
    },
    "harvest": {"n_exemplars": 4, "histogram_bins": 8, "n_coactivated": 3, "images_per_shard": 8},
    "explain": {
        "prompts": {"steering": "what is this ?", "top_k_masks": "what are these ?", "top_k_heatmaps": "what ?"},
        "n_images": 3,
        "max_new_tokens": 4,
        "strengths": [4.0, 1.0, 16.0],
        "informed_strengths": [1.0, 4.0],
        "n_selection_features": 4,
        "per_feature_strength": True,
        "informed_scope": "active",
        "features_per_shard": 8,
        "seed": 3,
        "heatmap_alpha": 0.5,
        "answer_prefixes": ["the highlighted element is"],
        "strength_unit": "residual_norm",
    },
    "score": {
        "n_images": 3,
        "n_synthetic": 2,
        "n_negatives": 5,
        "n_bootstrap": 50,
        "seed": 4,
        "quality_iou": 0.1,
        "quality_synthetic": 0.0,
        "ap_threshold": 0.2,
    },
    "atlas": {
        "n_clusters": 4,
        "umap_neighbors": 5,
        "umap_min_dist": 0.1,
        "seed": 5,
        "thumbnail_px": 16,
        "n_exemplars": 2,
    },
}
"""The planted recipe, all but the place of the subject."""


def planted_recipe(subject: Path, **changes: object) -> Recipe:
    """A complete recipe; ``changes`` replace fields, e.g. ``explain={"n_images": 2}``."""
    sections = {**SECTIONS, "subject": {**SECTIONS["subject"], "path": str(subject)}}
    for name, values in changes.items():
        assert isinstance(values, dict)
        sections[name] = {**sections.get(name, {}), **values}
    recipe = parse_recipe(sections, "planted")
    object.__setattr__(recipe.judges, "kind", KIND)  # recipes from files know only the shipped kinds
    return recipe


RUNTIME = Runtime(device="cpu", images_per_batch=4, prompts_per_batch=8, workers=1)


@cache
def planted_run(n_stages: int = 4) -> Mapping[str, Artifact]:
    """Artifacts of the first ``n_stages`` stages of the planted recipe, computed once per test process."""
    install()
    folder = _scratch()
    stages = load_stages()[:n_stages]
    return run_recipe(planted_recipe(folder / "subject"), folder / "out", RUNTIME, SilentProgress(), stages)


@cache
def _scratch() -> Path:
    scratch = tempfile.TemporaryDirectory(prefix="iconoscope-planted-")
    atexit.register(scratch.cleanup)
    save_tiny_subject(Path(scratch.name) / "subject", words=WORDS)
    return Path(scratch.name)


def planted_subject() -> Path:
    """The shrunken subject of ``planted_run``."""
    return _scratch() / "subject"


def run(out: Path, subject: Path) -> None:
    """Run the planted recipe into ``out``."""
    install()
    run_recipe(planted_recipe(subject), out, RUNTIME, SilentProgress())


def kill_after(n_shards: int) -> None:
    """Let this process die, without any chance to clean up, once ``n_shards`` shards are finished."""
    finish = ArtifactWriter.finish_shard
    done = 0

    def finish_and_maybe_die(self: ArtifactWriter, key: str) -> None:
        nonlocal done
        finish(self, key)
        done += 1
        if done == n_shards:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(ArtifactWriter, "finish_shard", finish_and_maybe_die)  # noqa: B010 - replaced on purpose


if __name__ == "__main__":
    if len(sys.argv) > 3:
        kill_after(int(sys.argv[3]))
    run(Path(sys.argv[1]), Path(sys.argv[2]))
