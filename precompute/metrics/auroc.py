"""AUROC: does the feature tell images generated from its explanation from other images?

Three readings, all with mean-pooled activations:

* ``auroc_real``: against random real scoring images. Positives are synthetic and negatives real, so a difference in
  style alone moves it.
* ``auroc_synthetic``: against images generated from other features' explanations by any method (hard negatives from
  the same generator, the same ones for every arm). Different words for one concept are among them, so 1 is out of
  reach for common concepts.
* ``auroc_per_feature``: the mean of the two.

``auroc_pooled`` is the paper's: one AUROC over the raw activations of all features, with as many real negatives as
positives per feature. It mixes the scale of features with the quality of words, and exists per arm only.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from backend.types import MetricCard, Score
from precompute.statistics import auroc, auroc_interval

PER_FEATURE, REAL, SYNTHETIC, POOLED = "auroc_per_feature", "auroc_real", "auroc_synthetic", "auroc_pooled"
NO_OTHERS = "no other explanation gave images"


def _card(name: str, label: str, source: str, description: str) -> MetricCard:
    return MetricCard(
        name=name,
        label=label,
        unit="probability",
        low=0.0,
        high=1.0,
        chance=0.5,
        higher_is_better=True,
        source=source,
        description=description,
    )


CARDS = (
    _card(PER_FEATURE, "AUROC per feature", "this project", "Mean of AUROC against real and synthetic negatives."),
    _card(REAL, "AUROC, real negatives", "this project", "Generated images against random real scoring images."),
    _card(SYNTHETIC, "AUROC, synthetic negatives", "this project", "Generated images against other features' images."),
    _card(POOLED, "AUROC pooled", "arXiv 2603.22593, section 4", "One AUROC over raw activations of all features."),
)


def scores(
    positives: Float[np.ndarray, " image"],
    real: Float[np.ndarray, " image"],
    synthetic: Float[np.ndarray, " image"],
) -> tuple[Score, Score, Score]:
    """``auroc_per_feature``, ``auroc_real`` and ``auroc_synthetic`` of one feature; n = positives + negatives."""
    against_real = _score(REAL, positives, real)
    if synthetic.size == 0:
        absent = [Score(metric=name, value=None, n=0, reason=NO_OTHERS) for name in (PER_FEATURE, SYNTHETIC)]
        return absent[0], against_real, absent[1]
    against_synthetic = _score(SYNTHETIC, positives, synthetic)
    # The two share their positives. The mean of the bounds holds however closely that ties them together.
    value, low, high = ((a + b) / 2 for a, b in zip(_bounds(against_real), _bounds(against_synthetic), strict=True))
    n = against_real.n + int(synthetic.size)
    return Score(metric=PER_FEATURE, value=value, n=n, low=low, high=high), against_real, against_synthetic


def _score(metric: str, positives: Float[np.ndarray, " image"], negatives: Float[np.ndarray, " image"]) -> Score:
    area = auroc(positives, negatives)
    low, high = auroc_interval(area, int(positives.size), int(negatives.size))
    return Score(metric=metric, value=area, n=int(positives.size + negatives.size), low=low, high=high)


def _bounds(score: Score) -> tuple[float, float, float]:
    assert score.value is not None and score.low is not None and score.high is not None
    return score.value, score.low, score.high
