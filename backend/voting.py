"""The best explanation of a feature, by rank voting over metrics (arXiv 2603.22593), with a stated tie-break.

A metric votes only where every candidate has a value (as in the paper); equal values share the average of their ranks.
Texts in which a judge finds no concept stand only where no other text does (decision 021).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

VOTING = ("iou", "clip_score", "synthetic_activation")
"""Names of the metrics that elect the best explanation, as in the paper (its AUROC is not per feature)."""
UNPARSABLE = "unparsable explanation"
"""Reason of an absent score: the segmenter finds no concept in the text."""
NO_SYNTHETIC = "no image could be generated from the text"
"""Reason of an absent score: the image generator finds none."""
UNREADABLE = (UNPARSABLE, NO_SYNTHETIC)
SAME = 1e-9
"""Mean places that differ by less are equal: places are halves and thirds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The winner among the candidates and why: mean ranks (1 = best) over the metrics that could vote."""

    winner: str
    mean_ranks: Mapping[str, float]
    metrics: tuple[str, ...]
    tied: bool
    """Whether the seeded draw decided."""


def candidates(written: Sequence[str], unreadable: Collection[str]) -> list[str]:
    """Who stands among the arms that have a text: those whose text is not ``unreadable``, or all if none is."""
    return [arm for arm in written if arm not in unreadable] or list(written)


def places(values: Mapping[str, float], higher_is_better: bool = True) -> dict[str, float]:
    """Place of each key by its value, 1 the best; equal values share the average of the places they take."""
    sign = -1.0 if higher_is_better else 1.0
    found: dict[str, float] = {}
    for key, value in values.items():
        before = sum(sign * other < sign * value for other in values.values())
        equal = sum(other == value for other in values.values())
        found[key] = before + (equal + 1) / 2
    return found


def elect(
    standing: Sequence[str], scores: Mapping[str, Mapping[str, float]], *, feature: int, seed: int
) -> Vote | None:
    """Choose among arm keys (None if there are none) by ``scores[metric][arm]``, higher being better."""
    if not standing:
        return None
    names = sorted(standing)
    voting = tuple(metric for metric, values in scores.items() if all(name in values for name in names))
    tables = [places({name: scores[metric][name] for name in names}) for metric in voting]
    ranks = {name: sum(table[name] for table in tables) / len(tables) for name in names} if tables else {}
    lowest = min(ranks.values(), default=0.0)
    leaders = [name for name in names if ranks.get(name, lowest) <= lowest + SAME]
    winner = min(leaders, key=lambda name: _draw(seed, feature, name))
    return Vote(winner=winner, mean_ranks=ranks, metrics=voting, tied=len(leaders) > 1)


def _draw(seed: int, feature: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{feature}:{name}".encode()).hexdigest()
