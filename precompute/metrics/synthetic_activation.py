"""Synthetic activation: how strongly the feature fires on images generated from the explanation."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from backend.types import MetricCard, Score

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
    value, n = float(activations.mean()), int(activations.size)
    raw = Score(metric=NAME, value=value, n=n)
    if not strongest:
        return raw, Score(metric=NORMALISED, value=None, n=n, reason=NO_REFERENCE)
    return raw, Score(metric=NORMALISED, value=value / strongest, n=n)
