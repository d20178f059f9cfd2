"""Numbers with their uncertainty: intervals, ranking areas and tests. Pure NumPy and SciPy, no files, no tensors.

Every function treats missing values as an error of the caller: drop them first and report how many were dropped.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import optimize, stats

LEVEL = 0.95
_BOOTSTRAP_CHUNK_CELLS = 4_000_000
_EDGE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its n and 95 % interval; ``value`` is None when n is 0 (missing is never zero)."""

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, float | int | None]:
        """Plain mapping for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One-sided test that ``a`` is greater than ``b``; ``effect`` is documented by the function that made it."""

    __test__ = False  # keep pytest from collecting it

    p: float | None
    n: int
    effect: float | None


def bootstrap_mean(
    values: Float[np.ndarray, " item"], *, clusters: Sequence[Hashable] | None = None, n_bootstrap: int, seed: int
) -> Estimate:
    """Mean with the 95 % percentile bootstrap interval over items (features or images).

    With ``clusters``, one label per item, whole clusters are resampled: items of one label are not independent.
    """
    values = np.asarray(values, dtype=np.float64)
    n = int(values.size)
    if n == 0:
        return Estimate(value=None, n=0)
    if not np.isfinite(values).all():
        raise ValueError("bootstrap_mean received a value that is not finite")
    cluster = _numbered(clusters, n)
    sizes, sums = np.bincount(cluster), np.bincount(cluster, weights=values)
    means = np.empty(n_bootstrap)
    rng = np.random.default_rng(seed)
    rows = max(1, _BOOTSTRAP_CHUNK_CELLS // sizes.size)
    for start in range(0, n_bootstrap, rows):
        stop = min(start + rows, n_bootstrap)
        drawn = rng.integers(0, sizes.size, size=(stop - start, sizes.size))
        means[start:stop] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = _percentile_interval(means)
    return Estimate(value=float(values.mean()), n=n, low=low, high=high)


def _numbered(clusters: Sequence[Hashable] | None, n: int) -> Int[np.ndarray, " item"]:
    """The number of each item's cluster, in order of appearance; without clusters every item is one of its own."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} labels for {n} items")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in clusters], dtype=np.int64)


def mean_of_few(
    values: Float[np.ndarray, " item"], *, lowest: float | None = None, highest: float | None = None
) -> Estimate:
    """Mean of a handful of values with Student's 95 % interval, cut to the range that the values can have.

    A bootstrap of three to five values can only return those values and is far too narrow. One value has no interval;
    equal values have one of no width, which says that they do not differ and no more.
    """
    values = np.asarray(values, dtype=np.float64)
    n = int(values.size)
    if n == 0:
        return Estimate(value=None, n=0)
    mean = float(values.mean())
    if n == 1:
        return Estimate(value=mean, n=1)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    low = mean - half if lowest is None else max(lowest, mean - half)
    high = mean + half if highest is None else min(highest, mean + half)
    return Estimate(value=mean, n=n, low=min(low, mean), high=max(high, mean))


def wilson(count: int, n: int) -> Estimate:
    """Share ``count / n`` with its 95 % Wilson score interval."""
    if not 0 <= count <= n:
        raise ValueError(f"count {count} lies outside 0..{n}")
    if n == 0:
        return Estimate(value=None, n=0)
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))
    share = count / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == n else min(1.0, centre + half)
    return Estimate(value=share, n=n, low=low, high=high)


def auroc(positives: Float[np.ndarray, " positive"], negatives: Float[np.ndarray, " negative"]) -> float:
    """Probability that a positive outranks a negative, ties counting half. Range 0..1, chance 0.5."""
    positives, negatives = np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)
    if positives.size == 0 or negatives.size == 0:
        raise ValueError("auroc needs at least one positive and one negative")
    ranks = stats.rankdata(np.concatenate([positives, negatives]))
    u = ranks[: positives.size].sum() - positives.size * (positives.size + 1) / 2
    return float(u / (positives.size * negatives.size))


def auroc_interval(area: float, n_positives: int, n_negatives: int) -> tuple[float, float]:
    """95 % interval of an area under the ROC curve from its sample sizes alone.

    Newcombe's method 5 (Statistics in Medicine 25, 2006): all areas whose Hanley-McNeil standard error, taken at the
    area itself and not at the observed one, makes the observation no surprise. Like Wilson's interval for a share it
    has a width at 0 and at 1 and stays inside them, which matters with three positives.
    """
    if not 0 <= area <= 1 or n_positives < 1 or n_negatives < 1:
        raise ValueError(f"no interval for an area of {area} with {n_positives} positives, {n_negatives} negatives")
    z = float(stats.norm.ppf(0.5 + LEVEL / 2))
    pairs_less_one = (n_positives + n_negatives) / 2 - 1

    def surprise(true: float) -> float:
        ties = 1 + pairs_less_one * ((1 - true) / (2 - true) + true / (1 + true))
        variance = true * (1 - true) * ties / (n_positives * n_negatives)
        return (area - true) ** 2 - z * z * variance

    # At 0 and at 1 the standard error vanishes, and the observed area itself solves the equation: keep off it.
    # Any: without stubs the checker cannot tell that full_output=False returns the root alone.
    low: Any = 0.0 if area == 0 else optimize.brentq(surprise, 0.0, min(area, 1 - _EDGE))
    high: Any = 1.0 if area == 1 else optimize.brentq(surprise, max(area, _EDGE), 1.0)
    return float(low), float(high)


def pooled_auroc(
    positives: Float[np.ndarray, "feature positive"],
    negatives: Float[np.ndarray, "feature negative"],
    clusters: Sequence[Hashable] | None = None,
    *,
    n_bootstrap: int,
    seed: int,
) -> Estimate:
    """One AUROC over the raw activations of all features, as in the paper; the interval resamples features, or whole
    ``clusters`` of them (one label per feature).

    Resampling only changes how often each row counts, so the pooled ranking is sorted once.
    """
    n = int(positives.shape[0])
    if n == 0:
        return Estimate(value=None, n=0)
    values = np.concatenate([positives.ravel(), negatives.ravel()]).astype(np.float64)
    is_positive = np.arange(values.size) < positives.size
    rows = np.concatenate([np.repeat(np.arange(n), positives.shape[1]), np.repeat(np.arange(n), negatives.shape[1])])
    order = np.argsort(values, kind="stable")
    group = np.cumsum(np.concatenate([[0], np.diff(values[order]) > 0])).astype(np.int64)
    rng = np.random.default_rng(seed)
    point = _weighted_auroc(np.ones(n), rows[order], is_positive[order], group)
    cluster = _numbered(clusters, n)
    n_clusters = int(cluster.max()) + 1
    draws = []
    for _ in range(n_bootstrap):
        times = np.bincount(rng.integers(0, n_clusters, size=n_clusters), minlength=n_clusters)
        draws.append(_weighted_auroc(times[cluster], rows[order], is_positive[order], group))
    low, high = _percentile_interval(np.asarray(draws))
    return Estimate(value=point, n=n, low=low, high=high)


def _weighted_auroc(
    weights: Float[np.ndarray, " feature"] | Int[np.ndarray, " feature"],
    rows: Int[np.ndarray, " item"],
    is_positive: Bool[np.ndarray, " item"],
    group: Int[np.ndarray, " item"],
) -> float:
    """AUROC of items in ascending order; ``group`` numbers runs of equal values, ``weights`` belong to rows."""
    item_weights = weights[rows].astype(np.float64)
    positive = np.bincount(group, weights=item_weights * is_positive)
    negative = np.bincount(group, weights=item_weights * ~is_positive)
    below = np.cumsum(negative) - negative
    return float((positive * (below + 0.5 * negative)).sum() / (positive.sum() * negative.sum()))


def average_precision(
    scores: Float[np.ndarray, " item"],
    positives: Bool[np.ndarray, "item concept"],
    n_positives: Int[np.ndarray, " concept"],
    n_items: int,
) -> Float[np.ndarray, " concept"]:
    """Average precision of one sparse ranking against many concepts at once.

    ``scores`` are the strictly positive activations only; the ``n_items - len(scores)`` items left out are tied at
    zero below all of them, so only their number and their count of positives matter. Equal scores form one threshold
    (as in scikit-learn's ``average_precision_score``). Concepts without a positive item give NaN. Range 0..1.
    """
    found = n_hits = np.zeros(positives.shape[1])
    if scores.size:
        order = np.argsort(-scores, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
        hits = np.cumsum(positives[order], axis=0, dtype=np.int32)[ends]
        gained = np.diff(hits, axis=0, prepend=np.zeros((1, positives.shape[1]), dtype=hits.dtype))
        found = (hits / (ends + 1)[:, None] * gained).sum(axis=0)
        n_hits = hits[-1]
    rest = (n_positives - n_hits) * (n_positives / n_items)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n_positives > 0, (found + rest) / np.maximum(n_positives, 1), np.nan)


def resampled_average_precision(
    scores: Float[np.ndarray, " item"],
    is_positive: Bool[np.ndarray, " item"],
    group: Int[np.ndarray, " item"],
    n_positives: Int[np.ndarray, " group"],
    group_size: int,
    weights: Int[np.ndarray, "draw group"],
) -> Float[np.ndarray, " draw"]:
    """:func:`average_precision` of one ranking against one concept, with each group of items counted ``weights`` times.

    Args:
        scores: the strictly positive activations.
        is_positive: whether each of these items shows the concept.
        group: which group (image) each of them belongs to.
        n_positives: positive items of every group, active or not.
        group_size: items of a group.
        weights: how often each group is drawn.

    A draw without a positive item gives NaN. Resampling only changes how often each item counts, so the ranking is
    sorted once for all draws.
    """
    total = weights @ n_positives
    found = n_hits = np.zeros(len(weights))
    if scores.size:
        order = np.argsort(-scores, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
        counted = weights[:, group[order]]
        seen = np.cumsum(counted, axis=1)[:, ends]
        hits = np.cumsum(counted * is_positive[order], axis=1)[:, ends]
        gained = np.diff(hits, axis=1, prepend=0)
        found = (hits / np.maximum(seen, 1) * gained).sum(axis=1)
        n_hits = hits[:, -1]
    rest = (total - n_hits) * (total / (weights.sum(axis=1) * group_size))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (found + rest) / np.maximum(total, 1), np.nan)


def wilcoxon_greater(a: Float[np.ndarray, " feature"], b: Float[np.ndarray, " feature"]) -> TestResult:
    """Paired one-sided Wilcoxon signed-rank test that a > b; effect = rank-biserial correlation (-1..1)."""
    if a.shape != b.shape:
        raise ValueError(f"paired samples differ in length: {a.shape} and {b.shape}")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    nonzero = difference[difference != 0]
    if nonzero.size == 0:
        return TestResult(p=None, n=int(a.size), effect=None)
    ranks = stats.rankdata(np.abs(nonzero))
    effect = float((ranks * np.sign(nonzero)).sum() / ranks.sum())
    _, p = np.asarray(stats.wilcoxon(nonzero, alternative="greater", method="approx"), dtype=np.float64)
    return TestResult(p=float(p), n=int(a.size), effect=effect)


def mann_whitney_greater(a: Float[np.ndarray, " item"], b: Float[np.ndarray, " item"]) -> TestResult:
    """Unpaired one-sided Mann-Whitney U test that a > b (as in the paper); effect = P(a > b) + P(a = b) / 2."""
    if a.size == 0 or b.size == 0:
        return TestResult(p=None, n=int(a.size + b.size), effect=None)
    result = stats.mannwhitneyu(a, b, alternative="greater", method="asymptotic")
    effect = float(result.statistic / (a.size * b.size))
    return TestResult(p=float(result.pvalue), n=int(a.size + b.size), effect=effect)


def permutation_interval(draws: Float[np.ndarray, " draw"], n: int) -> Estimate:
    """Mean and central 95 % range of a statistic under permutation."""
    if draws.size == 0:
        return Estimate(value=None, n=0)
    low, high = _percentile_interval(draws)
    return Estimate(value=float(draws.mean()), n=n, low=low, high=high)


def _percentile_interval(draws: Float[np.ndarray, " draw"]) -> tuple[float, float]:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)
