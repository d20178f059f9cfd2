"""What a run has learned about memory: the largest batches that fit, and how often one did not. Knows no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


def _nobody(message: str) -> None:
    del message


@dataclass(slots=True)
class MemoryLimits:
    """What memory has taught so far. What did not fit once is not tried again while the same limits are in force."""

    say: Callable[[str], None] = _nobody
    """Told once for each time that memory ran out."""
    rows: dict[str, int] = field(default_factory=dict)
    """Largest batch of each kind of row that is still tried."""
    n_halved: Counter[str] = field(default_factory=Counter)
    """How often memory ran out, by kind of row."""


_limits: ContextVar[MemoryLimits | None] = ContextVar("memory limits", default=None)


@contextmanager
def memory_limits(limits: MemoryLimits) -> Iterator[MemoryLimits]:
    """Let all batches computed inside share ``limits``."""
    token = _limits.set(limits)
    try:
        yield limits
    finally:
        _limits.reset(token)


def limits_in_force() -> MemoryLimits:
    """Those of the innermost ``memory_limits``, or fresh ones that nobody listens to."""
    return _limits.get() or MemoryLimits()
