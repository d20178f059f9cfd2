"""IoU: how well the region an explanation speaks about matches the patches on which the feature is active.

As in arXiv 2603.22593, over scoring exemplars; the feature's region is every active patch. Unlike its code, a text
without a usable region is an absent score, and masks are compared at full image resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from backend.errors import MasksUnknown, UnparsableExplanation
from backend.types import MetricCard, Score
from backend.voting import UNPARSABLE
from precompute.judges import Segmenter
from precompute.statistics import mean_of_few

NAME = "iou"
CARDS = (
    MetricCard(
        name=NAME,
        label="IoU",
        unit="share",
        low=0.0,
        high=1.0,
        chance=None,
        higher_is_better=True,
        source="arXiv 2603.22593, section 4",
        description="Overlap of the region the words describe with the feature's active patches, on scoring images.",
    ),
)
NO_IMAGES = "no scoring image activates the feature"


def active_region(grid: Float[np.ndarray, "row col"], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The active patches as a pixel mask; each pixel belongs to the patch it lies in."""
    rows = np.arange(height) * grid.shape[0] // height
    cols = np.arange(width) * grid.shape[1] // width
    return (grid > 0)[np.ix_(rows, cols)]


def overlap(first: Bool[np.ndarray, "h w"], second: Bool[np.ndarray, "h w"]) -> float:
    """Intersection over union, 0..1; two empty masks have none in common and give 0."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 0.0


def score(
    text: str,
    image_ids: Sequence[str],
    images: Sequence[Image.Image],
    grids: Sequence[Float[np.ndarray, "row col"]],
    segmenter: Segmenter,
) -> Score:
    """Mean IoU over the given images."""
    if not images:
        return Score(metric=NAME, value=None, n=0, reason=NO_IMAGES)
    try:
        masks = segmenter.segment(image_ids, images, text)
    except UnparsableExplanation:
        return Score(metric=NAME, value=None, n=0, reason=UNPARSABLE)
    except MasksUnknown as error:
        return Score(metric=NAME, value=None, n=0, reason=str(error))
    values = [overlap(mask, active_region(grid, *mask.shape)) for mask, grid in zip(masks, grids, strict=True)]
    found = mean_of_few(np.array(values), lowest=0.0, highest=1.0)
    return Score(metric=NAME, value=found.value, n=found.n, low=found.low, high=found.high)
