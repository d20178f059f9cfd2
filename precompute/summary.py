"""From scores of single explanations to the tables of a run: totals with intervals, tests between arms, the vote.

Values are joined by feature id, never by position, and every total states over how many features it was taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.types import ARMS, TruthOutcome
from precompute.metrics import auroc, clip_score, mask_overlap, synthetic_activation
from precompute.metrics.truth import TruthShares
from precompute.statistics import Estimate, bootstrap_mean, mann_whitney_greater, wilcoxon_greater, wilson
from precompute.voting import Vote, elect

AVERAGED = (
    mask_overlap.NAME,
    clip_score.NAME,
    synthetic_activation.NAME,
    synthetic_activation.NORMALISED,
    auroc.PER_FEATURE,
    auroc.REAL,
    auroc.SYNTHETIC,
)
"""Metrics whose total is the mean over features."""
TESTED = (mask_overlap.NAME, clip_score.NAME, synthetic_activation.NAME, auroc.PER_FEATURE)
VOTING = (mask_overlap.NAME, clip_score.NAME, synthetic_activation.NAME)
"""Metrics that elect the best explanation, as in the paper (its AUROC is not per feature)."""
CANDIDATES = tuple(arm.key for arm in ARMS if not arm.is_control)
COMPARED: tuple[tuple[str, str], ...] = (
    ("steering_informed_top_k_masks", "steering"),
    ("steering_informed_top_k_heatmaps", "steering"),
    ("steering_informed_top_k_masks", "top_k_masks"),
    ("steering_informed_top_k_heatmaps", "top_k_heatmaps"),
    ("top_k_masks", "steering"),
    ("top_k_heatmaps", "steering"),
    ("top_k_masks", "top_k_heatmaps"),
    ("steering_informed_top_k_masks", "steering_informed_top_k_heatmaps"),
    *((arm, control) for arm in CANDIDATES for control in ("random_direction", "permuted_direction")),
)
"""Pairs (a, b) for the one-sided tests that a is above b: the paper's comparisons, and every arm against controls."""

ByFeature = Mapping[str, Mapping[str, Mapping[int, float]]]
"""metric -> arm -> feature -> value; absent scores have no entry."""


