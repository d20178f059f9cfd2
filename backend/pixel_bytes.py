"""Pictures on their way to the model as bytes: resized on the CPU by many threads, normalised where the model is.

An image processor that resizes, scales and normalises maps each byte of the resized picture to one number, by channel.
That table (3 x 256) and the resampling filter are found by asking the subject's own ``preprocess``; then both ways are
compared on made-up pictures. Only if every bit agrees is the short way taken, so it never changes a number, on any
device; a processor that does anything else (crops, pads, cuts tiles, other sizes) is used as it is.

A JPEG is decoded in full: Pillow's ``draft`` mode is faster for large photographs, but gives other pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from backend.models.base import VisionTower

N_VALUES = 256
FILTERS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.NEAREST,
    Image.Resampling.BOX,
    Image.Resampling.HAMMING,
)
PROBE_SHAPES = ((1.31, 0.72), (0.55, 2.03), (2.4, 2.1))
"""Height and width of the pictures compared, as multiples of the side that the model reads."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelBytes:
    """The short way to a subject's pixel values."""

    height: int
    width: int
    resample: Image.Resampling
    table: Float32[np.ndarray, "3 256"]

    def resized(self, image: Image.Image) -> UInt8[np.ndarray, "3 h w"]:
        """The picture (RGB) at the model's size."""
        pixels = np.asarray(image.resize((self.width, self.height), self.resample))
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def values(self, image: Image.Image) -> Float32[np.ndarray, "3 h w"]:
        """What ``preprocess`` gives for one picture, bit by bit."""
        pixels = self.resized(image)
        return np.stack([np.take(row, channel) for row, channel in zip(self.table, pixels, strict=True)])

    def normalised(
        self, pixels: UInt8[Tensor, "image 3 h w"], device: torch.device | str
    ) -> Float[Tensor, "image 3 h w"]:
        """The same from bytes, computed on ``device``: a quarter of the bytes travels there."""
        moved = pixels.to(device, non_blocking=True)
        table = torch.from_numpy(self.table).to(device)
        values = torch.empty(moved.shape, dtype=torch.float32, device=device)
        for channel in range(len(table)):  # one at a time: the indices take four bytes each
            values[:, channel] = table[channel][moved[:, channel].int()]
        return values


_known: WeakKeyDictionary[VisionTower, PixelBytes | None] = WeakKeyDictionary()


def pixel_bytes(subject: VisionTower) -> PixelBytes | None:
    """The short way for a subject; None if its processor does more than resize, scale and normalise."""
    if subject not in _known:
        _known[subject] = _find(subject)
    return _known[subject]


def _find(subject: VisionTower) -> PixelBytes | None:
    side = subject.image_px
    if side * side < N_VALUES:
        return None
    ramp = np.arange(side * side, dtype=np.int64).reshape(side, side) % N_VALUES
    shown = Image.fromarray(np.repeat(ramp[..., None], 3, axis=-1).astype(np.uint8))
    values = subject.preprocess([shown])
    if values.dtype != torch.float32 or tuple(values.shape) != (1, 3, side, side):
        return None
    table = np.ascontiguousarray(values[0].numpy().reshape(3, -1)[:, :N_VALUES])
    rng = np.random.default_rng(0)
    sizes = [(max(2, round(side * tall)), max(2, round(side * wide))) for tall, wide in PROBE_SHAPES]
    probes = [Image.fromarray(rng.integers(0, N_VALUES, (*size, 3), dtype=np.uint8)) for size in sizes]
    expected = [subject.preprocess([probe])[0].numpy() for probe in (*probes, shown)]
    for resample in FILTERS:
        found = PixelBytes(side, side, resample, table)
        if _agree(found, [*probes, shown], expected):
            return found
    return None


def _agree(found: PixelBytes, probes: Sequence[Image.Image], expected: Sequence[np.ndarray]) -> bool:
    pairs = zip(probes, expected, strict=True)
    return all(np.array_equal(found.values(probe), values) for probe, values in pairs)
