"""Which run of a visitor is the newest, so that an older one that is still ending says nothing more."""

from __future__ import annotations

import threading
from collections import OrderedDict

MAX_KNOWN_VISITORS = 4096


class Latest:
    """Counts the runs of each visitor; safe to use from several threads."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        self._n = 0

    def begin(self, visitor: str) -> int:
        """Start a run; it is the newest one until the visitor's next."""
        with self._lock:
            self._n += 1
            self._turns.pop(visitor, None)
            self._turns[visitor] = self._n
            if len(self._turns) > MAX_KNOWN_VISITORS:
                self._turns.popitem(last=False)
            return self._n

    def is_on(self, visitor: str, turn: int) -> bool:
        """Whether a run is still the visitor's newest."""
        with self._lock:
            return self._turns.get(visitor) == turn
