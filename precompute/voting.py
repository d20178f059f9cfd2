"""The best explanation of a feature, by rank voting over metrics (arXiv 2603.22593), with a stated tie-break.

A metric votes only where every candidate has a value (as in the paper); equal values share the average of their ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The winner among the candidates and why: mean ranks (1 = best) over the metrics that could vote."""

    winner: str
    mean_ranks: Mapping[str, float]
    metrics: tuple[str, ...]
    tied: bool
    """Whether the seeded draw decided."""


def elect(
    candidates: Sequence[str], scores: Mapping[str, Mapping[str, float]], *, feature: int, seed: int
) -> Vote | None:
    """Choose among ``candidates`` (arm keys; None if empty) by ``scores[metric][candidate]``, higher being better."""
    if not candidates:
        return None
    names = sorted(candidates)
    voting = tuple(metric for metric, values in scores.items() if all(name in values for name in names))
    table = [stats.rankdata([-scores[metric][name] for name in names]) for metric in voting]
    means = np.mean(table, axis=0) if table else np.ones(len(names))
    leaders = [name for name, mean in zip(names, means, strict=True) if mean <= means.min() + 1e-9]
    winner = min(leaders, key=lambda name: _draw(seed, feature, name))
    ranks = {name: float(mean) for name, mean in zip(names, means, strict=True)} if voting else {}
    return Vote(winner=winner, mean_ranks=ranks, metrics=voting, tied=len(leaders) > 1)


def _draw(seed: int, feature: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{feature}:{name}".encode()).hexdigest()
