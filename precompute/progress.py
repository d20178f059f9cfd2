"""Progress as a person at a terminal sees it: bars with the time left; plain lines where there is no terminal.

Everything goes to standard error, so that standard output stays free for results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from precompute.stage import Advance, Progress

_LINE_EVERY_S = 10.0


class TerminalProgress:
    """Live bars: one for the shards of the stage, one for the work inside the shard."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars: Bars | None = None

    @contextmanager
    def stage(self, name: str, n_shards: int, n_done: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<32}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self._console, refresh_per_second=4) as bars:
            self._bars = bars
            task = bars.add_task(f"{name}: shards", total=n_shards, completed=n_done)
            try:
                yield lambda n=1: bars.advance(task, n)
            finally:
                self._bars = None

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        bars = self._bars
        if bars is None:
            yield _nothing
            return
        task = bars.add_task(f"  {label}", total=total)
        try:
            yield lambda n=1: bars.advance(task, n)
        finally:
            bars.remove_task(task)

    def note(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False)


class LineProgress:
    """Plain lines with an estimate of the time left, at most one every few seconds per bar."""

    def __init__(self, stream: TextIO | None = None, every_s: float = _LINE_EVERY_S) -> None:
        self._stream = stream or sys.stderr
        self._every_s = every_s

    @contextmanager
    def stage(self, name: str, n_shards: int, n_done: int) -> Iterator[Advance]:
        yield self._counter(f"{name}: shards", n_shards, n_done)

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        yield self._counter(f"  {label}", total, 0)

    def note(self, message: str) -> None:
        self._stream.write(f"{message}\n")
        self._stream.flush()

    def _counter(self, label: str, total: int, start: int) -> Advance:
        began = spoke = time.monotonic()
        done = start

        def advance(n: int = 1) -> None:
            nonlocal done, spoke
            done += n
            now = time.monotonic()
            if now - spoke < self._every_s and done < total:
                return
            if done >= total and now - began < self._every_s:
                return  # what took no time needs no line
            spoke = now
            left = (now - began) / max(done - start, 1) * max(total - done, 0)
            self.note(f"{label} {done}/{total}, about {duration(left)} left")

        return advance


class SilentProgress(LineProgress):
    """No output at all, for tests and libraries."""

    def note(self, message: str) -> None:
        del message


def _nothing(n: int = 1) -> None:
    del n


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def choose_progress() -> Progress:
    """Bars on a terminal, lines elsewhere."""
    return TerminalProgress() if sys.stderr.isatty() else LineProgress()
