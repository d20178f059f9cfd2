"""What one image range contributes to the harvest, and how contributions add up. No files, no model.

Contributions of disjoint image ranges merge in any order to the same result: counts add, the best rows are chosen by a
total order, histograms coarsen exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from precompute import activation_histogram
from precompute.sparse_codes import CodesByFeature
from precompute.streaming_top import among_top, sample_priority, top_rows

N_SAMPLED = 60
"""Images per feature drawn fairly from all on which it is active; the decile exemplars are chosen among them."""
DECILES = tuple(range(10))

CANDIDATE_SCHEMA = pa.schema(
    [
        ("feature", pa.int32()),
        ("position", pa.int64()),
        ("activation_mean", pa.float32()),
        ("activation_max", pa.float32()),
        ("patches", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float32())),
    ]
)
"""One row per (feature, image) that may become an exemplar, with its active patches (row-major) and their values."""


def candidates(codes: CodesByFeature, positions: Int[np.ndarray, " image"], n: int, *, sample: bool) -> pa.Table:
    """The (feature, image) pairs of a chunk that can still be among the best ``n`` (or the sample) of their feature.

    Args:
        codes: the chunk's codes.
        positions: index of each image of the chunk within its split.
        n: exemplars kept per feature and pooling.
        sample: also keep a fair sample per feature.
    """
    order = positions[codes.pair_image]
    rows = _may_win(codes.pair_feature, order, (codes.pair_mean, codes.pair_max), n, sample=sample)
    lengths = (codes.pair_stop - codes.pair_start)[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    at = np.repeat(codes.pair_start[rows], lengths) + within
    columns = [
        pa.array(codes.pair_feature[rows], pa.int32()),
        pa.array(order[rows], pa.int64()),
        pa.array(codes.pair_mean[rows], pa.float32()),
        pa.array(codes.pair_max[rows], pa.float32()),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(codes.patch[at], pa.int32())),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(codes.value[at], pa.float32())),
    ]
    return pa.Table.from_arrays(columns, schema=CANDIDATE_SCHEMA)


def prune(table: pa.Table, n: int, *, sample: bool) -> pa.Table:
    """Drop candidates that cannot win any more."""
    feature, order = _column(table, "feature"), _column(table, "position")
    pooled = [_column(table, name) for name in ("activation_mean", "activation_max")]
    return table.take(pa.array(_may_win(feature, order, pooled, n, sample=sample)))


def _may_win(
    feature: Int[np.ndarray, " row"],
    order: Int[np.ndarray, " row"],
    pooled: Sequence[Float[np.ndarray, " row"]],
    n: int,
    *,
    sample: bool,
) -> Int[np.ndarray, " kept"]:
    """Rows among the best ``n`` of their feature by one of ``pooled``, or in its sample; ascending."""
    kept = np.zeros(feature.size, dtype=bool)
    if sample:
        kept |= among_top(feature, -sample_priority(feature, order), order, N_SAMPLED)
    for values in pooled:
        if not kept.all():
            kept |= among_top(feature, values, order, n)
    return np.flatnonzero(kept)


def ranked(table: pa.Table, n: int, pooling: str) -> pa.Table:
    """The best ``n`` candidates per feature for ``pooling`` (mean or max), with a ``rank`` column, 0 = best."""
    rows, rank = top_rows(
        _column(table, "feature"), _column(table, f"activation_{pooling}"), _column(table, "position"), n
    )
    return _with_rank(table, rows, rank)


def deciles(table: pa.Table) -> pa.Table:
    """Ten exemplars per feature spread evenly over its sampled images from strongest (rank 0) to weakest (rank 9).

    Features with fewer than ten sampled images have one row per image.
    """
    feature, order = _column(table, "feature"), _column(table, "position")
    sampled, _ = top_rows(feature, -sample_priority(feature, order), order, N_SAMPLED)
    by_value, rank = top_rows(feature[sampled], _column(table, "activation_mean")[sampled], order[sampled], N_SAMPLED)
    rows = sampled[by_value]
    counts = np.bincount(feature[rows], minlength=int(feature.max(initial=-1)) + 1)[feature[rows]]
    wanted = np.round(np.linspace(0, 1, len(DECILES))[None, :] * (counts[:, None] - 1)).astype(np.int64)
    kept = (rank[:, None] == wanted).any(axis=1)
    new_rank = np.cumsum(kept) - 1
    kept_rows = rows[kept]
    starts = np.flatnonzero(np.append(True, np.diff(feature[kept_rows]) != 0)[: kept_rows.size])
    first = np.repeat(new_rank[kept][starts], np.diff(np.append(starts, kept_rows.size)))
    return _with_rank(table, kept_rows, new_rank[kept] - first)


def _with_rank(table: pa.Table, rows: Int[np.ndarray, " row"], rank: Int[np.ndarray, " row"]) -> pa.Table:
    return table.take(pa.array(rows)).append_column("rank", pa.array(rank, pa.int32()))


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].combine_chunks().to_numpy(zero_copy_only=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCounts:
    """Sums over the patches of some images, per feature."""

    n_patches: int
    n_active: Int[np.ndarray, " feature"]
    total: Float[np.ndarray, " feature"]
    """Sum of activations, float64."""
    maximum: Float[np.ndarray, " feature"]
    n_images_active: Int[np.ndarray, " feature"]
    exponent: Int[np.ndarray, " feature"]
    histogram: Int[np.ndarray, "feature n_bins"]

    @classmethod
    def empty(cls, d_sae: int, n_bins: int) -> FeatureCounts:
        """Nothing seen yet."""
        return cls(
            n_patches=0,
            n_active=np.zeros(d_sae, np.int64),
            total=np.zeros(d_sae),
            maximum=np.zeros(d_sae, np.float32),
            n_images_active=np.zeros(d_sae, np.int64),
            exponent=np.full(d_sae, activation_histogram.EMPTY_EXPONENT),
            histogram=np.zeros((d_sae, n_bins), np.int64),
        )

    @classmethod
    def of(cls, codes: CodesByFeature, n_patches: int, d_sae: int, n_bins: int) -> FeatureCounts:
        """Counts of one chunk of ``n_patches`` patches in all."""
        feature = codes.active_feature
        maximum = np.zeros(d_sae, np.float32)
        np.maximum.at(maximum, codes.pair_feature, codes.pair_max)
        exponent = activation_histogram.exponents(maximum, n_bins)
        return cls(
            n_patches=n_patches,
            n_active=np.bincount(feature, minlength=d_sae),
            total=np.bincount(feature, weights=codes.value, minlength=d_sae),
            maximum=maximum,
            n_images_active=np.bincount(codes.pair_feature, minlength=d_sae),
            exponent=exponent,
            histogram=activation_histogram.histogram(feature, codes.value, exponent, n_bins),
        )

    def __add__(self, other: FeatureCounts) -> FeatureCounts:
        counts, exponent = activation_histogram.merge(self.histogram, self.exponent, other.histogram, other.exponent)
        return FeatureCounts(
            n_patches=self.n_patches + other.n_patches,
            n_active=self.n_active + other.n_active,
            total=self.total + other.total,
            maximum=np.maximum(self.maximum, other.maximum),
            n_images_active=self.n_images_active + other.n_images_active,
            exponent=exponent,
            histogram=counts,
        )

    def table(self) -> pa.Table:
        """One row per feature; ``n_patches`` repeats so that the table alone restores the counts."""
        n_features = self.n_active.size
        return pa.table(
            {
                "feature": pa.array(np.arange(n_features), pa.int32()),
                "n_patches": pa.array(np.full(n_features, self.n_patches), pa.int64()),
                "n_active": pa.array(self.n_active, pa.int64()),
                "total": pa.array(self.total, pa.float64()),
                "maximum": pa.array(self.maximum, pa.float32()),
                "n_images_active": pa.array(self.n_images_active, pa.int64()),
                "exponent": pa.array(self.exponent, pa.int64()),
                "histogram": pa.array(list(self.histogram), pa.list_(pa.int64())),
            }
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> FeatureCounts:
        """Inverse of ``table``."""
        n_patches = _column(table, "n_patches")
        flat = table["histogram"].combine_chunks().flatten().to_numpy()
        return cls(
            n_patches=int(n_patches[0]) if n_patches.size else 0,
            n_active=_column(table, "n_active"),
            total=_column(table, "total"),
            maximum=_column(table, "maximum"),
            n_images_active=_column(table, "n_images_active"),
            exponent=_column(table, "exponent"),
            histogram=flat.reshape(n_patches.size, -1),
        )
