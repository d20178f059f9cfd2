"""Practice pictures for the subject's tower: scenes, and scenes as the explainer methods will show them.

A share of the pictures is masked to one concept's patches or laid under a heatmap, by the very functions
that later show exemplars, so that the tower has seen both. Masks are made untidy on purpose: a feature
never fires on exactly the right patches. No picture here is made with an activation of any model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from backend.heatmaps import HEATMAP_ALPHA, heatmap_image, masked_image
from precompute.world.concepts import CONCEPTS, N_OWNERS, OUTSIDE, PHOTOMETRIC
from precompute.world.render import GRID, Rendered, render
from precompute.world.scenes import draw_scene, wallpaper

TOWER_MIX = {"scene": 0.3, "packed": 0.42, "panel": 0.16, "wallpaper": 0.06, "studio": 0.06}
MASKED_FRACTION = 0.12
HEATMAP_FRACTION = 0.12
N_FACTORS = len(PHOTOMETRIC) + 1
"""Per-patch yes/no factors: blurred, dark, monochrome, and lying under heat."""


def untidy(
    rng: np.random.Generator, mask: Bool[np.ndarray, "row col"], faintest: float = 0.4
) -> Float[np.ndarray, "row col"]:
    """A plausible activation grid for a mask: some patches missing, a few false ones, values from ``faintest`` to 1."""
    kept = mask & (rng.random(mask.shape) < rng.uniform(0.45, 1.0))
    if not kept.any():
        kept = mask
    stray = rng.random(mask.shape) < rng.choice([0.0, 0.0, 0.01, 0.03])
    values = np.where(kept, rng.uniform(faintest, 1.0, mask.shape), 0.0)
    return np.where(stray & ~mask, rng.uniform(0.05, 0.4, mask.shape), values)


def shown_concepts(masks: Bool[np.ndarray, "concept row col"], smallest: int = 3) -> list[int]:
    """Concepts that own at least ``smallest`` patches."""
    return [int(index) for index in np.flatnonzero(masks.sum((1, 2)) >= smallest)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PracticeImage:
    """One practice picture with its labels per patch."""

    image: Image.Image
    owners: UInt8[np.ndarray, "row col"]
    factors: Bool[np.ndarray, "row col factor"]


def practice_image(rng: np.random.Generator, mix: dict[str, float] = TOWER_MIX) -> PracticeImage:
    """Draw a scene, perhaps masked or under heat, with labels."""
    spec = wallpaper(rng, _any_fill(rng)) if rng.random() < 0.03 else draw_scene(rng, mix)
    return dress(rng, render(spec))


def _any_fill(rng: np.random.Generator) -> str:
    return CONCEPTS[int(rng.integers(N_OWNERS))].id


def dress(rng: np.random.Generator, rendered: Rendered) -> PracticeImage:
    """Show the rendered scene plainly, masked, or under heat, by chance."""
    masks = rendered.patch_masks()
    owners = rendered.patch_owners()
    factors = np.zeros((GRID, GRID, N_FACTORS), bool)
    factors[..., :-1] = masks[N_OWNERS:].transpose(1, 2, 0)
    image, choices = rendered.image, shown_concepts(masks)
    draw = rng.random()
    if choices and draw < MASKED_FRACTION:
        grid = untidy(rng, masks[choices[int(rng.integers(len(choices)))]])
        image = masked_image(image, grid)
        owners = np.where(grid > 0, owners, OUTSIDE)
        factors &= (grid > 0)[..., None]
    elif choices and draw < MASKED_FRACTION + HEATMAP_FRACTION:
        grid = untidy(rng, masks[choices[int(rng.integers(len(choices)))]])
        image = heatmap_image(image, grid, HEATMAP_ALPHA)
        factors[..., -1] = grid > 0.3 * grid.max()
    return PracticeImage(image=image, owners=owners, factors=factors)


@dataclass(frozen=True, slots=True, kw_only=True)
class PracticeBatch:
    """Tensors of one optimiser step. Owner labels run 0..93; 93 means nothing is shown."""

    pixels: UInt8[Tensor, "image row col 3"]
    owners: Int[Tensor, "image patch"]
    factors: Float[Tensor, "image patch factor"]


class _Steps(IterableDataset):
    """Batches by step number: step s is always the same pictures, so a resumed run sees what it would have."""

    def __init__(self, first: int, last: int, batch: int, seed: int) -> None:
        self.first, self.last, self.batch, self.seed = first, last, batch, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for step in range(self.first, self.last):
            yield practice_arrays(np.random.default_rng([self.seed, step]), self.batch)


def practice_arrays(rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    drawn = [practice_image(rng) for _ in range(batch)]
    pixels = np.stack([np.asarray(one.image) for one in drawn])
    owners = np.stack([one.owners.reshape(-1) for one in drawn]).astype(np.int64)
    factors = np.stack([one.factors.reshape(GRID * GRID, -1) for one in drawn]).astype(np.float32)
    owners[owners == OUTSIDE] = N_OWNERS
    return torch.from_numpy(pixels), torch.from_numpy(owners), torch.from_numpy(factors)


def practice_batches(first: int, last: int, batch: int, seed: int, workers: int = 1) -> Iterator[PracticeBatch]:
    """Stream the batches of steps ``first`` to ``last`` - 1, drawn ahead by a worker process."""
    steps = _Steps(first, last, batch, seed)
    for pixels, owners, factors in DataLoader(
        steps, batch_size=None, num_workers=workers, prefetch_factor=6 if workers else None
    ):
        yield PracticeBatch(pixels=pixels, owners=owners, factors=factors)
