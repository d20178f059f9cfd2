"""Synthetic activation: how strongly the feature fires on images generated from the explanation."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from backend.types import MetricCard, Score
from precompute.statistics import mean_of_few

NAME = "synthetic_activation"
NORMALISED = "synthetic_activation_normalised"
CARDS = (
    MetricCard(
        name=NAME,
        label="Synthetic activation",
        unit="residual-stream L2",
        low=0.0,
        high=None,
        chance=None,
        higher_is_better=True,
        source="arXiv 2603.22593, section 4",
        description="Mean-pooled activation on images generated from the words; the scale differs between features.",
    ),
    MetricCard(
        name=NORMALISED,
        label="Synthetic activation / strongest real image",
        unit="ratio",
        low=0.0,
        high=None,
        chance=None,
        higher_is_better=True,
        source="this project",
        description="The same, divided by the feature's mean-pooled activation on its strongest explain image.",
    ),
)
NO_REFERENCE = "the feature is active on no explain image"


def scores(activations: Float[np.ndarray, " image"], strongest: float | None) -> tuple[Score, Score]:
    """Raw and normalised mean over the synthetic images of one text.

    Args:
        activations: mean-pooled activation of the feature on each image, at least one.
        strongest: its mean-pooled activation on its best explain image.
    """
    raw = _mean(NAME, activations)
    if not strongest:
        return raw, Score(metric=NORMALISED, value=None, n=raw.n, reason=NO_REFERENCE)
    return raw, _mean(NORMALISED, activations / strongest)


def _mean(metric: str, values: Float[np.ndarray, " image"]) -> Score:
    found = mean_of_few(values, lowest=0.0)
    return Score(metric=metric, value=found.value, n=found.n, low=found.low, high=found.high)
