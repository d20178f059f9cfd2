"""CLIP score: cosine between an explanation and the scoring exemplars with all inactive patches black."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from backend.types import MetricCard, Score
from precompute.statistics import mean_of_few

NAME = "clip_score"
CARDS = (
    MetricCard(
        name=NAME,
        label="CLIP score",
        unit="cosine",
        low=-1.0,
        high=1.0,
        chance=None,
        higher_is_better=True,
        source="arXiv 2603.22593, section 4",
        description="Mean CLIP cosine between the words and scoring images that show only the active patches.",
    ),
)
NO_IMAGES = "no scoring image activates the feature"


def score(text: Float32[np.ndarray, " d"], masked_images: Float32[np.ndarray, "image d"]) -> Score:
    """Mean cosine of a text embedding with image embeddings; all rows have unit norm."""
    n = int(masked_images.shape[0])
    if n == 0:
        return Score(metric=NAME, value=None, n=0, reason=NO_IMAGES)
    found = mean_of_few(masked_images @ text, lowest=-1.0, highest=1.0)
    return Score(metric=NAME, value=found.value, n=n, low=found.low, high=found.high)