def by_feature(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
    """Index score rows; those without a value are left out."""
    table: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        if row["value"] is not None:
            table.setdefault(row["metric"], {}).setdefault(row["arm"], {})[row["feature"]] = float(row["value"])
    return table


def elections(
    texts: Mapping[str, Mapping[int, str]],
    values: ByFeature,
    features: Sequence[int],
    seed: int,
    *,
    unreadable: Collection[str] = (),
) -> dict[int, Vote | None]:
    """The best explanation of every feature among the non-control arms that have a text for it.

    Texts in which a judge finds no concept (``unreadable``) stand only where no other text does: a metric votes only
    where every candidate has a value, so one of them would take the vote from every metric that cannot read it.
    """
    votes: dict[int, Vote | None] = {}
    for feature in features:
        written = [arm for arm in CANDIDATES if feature in texts.get(arm, {})]
        candidates = [arm for arm in written if texts[arm][feature] not in unreadable] or written
        scores = {
            metric: {
                arm: values[metric][arm][feature]
                for arm in candidates
                if feature in values.get(metric, {}).get(arm, {})
            }
            for metric in VOTING
        }
        votes[feature] = elect(candidates, scores, feature=feature, seed=seed)
    return votes


def passes_quality(vote: Vote | None, values: ByFeature, feature: int, *, min_iou: float, min_synthetic: float) -> bool:
    """The paper's quality filter on the best explanation, as a flag; a missing score does not pass."""
    if vote is None:
        return False
    minima = {mask_overlap.NAME: min_iou, synthetic_activation.NAME: min_synthetic}
    for metric, minimum in minima.items():
        value = values.get(metric, {}).get(vote.winner, {}).get(feature)
        if value is None or value < minimum:
            return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResults:
    """What one arm achieved, besides the averaged metrics."""

    n: int
    """Features for which it gave a text."""
    failures: Mapping[str, int]
    pooled: Estimate
    truth: TruthShares | None
    truth_chance: Estimate | None
    wins: int
    """Features whose best explanation it gave; 0 for controls, which do not stand for election."""


def arm_summary(
    arm: str, results: ArmResults, values: ByFeature, alike: Mapping[int, str], *, n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """The entry of one arm in summary.json.

    ``alike`` maps each feature to its best explanation: features with the same one are resampled together, because
    they are not independent (decision 021).
    """
    entry: dict[str, Any] = {"n": results.n, "failures": dict(sorted(results.failures.items()))}
    for metric in AVERAGED:
        found = values.get(metric, {}).get(arm, {})
        features = sorted(found)
        mean = bootstrap_mean(
            np.array([found[feature] for feature in features]),
            clusters=[alike[feature] for feature in features],
            n_bootstrap=n_bootstrap,
            seed=seed,
        )
        entry[metric] = mean.as_dict()
    entry[auroc.POOLED] = results.pooled.as_dict()
    entry["truth"] = results.truth.as_dict() if results.truth else None
    entry["truth_chance"] = results.truth_chance.as_dict() if results.truth_chance else None
    entry["wins"] = results.wins if arm in CANDIDATES else None
    return entry


def failures_of(
    arm: str, explanations: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
) -> Counter[str]:
    """Failed explanations of an arm by reason, and texts without a usable concept."""
    found: Counter[str] = Counter(
        row["failure"] for row in explanations if row["arm"] == arm and row["failure"] is not None
    )
    unparsable = sum(
        row["arm"] == arm and row["metric"] == mask_overlap.NAME and row["reason"] == mask_overlap.UNPARSABLE
        for row in scores
    )
    if unparsable:
        found[mask_overlap.UNPARSABLE] = unparsable
    return found


def compare_arms(values: ByFeature, right: Mapping[str, Mapping[int, float]]) -> list[dict[str, Any]]:
    """One-sided tests that arm ``a`` is above arm ``b``: paired Wilcoxon, and unpaired Mann-Whitney as in the paper.

    The pairs are fixed beforehand (``COMPARED``); the opposite direction has 1 - p. ``right`` holds 1 or 0 per
    decidable feature. The paired test uses the features that both arms have; Mann-Whitney uses all of each.
    """
    tables = {**{metric: values.get(metric, {}) for metric in TESTED}, "truth": right}
    rows: list[dict[str, Any]] = []
    for metric, table in tables.items():
        for a, b in COMPARED:
            first, second = table.get(a, {}), table.get(b, {})
            shared = sorted(set(first) & set(second))
            if not shared:
                continue
            paired = wilcoxon_greater(
                np.array([first[feature] for feature in shared]), np.array([second[feature] for feature in shared])
            )
            unpaired = mann_whitney_greater(np.array(list(first.values())), np.array(list(second.values())))
            for name, result in (("wilcoxon", paired), ("mannwhitney", unpaired)):
                rows.append(
                    {
                        "metric": metric,
                        "a": a,
                        "b": b,
                        "test": name,
                        "p": result.p,
                        "n": result.n,
                        "effect": result.effect,
                    }
                )
    return rows


def coverage(best: Mapping[str, float | None], kinds: Mapping[str, str], threshold: float) -> dict[str, Any]:
    """Share of concepts with a feature of average precision at or above ``threshold``, overall and by kind.

    ``best`` maps each concept to the highest average precision of any feature, None if no scoring image shows it (then
    nothing can be said and it does not count).
    """
    seen = {concept: value for concept, value in best.items() if value is not None}

    def share(concepts: Sequence[str]) -> dict[str, Any]:
        return wilson(sum(seen[concept] >= threshold for concept in concepts), len(concepts)).as_dict()

    names = sorted({kinds[concept] for concept in seen})
    return {
        "all": share(list(seen)),
        "by_kind": {name: share([concept for concept in seen if kinds[concept] == name]) for name in names},
        "threshold": threshold,
        "without_feature": sorted(concept for concept, value in seen.items() if value < threshold),
        "not_shown": sorted(concept for concept, value in best.items() if value is None),
    }


def is_right(outcome: TruthOutcome) -> float:
    """1 for RIGHT, else 0."""
    return 1.0 if outcome is TruthOutcome.RIGHT else 0.0
