"""Counts times unit costs: the time, memory and disk of every stage.

"Measured" below means: in the files of a run of the recipe ``world`` (1,024 features, 256 patches, 172 texts).
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.model_shapes import HALF_BYTES, ModelShape
from backend.types import ARMS
from precompute.planning.roofline import PROMPT_TOKENS, Device
from precompute.planning.unit_costs import UnitCosts
from precompute.planning.workload import Workload
from precompute.recipe import Recipe

FLOAT_BYTES = 4
USABLE = 0.9
"""Share of a device's memory that a run may fill."""
PROCESS_BYTES = 1.0e9
"""Python, torch and its libraries."""
EXPLAIN_BYTES = 0.5e9
"""Exemplars that wait, as pictures, to be shown: assumed."""
TRAINED_COPIES = 4
"""Of an SAE's weights while it is trained: the weights, their gradients and Adam's two moments."""
CODE_COPIES, RESIDUAL_COPIES = 2, 4
"""Of a training step: matrices [token d_sae] (activations before and after top-k) and [token d_model] (tokens,
reconstruction, its error, and that of the auxiliary loss)."""
PAIR_BYTES = 8
"""One count of two features that fire together (int64)."""
RANKINGS = 2 * 3
"""Lists of exemplars of one feature: by mean and by maximum, in each of three splits."""
ACTIVE_SHARE = 1 / 16
"""Share of an exemplar's patches on which its feature fires. Measured: 192 bytes for an exemplar of 256 patches."""
MATCH_BYTES = 12.0
"""One active patch of a stored exemplar: place, value, and its share of the row."""
ROW_BYTES = 300.0
"""An explanation in the words of a large model, with what was shown for it: assumed. (Those of the world take 7.)"""
JOINED_COPIES = 2
"""Of what shards hold while it is written once more as a whole."""
IMAGE_FILE_BYTES = 25e3
"""A stored picture of 512 px, WebP at quality 80: assumed."""
THUMBNAIL_BYTES = 6e3
"""A photograph's thumbnail: assumed. (Measured 2e3 for the world's scenes, which are plain.)"""
EMBEDDING_BYTES = 384 * (2 + 4)
"""A text's vector of 384 numbers as float16, and as float32 in the index. Measured."""
FEATURE_BYTES = 40e3
"""A feature's rows in the atlas, most of all its exemplars' grids of 4,096 patches: assumed from the 3e3 measured."""
TEXT_ENCODER_BYTES = 0.44e9
"""all-mpnet-base-v2, 0.11e9 weights in float32."""
GENERATOR_BYTES, T5_BYTES = 6.8e9, 9.5e9
"""Stable Diffusion 3.5 medium in bfloat16: transformer (2.5e9 weights), two CLIPs (0.8e9) and VAE (0.1e9); and its T5
encoder (4.76e9)."""
SEGMENTER_BYTES, CLIP_BYTES = 1.8e9, 1.7e9
"""In float32: Grounding DINO base (0.23e9 weights) with SAM 2.1 large (0.22e9); CLIP ViT-L/14 (0.43e9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """One stage of a plan."""

    stage: str
    seconds: float
    accelerator_bytes: float
    """Peak on the device that computes."""
    host_bytes: float
    """Peak in main memory."""
    disk_bytes: float
    """What the stage's finished artifact holds."""
    work: str
    """The counts behind it, in words."""


def stage_costs(
    recipe: Recipe,
    work: Workload,
    unit: UnitCosts,
    subject: ModelShape,
    explainer: ModelShape,
    rows: int,
    *,
    prefetch: bool = False,
) -> tuple[StageCost, ...]:
    """The five stages in order.

    ``rows``: answers generated at once (``prompts_per_batch``). ``prefetch``: the next buffer of tokens is filled while
    the SAE trains on this one, so two are in main memory.
    """
    return (
        _train(recipe, work, unit, subject, prefetch=prefetch),
        _harvest(recipe, work, unit, subject),
        _explain(recipe, work, unit, explainer, rows),
        _score(recipe, work, unit, subject),
        _atlas(work, unit),
    )


