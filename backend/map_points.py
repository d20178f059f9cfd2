"""The map in binary: where every feature lies, for a browser to fetch once. At most 9 bytes a feature in an atlas.

Little-endian; columns follow one another, each in the order of the features table:

    header   uint32 magic "ICM1", uint32 n, float32 low_x, high_x, low_y, high_y, uint8 id bytes, 3 bytes of zeros
    ids      id bytes 2: uint16 steps from one id to the next (the first from 0); 4: uint32 ids
    x, y     uint16 shares of [low, high]: 0 is low, 65535 is high
    cluster  uint16, 65535 for none
    flags    uint8; bit 0: the quality filter keeps the feature
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

MAGIC = 0x314D4349
NO_CLUSTER = 65535
"""Cluster of a feature that belongs to none."""
KEPT = 1
"""Flag: the quality filter keeps the feature."""
_HEADER = struct.Struct("<II4fB3x")
_FULL = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPoints:
    """One point per feature; coordinates in map units, -1 for no cluster."""

    ids: Int64[np.ndarray, " feature"]
    x: Float32[np.ndarray, " feature"]
    y: Float32[np.ndarray, " feature"]
    cluster: Int64[np.ndarray, " feature"]
    kept: Bool[np.ndarray, " feature"]


def encode(points: MapPoints) -> bytes:
    """The points as one file. Raises ValueError for coordinates that are not finite or ids outside uint32."""
    ids = points.ids.astype(np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= 2**32):
        raise ValueError("feature ids do not fit 32 bits")
    steps = np.diff(ids, prepend=0)
    short = bool(((steps >= 0) & (steps <= _FULL)).all())
    bounds, axes = [], []
    for axis in (points.x, points.y):
        low, high, codes = _quantised(axis)
        bounds += [low, high]
        axes.append(codes)
    cluster = np.where((points.cluster >= 0) & (points.cluster < NO_CLUSTER), points.cluster, NO_CLUSTER)
    columns = (
        steps.astype("<u2") if short else ids.astype("<u4"),
        *axes,
        cluster.astype("<u2"),
        np.where(points.kept, KEPT, 0).astype("u1"),
    )
    header = _HEADER.pack(MAGIC, len(ids), *bounds, 2 if short else 4)
    return header + b"".join(column.tobytes() for column in columns)


def decode(data: bytes) -> MapPoints:
    """The points of a file; coordinates as exact as 16 bits are. Raises ValueError for any other file."""
    if len(data) < _HEADER.size:
        raise ValueError("the points file is shorter than its header")
    magic, n, low_x, high_x, low_y, high_y, id_bytes = _HEADER.unpack_from(data)
    if magic != MAGIC or id_bytes not in {2, 4} or len(data) != _HEADER.size + n * (id_bytes + 7):
        raise ValueError("the file does not hold the points of a map")
    at = _HEADER.size
    steps = np.frombuffer(data, "<u2" if id_bytes == 2 else "<u4", n, at).astype(np.int64)
    at += n * id_bytes
    x, y, cluster = (np.frombuffer(data, "<u2", n, at + 2 * n * place) for place in range(3))
    flags = np.frombuffer(data, "u1", n, at + 6 * n)
    return MapPoints(
        ids=np.cumsum(steps) if id_bytes == 2 else steps,
        x=_coordinates(x, low_x, high_x),
        y=_coordinates(y, low_y, high_y),
        cluster=np.where(cluster == NO_CLUSTER, -1, cluster.astype(np.int64)),
        kept=(flags & KEPT).astype(bool),
    )


def _quantised(axis: Float32[np.ndarray, " feature"]) -> tuple[float, float, np.ndarray]:
    values = axis.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a point of the map has no finite coordinates")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    extent = high - low or 1.0
    return low, high, np.rint((values - low) / extent * _FULL).astype("<u2")


def _coordinates(codes: np.ndarray, low: float, high: float) -> Float32[np.ndarray, " feature"]:
    return (low + codes.astype(np.float64) / _FULL * (high - low)).astype(np.float32)
