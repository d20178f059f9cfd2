"""Timing of alternatives in turn, so that what slows the machine slows all of them, and a table of ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds that one alternative took in each round, in the order of the rounds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


def in_turn(candidates: Mapping[str, Callable[[], object]], *, n_rounds: int, warm_up: bool = True) -> list[Measured]:
    """Run every candidate once a round, each round starting with another one. The warm-up round is not counted."""
    names = list(candidates)
    if warm_up:
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(n_rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - start)
    return [Measured(name=name, seconds=tuple(seconds[name])) for name in names]


def ratios(slow: Measured, fast: Measured) -> tuple[float, float, float]:
    """How many times longer ``slow`` took than ``fast`` within a round: median, lowest, highest."""
    each = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return statistics.median(each), min(each), max(each)


def print_table(title: str, measured: list[Measured], *, baseline: str, n_units: int, unit: str) -> None:
    """One row per alternative; the last column compares it with the baseline, round by round."""
    reference = next(one for one in measured if one.name == baseline)
    n_rounds = len(reference.seconds)
    table = Table(title=f"{title} ({n_units} {unit}, {n_rounds} rounds)")
    table.add_column("way")
    for column in ("median s", "range s", f"{unit}/s", f"speed relative to {baseline} (range)"):
        table.add_column(column, justify="right")
    for one in measured:
        middle, low, high = ratios(reference, one)
        table.add_row(
            one.name,
            f"{one.median_s:.3f}",
            f"{min(one.seconds):.3f}–{max(one.seconds):.3f}",
            f"{n_units / one.median_s:.1f}",
            f"{middle:.2f}× ({low:.2f}–{high:.2f})",
        )
    Console().print(table)
