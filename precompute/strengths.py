"""Choosing the strength of an intervention on the select split: for a whole recipe, or for each feature.

The criterion is the paper's: IoU of the explanation's region with the feature's active patches, here on the select
split's exemplars. An explanation without a usable region points at nothing, so for the choice (and only here) it
counts as no overlap: otherwise a strength that makes the model babble would be judged by its few lucky answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one strength made the model say about one feature, and how that did on the select split."""

    feature: int
    arm: str
    strength: float
    """Residual-stream L2 units."""
    text: str | None
    iou: float | None
    """None where the text names no region or no select image activates the feature."""
    n_images: int


def common_strength(trials: Iterable[Trial]) -> float:
    """The strength with the highest mean IoU over features; equal means go to the smaller strength.

    Where no IoU is known at all (images without masks) nothing speaks for any: the middle one, the lower of two.
    """
    trials = list(trials)
    by_strength: dict[float, list[float]] = defaultdict(list)
    for trial in trials:
        by_strength[trial.strength].append(trial.iou or 0.0)
    if not by_strength:
        raise ValueError("no strength was tried")
    if all(trial.iou is None for trial in trials):
        return sorted(by_strength)[(len(by_strength) - 1) // 2]
    return max(by_strength, key=lambda strength: (_mean(by_strength[strength]), -strength))


def own_strengths(trials: Iterable[Trial], fallback: float) -> dict[int, float]:
    """For each feature the strength of its best IoU.

    Equal values go to the strength nearest ``fallback`` (the common one), and so do features without any value.
    """
    by_feature: dict[int, list[Trial]] = defaultdict(list)
    for trial in trials:
        by_feature[trial.feature].append(trial)
    return {
        feature: max(
            tried, key=lambda trial: (trial.iou or 0.0, -abs(trial.strength - fallback), -trial.strength)
        ).strength
        for feature, tried in by_feature.items()
    }


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 12)  # equal means must not differ by the order of summation
