"""Measured values against their targets: a table for people, JSON for programs, and the machine that they hold for."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number, how it was come by, and what it should be."""

    what: str
    value: float | None
    """None: it could not be measured; ``note`` says why."""
    unit: str
    n: int
    """How many single measurements are behind it."""
    target: float | None = None
    at_least: bool = False
    """The target is a lower limit; otherwise an upper one."""
    note: str = ""

    @property
    def told(self) -> str:
        """The value with its unit."""
        return "–" if self.value is None else f"{self.value:,.4g} {self.unit}".rstrip()

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        if self.target is None:
            return "–"
        met = self.value >= self.target if self.at_least else self.value <= self.target
        return "met" if met else "MISSED"


def percentile(seconds: Sequence[float], share: float) -> float | None:
    """The ``share`` percentile of single measurements, interpolated; None of none."""
    return float(np.percentile(seconds, share)) if len(seconds) else None


def in_ms(what: str, seconds: Sequence[float], share: float, target_ms: float | None = None, note: str = "") -> Measure:
    """A percentile of times, in milliseconds."""
    found = percentile(seconds, share)
    value = None if found is None else 1000 * found
    name = f"{what}, p{share:g}"
    return Measure(what=name, value=value, unit="ms", n=len(seconds), target=target_ms, note=note)


def machine() -> dict[str, str]:
    """What the numbers hold for."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "load": ", ".join(f"{one:.1f}" for one in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> str:
    try:
        n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{n_bytes / 2**30:.1f} GiB"


def print_measures(title: str, measures: Sequence[Measure], described: dict[str, str]) -> None:
    """The table, with the machine above it."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(" · ".join(f"{name}: {value}" for name, value in described.items()), soft_wrap=True)
    table = Table(title=title)
    for column in ("measure", "value", "target", "n", "verdict", "note"):
        table.add_column(column, justify="left" if column in {"measure", "verdict", "note"} else "right")
    for one in measures:
        limit = "" if one.target is None else f"{'≥' if one.at_least else '≤'} {one.target:g} {one.unit}"
        table.add_row(one.what, one.told, limit, f"{one.n:,}", one.verdict, one.note)
    console.print(table)


def write_json(path: Path, title: str, measures: Sequence[Measure], described: dict[str, str]) -> None:
    """The same as :func:`print_measures`, for programs."""
    rows = [{**asdict(one), "verdict": one.verdict} for one in measures]
    document = {"title": title, "machine": described, "measures": rows}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