def rows_that_fit(recipe: Recipe, explainer: ModelShape, device: Device, wanted: int) -> int:
    """Answers that can be generated at once beside the weights, ``wanted`` at most and one at least."""
    free = USABLE * device.memory_bytes - explainer.weight_bytes
    return max(1, min(wanted, int(free // max(1.0, _row_bytes(recipe, explainer)))))


def _row_bytes(recipe: Recipe, explainer: ModelShape) -> float:
    """Keys and values of one answer with its prompt and images."""
    if explainer.language is None:
        return 0.0
    n_tokens = recipe.explain.n_images * explainer.image_tokens + PROMPT_TOKENS + recipe.explain.max_new_tokens
    return explainer.language.cache_bytes_per_token * n_tokens


def _sae_bytes(recipe: Recipe, subject: ModelShape) -> float:
    return FLOAT_BYTES * recipe.sae.d_sae * (2 * subject.tower.width + 1)


def _train(recipe: Recipe, work: Workload, unit: UnitCosts, subject: ModelShape, *, prefetch: bool) -> StageCost:
    sae = recipe.sae
    images = work.train_images + work.held_out_images
    seconds = images * unit.encode_image + work.train_steps * unit.train_step + unit.fixed
    all_tokens = work.train_images * subject.n_patches
    kept = min((2 if prefetch else 1) * sae.buffer_tokens, all_tokens)
    weights = _sae_bytes(recipe, subject)
    activations = FLOAT_BYTES * sae.batch_tokens * (CODE_COPIES * sae.d_sae + RESIDUAL_COPIES * subject.tower.width)
    return StageCost(
        stage="train_sae",
        seconds=seconds + work.held_out_images * unit.count_image,
        accelerator_bytes=HALF_BYTES * subject.tower.n_weights + TRAINED_COPIES * weights + activations,
        host_bytes=PROCESS_BYTES + HALF_BYTES * kept * subject.tower.width,
        disk_bytes=weights,
        work=f"{images:,} images, {work.train_steps:,} steps of {sae.batch_tokens:,} tokens",
    )


def _harvest(recipe: Recipe, work: Workload, unit: UnitCosts, subject: ModelShape) -> StageCost:
    d_sae, n = recipe.sae.d_sae, recipe.harvest.n_exemplars
    exemplars = RANKINGS * n * work.n_alive * MATCH_BYTES * ACTIVE_SHARE * subject.n_patches
    pairs = float(PAIR_BYTES * d_sae**2)
    return StageCost(
        stage="harvest",
        seconds=work.harvest_images * (unit.encode_image + unit.count_image) + unit.fixed,
        accelerator_bytes=HALF_BYTES * subject.tower.n_weights + _sae_bytes(recipe, subject) + pairs,
        host_bytes=PROCESS_BYTES + pairs + exemplars,
        disk_bytes=work.harvest_images * d_sae * HALF_BYTES + exemplars,
        work=f"{work.harvest_images:,} images",
    )


def _explain(recipe: Recipe, work: Workload, unit: UnitCosts, explainer: ModelShape, rows: int) -> StageCost:
    blank = work.blank_rows + work.selection_rows_blank
    shown = work.shown_rows + work.selection_rows_shown
    seconds = blank * unit.blank_answer + shown * unit.shown_answer + work.shown_pictures * unit.shown_picture
    return StageCost(
        stage="explain",
        seconds=seconds + work.selection_regions * unit.region + unit.fixed,
        accelerator_bytes=explainer.weight_bytes + rows * _row_bytes(recipe, explainer),
        host_bytes=PROCESS_BYTES + EXPLAIN_BYTES,
        disk_bytes=(work.n_alive * len(ARMS) + blank) * ROW_BYTES,
        work=f"{blank:,} answers about the blank image, {shown:,} about {recipe.explain.n_images} exemplars",
    )


def _score(recipe: Recipe, work: Workload, unit: UnitCosts, subject: ModelShape) -> StageCost:
    texts = work.synthetic_images * (unit.generate_image + unit.encode_image + unit.count_image)
    regions = work.scored_regions * unit.region + work.scored_pictures * unit.embed_picture
    truth = work.truth_images * (unit.encode_image + unit.count_image) + work.truth_features * unit.truth_feature
    matrix = FLOAT_BYTES * work.synthetic_images * recipe.sae.d_sae
    return StageCost(
        stage="score",
        seconds=texts + regions + truth + unit.fixed,
        accelerator_bytes=HALF_BYTES * subject.tower.n_weights + _judge_bytes(recipe),
        host_bytes=PROCESS_BYTES + JOINED_COPIES * matrix,
        disk_bytes=work.synthetic_images * IMAGE_FILE_BYTES + matrix,
        work=f"{work.n_texts:,} texts, {work.synthetic_images:,} generated images, {work.scored_regions:,} regions",
    )


def _judge_bytes(recipe: Recipe) -> float:
    """Weights of the judges; those of the world are too small to count."""
    if recipe.judges.kind != "paper":
        return 0.0
    return GENERATOR_BYTES + T5_BYTES * recipe.judges.generator_t5 + SEGMENTER_BYTES + CLIP_BYTES


def _atlas(work: Workload, unit: UnitCosts) -> StageCost:
    laid_out = work.n_texts * unit.embed_text + work.n_alive * unit.map_feature
    pictures = work.thumbnails * unit.thumbnail + work.atlas_regions * unit.region
    shown = work.synthetic_images * IMAGE_FILE_BYTES + work.thumbnails * THUMBNAIL_BYTES
    stored = shown + work.n_texts * EMBEDDING_BYTES
    return StageCost(
        stage="atlas",
        seconds=laid_out + pictures + unit.fixed,
        accelerator_bytes=TEXT_ENCODER_BYTES,
        host_bytes=PROCESS_BYTES + JOINED_COPIES * stored,
        disk_bytes=stored + work.n_alive * FEATURE_BYTES,
        work=f"{work.n_alive:,} features, {work.n_texts:,} texts, {work.thumbnails:,} thumbnails",
    )
