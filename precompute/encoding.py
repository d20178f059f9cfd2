"""Images to residuals at the hook point, in fixed chunks, with unreadable images skipped and counted.

A chunk always holds the same images, whatever was done before, so a resumed run repeats the same arithmetic.
The next chunks are decoded and resized by several threads (Pillow computes outside Python's lock) while the model works
on the current one; at most ``CHUNKS_AHEAD`` of them are in memory beside it.

On a CPU two chunks can be encoded at once, each with half of the compute threads: what only one thread can do of one is
done beside the other. A tower holds no state between calls, so threads may share it.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from backend.batching import in_batches
from backend.errors import ActivationsNotFinite, ImageUnreadable
from backend.finite import all_finite
from backend.models.base import VisionTower
from backend.pixel_bytes import PixelBytes, pixel_bytes
from precompute.datasets import ImageSet

UNREADABLE = "image unreadable"
CHUNKS_AHEAD = 2
MOST_READERS = 16
MOST_AT_ONCE = 2
"""Chunks that a CPU encodes at once; each takes the memory of the tower's activations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedChunk:
    """Residuals of the readable images of one chunk."""

    image_ids: tuple[str, ...]
    positions: tuple[int, ...]
    """Index of each image in the list that was asked for."""
    residuals: Float[Tensor, "image patch d_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelChunk:
    """The readable images of one chunk, as the model reads them or still as bytes."""

    positions: tuple[int, ...]
    pixels: Tensor
    """[image 3 h w]: float32 values, or uint8 if they are to be normalised where the model is."""
    n_unreadable: int


def encode_images(
    subject: VisionTower,
    image_set: ImageSet,
    image_ids: Sequence[str],
    *,
    images_per_batch: int,
    failures: Counter[str] | None = None,
    n_readers: int | None = None,
    n_at_once: int = 1,
) -> Iterator[EncodedChunk]:
    """Residuals of ``image_ids`` in order, ``images_per_batch`` at a time.

    Unreadable images are left out and counted in ``failures``. ``n_readers`` threads decode (default: one per core) and
    ``n_at_once`` chunks are encoded at once, with the caller's number of compute threads each; neither changes a
    result. Raises ActivationsNotFinite.
    """
    short = pixel_bytes(subject)

    def encoded(chunk: PixelChunk) -> EncodedChunk:
        pixels = chunk.pixels
        if short is not None and pixels.dtype == torch.uint8:
            pixels = short.normalised(pixels, subject.device)
        return EncodedChunk(
            image_ids=tuple(image_ids[position] for position in chunk.positions),
            positions=chunk.positions,
            residuals=finite_residuals(subject, pixels),
        )

    def readable() -> Iterator[PixelChunk]:
        chunks = read_chunks(subject, image_set, image_ids, images_per_batch=images_per_batch, n_readers=n_readers)
        for chunk in chunks:
            if failures is not None and chunk.n_unreadable:
                failures[UNREADABLE] += chunk.n_unreadable
            if chunk.positions:
                yield chunk

    yield from map(encoded, readable()) if n_at_once == 1 else _ahead(encoded, readable(), n_at_once)


def _ahead(
    encoded: Callable[[PixelChunk], EncodedChunk], chunks: Iterator[PixelChunk], n_at_once: int
) -> Iterator[EncodedChunk]:
    """``map``, computed by ``n_at_once`` threads ahead of who asks; each has what the caller's context knows."""
    n_threads = torch.get_num_threads()
    pending: deque[Future[EncodedChunk]] = deque()
    with ThreadPoolExecutor(n_at_once, initializer=lambda: torch.set_num_threads(n_threads)) as pool:
        try:
            for chunk in chunks:
                pending.append(pool.submit(copy_context().run, encoded, chunk))
                if len(pending) > n_at_once:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_chunks(
    subject: VisionTower,
    image_set: ImageSet,
    image_ids: Sequence[str],
    *,
    images_per_batch: int,
    n_readers: int | None = None,
) -> Iterator[PixelChunk]:
    """The images of each chunk, decoded ahead of time; arguments as for :func:`encode_images`."""
    n_readers = n_readers or min(MOST_READERS, os.cpu_count() or 1)
    starts = deque(range(0, len(image_ids), images_per_batch))
    pending: deque[Future[PixelChunk]] = deque()
    with ThreadPoolExecutor(n_readers) as readers, ThreadPoolExecutor(CHUNKS_AHEAD) as chunks:
        try:
            while starts or pending:
                while starts and len(pending) < CHUNKS_AHEAD:
                    start = starts.popleft()
                    wanted = range(start, min(start + images_per_batch, len(image_ids)))
                    pending.append(chunks.submit(_read, readers, subject, image_set, image_ids, wanted))
                yield pending.popleft().result()
        finally:  # a consumer that stops early must not wait for what it will not see
            readers.shutdown(wait=False, cancel_futures=True)
            chunks.shutdown(wait=False, cancel_futures=True)


def _read(
    readers: ThreadPoolExecutor, subject: VisionTower, image_set: ImageSet, image_ids: Sequence[str], wanted: range
) -> PixelChunk:
    short = pixel_bytes(subject)
    on_device = short is not None and subject.device.type != "cpu"

    def one(position: int) -> np.ndarray | Image.Image | None:
        try:
            image = image_set.load(image_ids[position])
        except ImageUnreadable:
            return None
        if short is None:
            return image
        return short.resized(image) if on_device else short.values(image)

    found = dict(zip(wanted, readers.map(one, wanted), strict=True))
    kept = {position: item for position, item in found.items() if item is not None}
    return PixelChunk(
        positions=tuple(kept),
        pixels=_joined(subject, short, list(kept.values())),
        n_unreadable=len(found) - len(kept),
    )


def _joined(subject: VisionTower, short: PixelBytes | None, items: Sequence[np.ndarray | Image.Image]) -> Tensor:
    if not items:
        return torch.empty(0)
    if short is None:
        return subject.preprocess([item for item in items if isinstance(item, Image.Image)])
    pixels = torch.from_numpy(np.stack([np.asarray(item) for item in items]))
    return pixels.pin_memory() if pixels.dtype == torch.uint8 and subject.device.type == "cuda" else pixels


def finite_residuals(
    subject: VisionTower, pixels: Float[Tensor, "image 3 h w"]
) -> Float[Tensor, "image patch d_model"]:
    """``subject.to_hook`` with the check that every number is finite.

    If memory runs out the images go in halves, and the chunk stays whole: nothing after this sees where a batch ended.
    Raises ActivationsNotFinite or NotEnoughMemory.
    """
    parts = list(in_batches("images", len(pixels), len(pixels), lambda part: subject.to_hook(pixels[part])))
    residuals = parts[0] if len(parts) == 1 else torch.cat(parts)
    if not all_finite(residuals):
        raise ActivationsNotFinite(
            f"The residual stream of {subject.card.name} at {subject.hook_point} holds NaN or infinity. "
            "Run it with dtype float32."
        )
    return residuals


def split_threads(device: str, n_threads: int) -> tuple[int, int]:
    """How many chunks to encode at once, and with how many compute threads each."""
    n_at_once = min(MOST_AT_ONCE, n_threads) if device == "cpu" else 1
    return n_at_once, n_threads // n_at_once


@contextmanager
def fixed_threads(n_threads: int) -> Iterator[None]:
    """Compute with so many threads, whatever the process was started with: float sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
