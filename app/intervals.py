"""Intervals of what the explorer counts itself: shares and medians. Scores bring theirs from the atlas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Z = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value with its n and 95 % interval; all None but n where there is nothing to estimate from."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def wilson(count: int, n: int) -> Interval:
    """The share ``count / n`` with its Wilson score interval. Raises ValueError if ``count`` lies outside 0..n."""
    if not 0 <= count <= n:
        raise ValueError(f"count {count} lies outside 0..{n}")
    if n == 0:
        return Interval(value=None, low=None, high=None, n=0)
    share = count / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == n else min(1.0, centre + half)
    return Interval(value=share, low=low, high=high, n=n)


def median(values: Float[np.ndarray, " item"]) -> Interval:
    """The median with the interval between two order statistics; no ends where n is too small for 95 % (below 6).

    Distribution-free: the number of items below the median is binomial (n, 1/2); ranks by its normal approximation,
    rounded outwards, so that the interval holds the median in at least 95 % of samples of any size.
    Raises ValueError for a value that is not finite.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = int(ordered.size)
    if n == 0:
        return Interval(value=None, low=None, high=None, n=0)
    if not np.isfinite(ordered).all():
        raise ValueError("median received a value that is not finite")
    middle = float(np.median(ordered))
    if n < 6:
        return Interval(value=middle, low=None, high=None, n=n)
    below = max(0, math.floor(n / 2 - Z * math.sqrt(n) / 2) - 1)
    return Interval(value=middle, low=float(ordered[below]), high=float(ordered[n - 1 - below]), n=n)
