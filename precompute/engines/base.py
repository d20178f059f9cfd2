"""What an engine is: it computes the missing shards of one stage. The runner keeps folders, lock, plan and commit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from precompute.stage import Advance, Stage, StageContext


class Engine(ABC):
    """Computes shards. Entered once for a run, and left whatever happens."""

    @abstractmethod
    def run(self, stage: Stage, context: StageContext, keys: Sequence[str], advance: Advance) -> None:
        """Compute and finish the shards ``keys``, which are absent now; ``advance`` is called after each.

        Shards go group by group as ``Stage.phases`` says. Raises what a shard raised; EngineError.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what the engine holds."""
        return
