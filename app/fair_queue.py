"""Whose turn it is, and who asks too often: the two rules of the shared subject model, without threads or clocks.

Visitors take turns. What one of them has waiting never delays another: a visitor who comes while somebody's request is
being answered stands before that somebody's next one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from math import ceil
from typing import Generic, TypeVar

from backend.errors import SubjectBusy

T = TypeVar("T")

MAX_KNOWN_VISITORS = 4096


class FairQueue(Generic[T]):
    """Waiting items of many visitors, given out in turns: one of each visitor before the second of any."""

    def __init__(self) -> None:
        self._turns: list[str] = []
        """Visitors with something waiting, the next one first."""
        self._items: dict[str, deque[T]] = {}

    def __len__(self) -> int:
        return sum(len(items) for items in self._items.values())

    def count(self, visitor: str) -> int:
        """How many items of the visitor wait."""
        return len(self._items.get(visitor, ()))

    def add(self, visitor: str, item: T, served: Collection[str] = ()) -> None:
        """Put an item at the end of its visitor's own line.

        ``served`` are the visitors who are being served right now: they have had their turn, so a newcomer stands
        before those of them at the end of the line.
        """
        if visitor in self._items:
            self._items[visitor].append(item)
            return
        place = len(self._turns)
        while visitor not in served and place > 0 and self._turns[place - 1] in served:
            place -= 1
        self._turns.insert(place, visitor)
        self._items[visitor] = deque([item])

    def take(self) -> tuple[str, T]:
        """The next visitor and the oldest item of theirs; they go to the end of the line. Raises IndexError."""
        visitor = self._turns.pop(0)
        item = self._items[visitor].popleft()
        if self._items[visitor]:
            self._turns.append(visitor)
        else:
            del self._items[visitor]
        return visitor, item

    def remove(self, visitor: str, item: T) -> bool:
        """Take an item out wherever it stands. True if it was waiting."""
        items = self._items.get(visitor)
        if items is None or item not in items:
            return False
        items.remove(item)
        if not items:
            del self._items[visitor]
            self._turns.remove(visitor)
        return True

    def places(self) -> Iterator[tuple[T, int]]:
        """Each waiting item with the number of waiting items that come before it, if nobody joins."""
        for place, visitor in enumerate(self._turns):
            for own, item in enumerate(self._items[visitor]):
                others = (
                    min(len(self._items[other]), own + (at < place))
                    for at, other in enumerate(self._turns)
                    if other != visitor
                )
                yield item, own + sum(others)


class RateLimit:
    """A token bucket per visitor: ``burst`` requests at once, then one more every ``refill_s`` seconds."""

    def __init__(self, burst: int, refill_s: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._refill_s = refill_s
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Tokens left and when they were counted; the visitor seen last is last."""

    def take(self, visitor: str) -> None:
        """Count one request. Raises SubjectBusy, which says when to try again; the refused request is not counted."""
        now = self._clock()
        left, counted = self._buckets.pop(visitor, (float(self._burst), now))
        left = min(float(self._burst), left + (now - counted) / self._refill_s)
        enough = left >= 1
        self._buckets[visitor] = (left - 1 if enough else left, now)
        if len(self._buckets) > MAX_KNOWN_VISITORS:
            self._buckets.popitem(last=False)
        if not enough:
            wait_s = ceil((1 - left) * self._refill_s)
            raise SubjectBusy(f"That was {self._burst} requests to the model in a short time. Try again in {wait_s} s.")
