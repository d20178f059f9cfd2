"""Trains the planted recipe's SAE in as many processes as torchrun started: ``-m tests.train_together OUT SUBJECT``.

``Together`` plays several processes as threads of one, for tests that need no torchrun.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from backend.artifacts import Artifact
from precompute.processes import Processes, joined
from precompute.progress import SilentProgress
from precompute.runner import run_recipe
from precompute.shared_training import follow, lead_end
from precompute.stages.train_sae import TrainSAE
from tests.builders_pipeline import RUNTIME, install, planted_recipe

Result = TypeVar("Result")


@dataclass
class _Meeting:
    barrier: threading.Barrier
    given: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Together:
    """One member of a group of threads."""

    rank: int
    size: int
    meeting: _Meeting

    def _exchange(self, value: Any) -> dict[int, Any]:
        self.meeting.given[self.rank] = value
        self.meeting.barrier.wait(60)
        given = dict(self.meeting.given)
        self.meeting.barrier.wait(60)
        return given

    def sum(self, tensor: Tensor) -> None:
        given = self._exchange(tensor.clone())
        tensor.copy_(sum(given[rank] for rank in range(1, self.size)) + given[0])

    def broadcast(self, tensor: Tensor) -> None:
        tensor.copy_(self._exchange(tensor.clone())[0])

    def tell(self, message: Any = None) -> Any:
        return self._exchange(message)[0]


def in_threads(size: int, work: Callable[[Processes], Result]) -> list[Result]:
    """What ``work`` returns in each of ``size`` threads that share one group."""
    meeting = _Meeting(threading.Barrier(size))

    def member(rank: int) -> Result:
        try:
            return work(Together(rank, size, meeting))
        except BaseException:
            meeting.barrier.abort()  # the others need not wait for this one
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(member, range(size)))


def train(out: Path, subject: Path) -> Mapping[str, Artifact] | None:
    """Train in the group that torchrun set up, or alone; process 0 returns the artifact."""
    install()
    recipe = planted_recipe(subject)
    with joined("cpu") as (processes, _device):
        if processes.rank > 0:
            follow(recipe, RUNTIME, SilentProgress(), processes)
            return None
        artifacts = run_recipe(recipe, out, RUNTIME, SilentProgress(), stages=[TrainSAE(processes)])
        lead_end(processes)
    return artifacts


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]))
