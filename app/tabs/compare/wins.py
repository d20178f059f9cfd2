"""Which methods wrote the best explanation of each feature: alone, or tied with others.

The vote (app/ranking.py) often ends in a tie, because methods often write the very same words. The atlas then stores
one of them, drawn by a seed. Counting what was drawn would credit a method with luck, so ties are counted as ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from app.intervals import Interval, wilson
from app.ranking import VOTING
from app.tabs.compare.columns import ATLASES_KEPT, codes_of, rows_of
from backend.feature_store import FeatureStore

_SAME = 1e-9
"""Mean places that differ by less are equal; places are halves and thirds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wins:
    """How the votes of an atlas ended."""

    n: int
    """Features that were voted on: some method has a text."""
    n_tied: int
    """Features with several best explanations, of which a seed drew one."""
    among: Mapping[str, Interval]
    """Arm key to the share of features where no method is above it, ties included; shares add up to more than 1."""
    alone: Mapping[str, int]
    """Arm key to the number of features where every other method is below it."""


@lru_cache(maxsize=ATLASES_KEPT)
def wins(store: FeatureStore) -> Wins:
    """Count the leaders of every feature."""
    arms = [arm.key for arm in store.arms if not arm.is_control]
    leading = leaders(store, arms)
    leading = leading[leading.any(axis=1)]
    several = leading.sum(axis=1) > 1
    n = len(leading)
    return Wins(
        n=n,
        n_tied=int(several.sum()),
        among={key: wilson(int(leading[:, place].sum()), n) for place, key in enumerate(arms)},
        alone={key: int(leading[~several, place].sum()) for place, key in enumerate(arms)},
    )


def leaders(store: FeatureStore, arms: list[str]) -> Bool[np.ndarray, "feature arm"]:
    """Whether an arm has the lowest mean place among those with a text; the rule is that of :mod:`app.ranking`."""
    candidates = _with_text(store, arms)
    values = _values(store, arms)
    total, n_voting = np.zeros(candidates.shape), np.zeros(len(candidates))
    for metric in values:
        votes = (np.isfinite(metric) | ~candidates).all(axis=1) & candidates.any(axis=1)
        total[votes] += _places(np.where(candidates, metric, -np.inf)[votes])
        n_voting += votes
    mean = np.where(candidates, total / np.maximum(n_voting, 1)[:, None], np.inf)
    return candidates & (mean <= mean.min(axis=1, keepdims=True, initial=np.inf) + _SAME)


def _places(values: Float[np.ndarray, "feature arm"]) -> Float[np.ndarray, "feature arm"]:
    """Place of each arm by its value, 1 the highest; equal values share the average of their places."""
    above = (values[:, None, :] > values[:, :, None]).sum(axis=2)
    equal = (values[:, None, :] == values[:, :, None]).sum(axis=2)
    return above + (equal + 1) / 2


def _with_text(store: FeatureStore, arms: list[str]) -> Bool[np.ndarray, "feature arm"]:
    table = store.table("explanations").select(["feature", "arm", "text"])
    arm = _place_of(table["arm"], arms)
    rows = np.flatnonzero((arm >= 0) & table["text"].is_valid().to_numpy())
    found = np.zeros((len(store), len(arms)), dtype=bool)
    found[rows_of(store, table["feature"].to_numpy()[rows]), arm[rows]] = True
    return found


def _values(store: FeatureStore, arms: list[str]) -> Float[np.ndarray, "metric feature arm"]:
    """Scores of the voting metrics; NaN where there is none."""
    table = store.table("scores").select(["feature", "arm", "metric", "value"])
    arm, metric = _place_of(table["arm"], arms), _place_of(table["metric"], VOTING)
    rows = np.flatnonzero((arm >= 0) & (metric >= 0))
    found = np.full((len(VOTING), len(store), len(arms)), np.nan)
    feature = rows_of(store, table["feature"].to_numpy()[rows])
    found[metric[rows], feature, arm[rows]] = table["value"].to_numpy(zero_copy_only=False)[rows]
    return found


def _place_of(column: pa.ChunkedArray, wanted: Sequence[str]) -> Int[np.ndarray, " row"]:
    """Where each value of a text column stands among the wanted ones; -1 for others."""
    codes, names = codes_of(column)
    return np.array([wanted.index(name) if name in wanted else -1 for name in names], dtype=np.int64)[codes]
