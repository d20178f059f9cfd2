"""Who computes which shard: keys are handed out one by one, come back when a worker dies, and are given up at last."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from backend.errors import EngineError

MAX_DEATHS = 3
"""Workers that may die on one shard before it is given up."""


class Leases:
    """The shards of one group. After the first error no more are handed out; those under way are waited for."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._queue = deque(keys)
        self._deaths: Counter[str] = Counter()
        self.error: Exception | None = None

    def next_key(self) -> str | None:
        """A shard to compute, or None: nothing waits, or something went wrong."""
        return self._queue.popleft() if self._queue and self.error is None else None

    @property
    def waiting(self) -> bool:
        """Whether a free worker would get a shard."""
        return bool(self._queue) and self.error is None

    def died(self, key: str, cause: str) -> int:
        """A worker died on ``key``: it goes to the front of the queue, or is given up. Returns the deaths so far."""
        self._deaths[key] += 1
        self._queue.appendleft(key)
        if self._deaths[key] >= MAX_DEATHS:
            self.fail(
                EngineError(
                    f"{MAX_DEATHS} workers died on shard {key}, the last one: {cause} Shards that are finished are "
                    "kept. Free memory or give smaller batches (--images-per-batch, --prompts-per-batch), and run the "
                    "same command again."
                )
            )
        return self._deaths[key]

    def fail(self, error: Exception) -> None:
        """Hand out no more shards; the first error is the one that is told."""
        self.error = self.error or error
