"""TRUTH: the concept a feature detects best on held-out scenes, and whether an explanation names it.

A feature's truth is the concept with the highest average precision of its patch activations against the concept's exact
patch masks; below a threshold the feature has none and its explanations are undecidable. Only the world knows masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from backend.types import MetricCard, TruthOutcome
from precompute.sparse_codes import CodesByFeature
from precompute.statistics import (
    Estimate,
    average_precision,
    permutation_interval,
    resampled_average_precision,
    wilson,
)

NAME = "truth"
CARDS = (
    MetricCard(
        name=NAME,
        label="TRUTH",
        unit="share right",
        low=0.0,
        high=1.0,
        chance=None,
        higher_is_better=True,
        source="this project",
        description="Share of explanations that name the concept the feature detects, where that concept is known.",
    ),
)
DECIDED = (TruthOutcome.RIGHT, TruthOutcome.PARTLY, TruthOutcome.WRONG)


def average_precisions(
    codes: CodesByFeature, image_masks: Bool[np.ndarray, "image patch concept"], d_sae: int
) -> Float[np.ndarray, "feature concept"]:
    """Average precision of every feature for every concept over all patches; NaN for concepts that never occur.

    Works from the active patches alone: the inactive ones are tied at the end of every ranking.

    Args:
        codes: active patches of all images; ``pair_image`` indexes ``image_masks``.
        image_masks: exact patch masks.
        d_sae: number of features.
    """
    n_images, n_patches, n_concepts = image_masks.shape
    flat = image_masks.reshape(n_images * n_patches, n_concepts)
    n_positives = flat.sum(axis=0)
    lengths = codes.pair_stop - codes.pair_start
    place = np.repeat(codes.pair_image, lengths) * n_patches + codes.patch
    bounds = np.searchsorted(codes.active_feature, np.arange(d_sae + 1))
    result = np.empty((d_sae, n_concepts), dtype=np.float64)
    for feature in range(d_sae):
        within = slice(bounds[feature], bounds[feature + 1])
        result[feature] = average_precision(codes.value[within], flat[place[within]], n_positives, flat.shape[0])
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTruth:
    """The best concept of a feature; ``concept`` is None if no average precision reaches the threshold."""

    concept: str | None
    average_precision: float


def precision_intervals(
    codes: CodesByFeature,
    image_masks: Bool[np.ndarray, "image patch concept"],
    table: Float[np.ndarray, "feature concept"],
    threshold: float,
    *,
    n_bootstrap: int,
    seed: int,
) -> Float[np.ndarray, "feature bound"]:
    """95 % percentile bootstrap intervals, over images, of each feature's largest average precision.

    The concept stays the one that won on all images, so the choice among concepts is not in the interval. NaN for
    features whose largest average precision is below ``threshold``: their value is shown nowhere.
    """
    n_images, n_patches, _ = image_masks.shape
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=n_bootstrap)
    positives = image_masks.sum(axis=1)
    lengths = codes.pair_stop - codes.pair_start
    image = np.repeat(codes.pair_image, lengths)
    bounds = np.searchsorted(codes.active_feature, np.arange(len(table) + 1))
    known = np.where(np.isnan(table), -1.0, table)
    result = np.full((len(table), 2), np.nan)
    for feature in np.flatnonzero(known.max(axis=1) >= threshold):
        within = slice(bounds[feature], bounds[feature + 1])
        concept = int(known[feature].argmax())
        hit = image_masks[image[within], codes.patch[within], concept]
        draws = resampled_average_precision(
            codes.value[within], hit, image[within], positives[:, concept], n_patches, weights
        )
        result[feature] = np.nanpercentile(draws, [2.5, 97.5])
    return result


def truths(
    table: Float[np.ndarray, "feature concept"], concepts: Sequence[str], threshold: float
) -> list[FeatureTruth]:
    """The truth of every feature. Equal values go to the concept that is listed first."""
    found = np.where(np.isnan(table), -1.0, table)
    best: list[int] = found.argmax(axis=1).tolist()
    values: list[float] = found.max(axis=1).tolist()
    return [
        FeatureTruth(concept=concepts[at] if value >= threshold else None, average_precision=max(0.0, value))
        for at, value in zip(best, values, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthShares:
    """Outcomes of one arm: shares among the decidable explanations, each with a Wilson interval."""

    right: Estimate
    partly: Estimate
    wrong: Estimate
    counts: Mapping[TruthOutcome, int]

    def as_dict(self) -> dict[str, object]:
        """Plain mapping for summary.json."""
        shares = {TruthOutcome.RIGHT: self.right, TruthOutcome.PARTLY: self.partly, TruthOutcome.WRONG: self.wrong}
        table: dict[str, object] = {
            outcome.value: {**share.as_dict(), "count": self.counts[outcome]} for outcome, share in shares.items()
        }
        table[TruthOutcome.UNDECIDABLE.value] = {"count": self.counts[TruthOutcome.UNDECIDABLE]}
        return table


def shares(outcomes: Sequence[TruthOutcome]) -> TruthShares:
    """Count outcomes; the undecidable ones are not part of any share."""
    counts = {outcome: sum(item is outcome for item in outcomes) for outcome in TruthOutcome}
    n = sum(counts[outcome] for outcome in DECIDED)
    right, partly, wrong = (wilson(counts[outcome], n) for outcome in DECIDED)
    return TruthShares(right=right, partly=partly, wrong=wrong, counts=counts)


def chance(
    concepts: Sequence[str],
    texts: Sequence[str | None],
    judge: Callable[[str, str], TruthOutcome],
    *,
    n_draws: int,
    seed: int,
) -> Estimate:
    """Share right when the explanations of an arm are shuffled among its decidable features.

    ``texts[i]`` belongs to the feature whose truth is ``concepts[i]``; None is a failure, which is never right.
    """
    n = len(concepts)
    if n == 0:
        return Estimate(value=None, n=0)
    concept_names, concept_at = np.unique(np.asarray(concepts), return_inverse=True)
    text_names = sorted({text for text in texts if text is not None})
    place: dict[str | None, int] = {text: at for at, text in enumerate([*text_names, None])}
    text_at: Int[np.ndarray, " feature"] = np.array([place[text] for text in texts])
    right = np.zeros((len(concept_names), len(text_names) + 1), dtype=bool)
    for row, concept in enumerate(concept_names):
        right[row, :-1] = [judge(str(concept), text) is TruthOutcome.RIGHT for text in text_names]
    rng = np.random.default_rng(seed)
    draws = np.array([right[concept_at, text_at[rng.permutation(n)]].mean() for _ in range(n_draws)])
    return permutation_interval(draws, n)
