"""Unit costs on a GPU that is not at hand: operations and bytes over what the device achieves. Estimates, and said so.

What a kind of device achieves is an assumed share of its data sheet; docs/decisions/018 lists the sources.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.model_shapes import HALF_BYTES, ModelShape
from precompute.planning.unit_costs import UnitCosts
from precompute.recipe import Recipe

PROMPT_TOKENS = 160
"""Words of the paper's prompts with the chat template around them."""
ANSWER_TOKENS = 40
"""Assumed length of an answer."""
DECODE_SECONDS = 7e-3 / 8
"""A JPEG decoded and resized on one core, eight cores at work."""
GENERATOR_FLOP = 2.45e12
"""One forward pass of Stable Diffusion 3.5 medium at 512 px; guidance takes two per step."""
GENERATOR_STEPS = 30
GROUNDING_FLOP, SEGMENTING_FLOP = 0.6e12, 1.6e12
"""Grounding DINO base for one image and text; the image encoder of SAM 2.1 large for one image."""
IMAGES_SHARED = 10
"""Texts that ask about the same image, on average: its embedding is computed once for all of them."""
CLIP_FLOP = 0.16e12
"""ViT-L/14 at 224 px."""
TEXT_FLOP = 3.4e9
"""A sentence through all-mpnet-base-v2."""
MAP_SECONDS, THUMBNAIL_SECONDS, FIXED_SECONDS = 2e-3, 4e-3, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a device achieves: assumed, not measured."""

    label: str
    flop_per_second: float
    """Dense bfloat16 products."""
    bytes_per_second: float
    memory_bytes: float


DEVICES = {
    "h100": Device(label="H100 80 GB", flop_per_second=420e12, bytes_per_second=2.0e12, memory_bytes=80e9),
    "h200": Device(label="H200 141 GB", flop_per_second=420e12, bytes_per_second=2.9e12, memory_bytes=141e9),
    "rtx4090": Device(label="RTX 4090 24 GB", flop_per_second=81e12, bytes_per_second=0.55e12, memory_bytes=24e9),
}
"""H100 and H200: 70 % of 600 TFLOP/s and of 2.9 and 4.2 TB/s; RTX 4090: 60 % of 135 TFLOP/s and of 0.92 TB/s."""


def unit_costs(
    recipe: Recipe, device: Device, subject: ModelShape, explainer: ModelShape, *, layer: int, rows: int
) -> UnitCosts:
    """Unit costs of a recipe on a device, with ``rows`` answers generated at once."""
    speed = device.flop_per_second
    tower, tokens = subject.tower, subject.n_patches
    to_hook = tower.flop(layer + 1) / speed
    n_images, paper = recipe.explain.n_images, recipe.judges.kind == "paper"
    grounded = (GROUNDING_FLOP + SEGMENTING_FLOP / IMAGES_SHARED) / speed
    return UnitCosts(
        encode_image=max(to_hook, DECODE_SECONDS),
        count_image=_sae_seconds(recipe, device, tower.width, tokens),
        train_step=_step_seconds(recipe, device, tower.width),
        blank_answer=_answer_seconds(explainer, device, layer, 1, rows),
        shown_picture=max(explainer.tower.flop(layer + 1) / speed, DECODE_SECONDS),
        shown_answer=_answer_seconds(explainer, device, layer, n_images, rows),
        region=grounded if paper else 1e-3,
        embed_picture=CLIP_FLOP / speed if paper else 1e-3,
        generate_image=2 * GENERATOR_STEPS * GENERATOR_FLOP / speed if paper else 5e-3,
        truth_feature=0.0 if paper else 0.03,
        embed_text=TEXT_FLOP / speed,
        map_feature=MAP_SECONDS,
        thumbnail=THUMBNAIL_SECONDS,
        fixed=FIXED_SECONDS,
    )


def _sae_seconds(recipe: Recipe, device: Device, width: int, tokens: int) -> float:
    """The dense product of the encoder, and its result written and read again by top-k."""
    product = 2 * tokens * width * recipe.sae.d_sae / device.flop_per_second
    return product + 3 * HALF_BYTES * tokens * recipe.sae.d_sae / device.bytes_per_second


def _step_seconds(recipe: Recipe, device: Device, width: int) -> float:
    """One dense product; the decoder and both weight gradients touch k rows a token; Adam reads and writes all."""
    sae = recipe.sae
    dense = _sae_seconds(recipe, device, width, sae.batch_tokens)
    gathered = 5 * 4 * sae.batch_tokens * sae.k * width / device.bytes_per_second
    adam = 7 * 4 * 2 * sae.d_sae * width / device.bytes_per_second
    return dense + gathered + adam


def _answer_seconds(model: ModelShape, device: Device, layer: int, n_images: int, rows: int) -> float:
    """The rest of the tower, the prompt read, and the answer written; each new token reads all weights once a batch."""
    if model.language is None:
        return 0.0
    tower = n_images * model.tower.flop(model.tower.n_blocks - layer - 1)
    n_tokens = PROMPT_TOKENS + n_images * model.image_tokens
    reading = model.language.token_flop * n_tokens
    writing = model.language.token_flop * ANSWER_TOKENS
    weights = HALF_BYTES * model.language.n_weights * ANSWER_TOKENS / rows
    caches = model.language.cache_bytes_per_token * n_tokens * ANSWER_TOKENS
    return (tower + reading + writing) / device.flop_per_second + (weights + caches) / device.bytes_per_second
