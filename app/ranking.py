"""Places of the arms of one feature: per metric, and over the metrics that vote for the best explanation.

The vote itself is made when the atlas is built; this only shows how it came about, by the same rule (a metric votes
where every method with a text has a value; equal values share the average of their places).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.services import Services
from backend.feature_store import FeatureRecord
from backend.types import ARM_BY_KEY, Arm, Score

SUFFIXES = {1: "st", 2: "nd", 3: "rd"}
VOTING = ("iou", "clip_score", "synthetic_activation")
"""Metrics that vote (arXiv 2603.22593)."""
_SAME = 1e-9
"""Mean places that differ by less are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the methods of one feature rank; place 1 is the best, ties share the average of their places."""

    places: Mapping[str, Mapping[str, float]]
    """Metric to arm key to place, among the methods that have a value. Controls have none: they do not compete."""
    overall: Mapping[str, float]
    """Arm key to mean place over ``metrics``; empty where none could vote."""
    metrics: tuple[str, ...]
    """The metrics that voted."""
    n_candidates: int
    """Methods with a text."""

    def words(self, metric: str, key: str) -> str | None:
        """The place of an arm by one metric, in words; None where it has none."""
        return place_words(self.places.get(metric, {}), key)

    @property
    def leaders(self) -> tuple[str, ...]:
        """The arms with the lowest mean place: of several, a seed drew the one that the atlas calls best."""
        lowest = min(self.overall.values(), default=0.0)
        return tuple(key for key, mean in self.overall.items() if mean <= lowest + _SAME)


def places(values: Mapping[str, float], higher_is_better: bool = True) -> dict[str, float]:
    """Place of each key by its value; equal values share the average of the places they take."""
    sign = -1.0 if higher_is_better else 1.0
    found: dict[str, float] = {}
    for key, value in values.items():
        before = sum(sign * other < sign * value for other in values.values())
        equal = sum(other == value for other in values.values())
        found[key] = before + (equal + 1) / 2
    return found


def standing(services: Services, feature: int) -> Standing:
    """The places of a feature's methods. Raises UnknownFeature."""
    candidates = [
        one.arm.key for one in services.store.explanations(feature) if one.text is not None and not one.arm.is_control
    ]
    scores = values_of(services.store.scores(feature))
    per_metric: dict[str, Mapping[str, float]] = {}
    for name, card in services.metric_cards.items():
        known = {key: scores[name][key] for key in candidates if key in scores.get(name, {})}
        per_metric[name] = places(known, bool(card.get("higher_is_better", True)))
    voting = tuple(name for name in VOTING if candidates and len(per_metric.get(name, {})) == len(candidates))
    overall = {key: sum(per_metric[name][key] for name in voting) / len(voting) for key in candidates if voting}
    return Standing(places=per_metric, overall=overall, metrics=voting, n_candidates=len(candidates))


def written_by(services: Services, record: FeatureRecord) -> str:
    """Who wrote the best explanation, and with whom it was tied: then a seed drew it.

    Raises UnknownFeature.
    """
    if record.best_arm is None:
        return "No best explanation"
    told = f"Best explanation, by {record.best_arm.label}"
    leaders = standing(services, record.feature).leaders
    others = [ARM_BY_KEY[key].label for key in leaders if key != record.best_arm.key]
    if record.best_arm.key not in leaders or not others:
        return told
    return f"{told}; equally good by the vote: {', '.join(others)}"


def values_of(scores: Mapping[Arm, Sequence[Score]]) -> dict[str, dict[str, float]]:
    """Metric to arm key to value, absent ones left out."""
    found: dict[str, dict[str, float]] = {}
    for arm, rows in scores.items():
        for score in rows:
            if score.value is not None:
                found.setdefault(score.metric, {})[arm.key] = score.value
    return found


def place_words(ranked: Mapping[str, float], key: str) -> str | None:
    """``1st``, or ``1st =`` where it is shared; None without a place, and where all tie: then it says nothing.

    Args:
        ranked: key to place, as :func:`places` gives it.
        key: whose place to name.
    """
    if key not in ranked or (len(ranked) > 1 and len(set(ranked.values())) == 1):
        return None
    n_equal = sum(place == ranked[key] for place in ranked.values())
    whole = int(ranked[key] - (n_equal - 1) / 2)
    return f"{whole}{SUFFIXES.get(whole, 'th')}" + (" =" if n_equal > 1 else "")
