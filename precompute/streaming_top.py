"""The best N rows per feature over a stream of any length, exactly as a full sort would choose them.

Rows are ordered by value, highest first; equal values by ``order``, lowest first. That order is total, so keeping the
best N of what was seen is associative: any batching and any arrival order end with the same rows.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int


def top_rows(
    feature: Int[np.ndarray, " row"], value: Float[np.ndarray, " row"], order: Int[np.ndarray, " row"], n: int
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " kept"]]:
    """Rows to keep, sorted by (feature, rank), and their rank within the feature (0 = best).

    Args:
        feature: feature of each row.
        value: what to rank by, finite.
        order: tie-break, unique within a feature.
        n: rows kept per feature.
    """
    _require_finite(value)
    ranking = np.lexsort((order, -value, feature))
    sorted_features = feature[ranking]
    starts = np.flatnonzero(np.append(True, np.diff(sorted_features) != 0)[: ranking.size])
    counts = np.diff(np.append(starts, ranking.size))
    rank = np.arange(ranking.size) - np.repeat(starts, counts)
    kept = rank < n
    return ranking[kept], rank[kept]


def among_top(
    feature: Int[np.ndarray, " row"], value: Float[np.ndarray, " row"], order: Int[np.ndarray, " row"], n: int
) -> Bool[np.ndarray, " row"]:
    """Which rows :func:`top_rows` keeps; arguments as there. Only features with more than ``n`` rows are sorted."""
    _require_finite(value)
    kept = np.bincount(feature)[feature] <= n
    crowded = np.flatnonzero(~kept)
    kept[crowded[top_rows(feature[crowded], value[crowded], order[crowded], n)[0]]] = True
    return kept


def _require_finite(value: Float[np.ndarray, " row"]) -> None:
    if not np.isfinite(value).all():
        raise ValueError("cannot rank values that are not finite")


class StreamingTop:
    """Keeps the best ``n`` (value, order) rows per feature of all rows ever added."""

    def __init__(self, n: int) -> None:
        self._n = n
        self.feature = np.empty(0, dtype=np.int64)
        self.value = np.empty(0, dtype=np.float32)
        self.order = np.empty(0, dtype=np.int64)

    def add(
        self, feature: Int[np.ndarray, " row"], value: Float[np.ndarray, " row"], order: Int[np.ndarray, " row"]
    ) -> None:
        """Merge rows; ``(feature, order)`` must not have been added before."""
        merged = (
            np.concatenate([self.feature, feature.astype(np.int64)]),
            np.concatenate([self.value, value.astype(np.float32)]),
            np.concatenate([self.order, order.astype(np.int64)]),
        )
        kept, _ = top_rows(*merged, self._n)
        self.feature, self.value, self.order = (column[kept] for column in merged)


def sample_priority(feature: Int[np.ndarray, " row"], order: Int[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """A fixed pseudo-random number in [0, 1) per (feature, image): ranking by it draws a fair sample of any stream.

    SplitMix64 over both numbers, so neither the order of arrival nor the number of images matters.
    """
    state = feature.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + order.astype(np.uint64)
    with np.errstate(over="ignore"):
        for _ in range(2):
            state = state + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(np.float64) / float(1 << 53)
