"""Images to residuals at the hook point, in fixed chunks, with unreadable images skipped and counted.

A chunk always holds the same images, whatever was done before, so a resumed run repeats the same arithmetic.
The next chunk is read and preprocessed in a thread while the model works on the current one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from backend.errors import ActivationsNotFinite, ImageUnreadable
from backend.models.base import VisionTower
from precompute.datasets import ImageSet

UNREADABLE = "image unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedChunk:
    """Residuals of the readable images of one chunk."""

    image_ids: tuple[str, ...]
    positions: tuple[int, ...]
    """Index of each image in the list that was asked for."""
    residuals: Float[Tensor, "image patch d_model"]


def encode_images(
    subject: VisionTower,
    image_set: ImageSet,
    image_ids: Sequence[str],
    *,
    images_per_batch: int,
    failures: Counter[str] | None = None,
) -> Iterator[EncodedChunk]:
    """Residuals of ``image_ids`` in order, ``images_per_batch`` at a time.

    Unreadable images are left out and counted in ``failures``. Raises ActivationsNotFinite.
    """
    starts = range(0, len(image_ids), images_per_batch)
    with ThreadPoolExecutor(max_workers=1) as reader:
        pending = None
        for start in [*starts, None]:
            following = (
                reader.submit(_read, subject, image_set, image_ids, start, images_per_batch)
                if start is not None
                else None
            )
            if pending is not None:
                positions, pixels, n_unreadable = pending.result()
                if failures is not None and n_unreadable:
                    failures[UNREADABLE] += n_unreadable
                if positions:
                    yield EncodedChunk(
                        image_ids=tuple(image_ids[position] for position in positions),
                        positions=tuple(positions),
                        residuals=finite_residuals(subject, pixels),
                    )
            pending = following


def _read(
    subject: VisionTower, image_set: ImageSet, image_ids: Sequence[str], start: int, count: int
) -> tuple[list[int], Float[Tensor, "image 3 h w"], int]:
    positions: list[int] = []
    images: list[Image.Image] = []
    wanted = range(start, min(start + count, len(image_ids)))
    for position in wanted:
        try:
            images.append(image_set.load(image_ids[position]))
        except ImageUnreadable:
            continue
        positions.append(position)
    pixels = subject.preprocess(images) if images else torch.empty(0)
    return positions, pixels, len(wanted) - len(positions)


def finite_residuals(
    subject: VisionTower, pixels: Float[Tensor, "image 3 h w"]
) -> Float[Tensor, "image patch d_model"]:
    """``subject.to_hook`` with the check that every number is finite. Raises ActivationsNotFinite."""
    residuals = subject.to_hook(pixels)
    if not torch.isfinite(residuals).all():
        raise ActivationsNotFinite(
            f"The residual stream of {subject.card.name} at {subject.hook_point} holds NaN or infinity. "
            "Run it with dtype float32."
        )
    return residuals


@contextmanager
def fixed_threads(n_threads: int) -> Iterator[None]:
    """Compute with so many threads, whatever the process was started with: float sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
