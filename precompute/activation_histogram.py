"""Histograms of activations whose range is unknown until the stream ends.

Bins are linear from 0 and their width is a power of two, the smallest for which the bins reach the maximum seen. A
width of twice another merges its bins in pairs exactly, so histograms of parts add up to the histogram of the whole.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

EMPTY_EXPONENT = -1000
"""Exponent of a histogram that has seen nothing; it merges with any other."""


def exponents(maximum: Float[np.ndarray, " feature"], n_bins: int) -> Int[np.ndarray, " feature"]:
    """Smallest e per feature with ``maximum < n_bins * 2**e``; EMPTY_EXPONENT where the maximum is 0."""
    _, exponent = np.frexp(maximum.astype(np.float64) / n_bins)
    return np.where(maximum > 0, exponent, EMPTY_EXPONENT).astype(np.int64)


def histogram(
    feature: Int[np.ndarray, " active"],
    value: Float[np.ndarray, " active"],
    exponent: Int[np.ndarray, " feature"],
    n_bins: int,
) -> Int[np.ndarray, "feature n_bins"]:
    """Counts per feature and bin ``floor(value / 2**exponent)``; the division is exact."""
    bins = np.floor(np.ldexp(value.astype(np.float64), -exponent[feature])).astype(np.int64)
    flat = np.bincount(feature.astype(np.int64) * n_bins + bins, minlength=exponent.size * n_bins)
    return flat.reshape(exponent.size, n_bins)


def merge(
    counts: Int[np.ndarray, "feature n_bins"],
    exponent: Int[np.ndarray, " feature"],
    other_counts: Int[np.ndarray, "feature n_bins"],
    other_exponent: Int[np.ndarray, " feature"],
) -> tuple[Int[np.ndarray, "feature n_bins"], Int[np.ndarray, " feature"]]:
    """Sum of two histograms at the coarser width of each feature."""
    target = np.maximum(exponent, other_exponent)
    return _coarsen(counts, target - exponent) + _coarsen(other_counts, target - other_exponent), target


def _coarsen(
    counts: Int[np.ndarray, "feature n_bins"], doublings: Int[np.ndarray, " feature"]
) -> Int[np.ndarray, "feature n_bins"]:
    n_features, n_bins = counts.shape
    shift = np.minimum(doublings, 62)
    bins = np.arange(n_bins)[None, :] >> shift[:, None]
    flat = np.bincount(
        (np.arange(n_features)[:, None] * n_bins + bins).ravel(), weights=counts.ravel(), minlength=n_features * n_bins
    )
    return np.rint(flat).astype(np.int64).reshape(n_features, n_bins)
