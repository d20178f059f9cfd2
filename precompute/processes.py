"""The processes that share one SAE training: what they must agree on, and nothing of torch.distributed elsewhere.

A run alone is the ordinary case and costs nothing. Under ``torchrun`` every process holds the images whose turn it is
and the whole of the parameters; sums over processes keep the latter equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import Tensor, distributed

from backend.errors import RecipeError
from backend.settings import launched_size, local_rank

PATIENCE = timedelta(hours=12)
"""How long processes wait for process 0, which may first hash every picture, and measures the result at the end. One
that died is noticed by torchrun, not by this."""


class Processes(Protocol):
    """The group as one of its members sees it. Every member must make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This process's number; process 0 writes."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def sum(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by its sum over all processes."""
        ...

    def broadcast(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by that of process 0."""
        ...

    def tell(self, message: Any = None) -> Any:
        """The message of process 0, which is JSON-like, on every process."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """A group of one."""

    rank: int = 0
    size: int = 1

    def sum(self, tensor: Tensor) -> None:
        """The sum over one process is there already."""

    def broadcast(self, tensor: Tensor) -> None:
        """Nobody else needs it."""

    def tell(self, message: Any = None) -> Any:
        """Nobody else hears it."""
        return message


ALONE = Alone()


@dataclass(frozen=True, slots=True)
class TorchProcesses:
    """The default process group of torch.distributed; ``device`` is where its backend can read."""

    rank: int
    size: int
    device: torch.device

    def sum(self, tensor: Tensor) -> None:
        """All-reduce."""
        there = tensor.to(self.device)
        distributed.all_reduce(there)
        if there is not tensor:
            tensor.copy_(there)

    def broadcast(self, tensor: Tensor) -> None:
        """From process 0."""
        there = tensor.to(self.device)
        distributed.broadcast(there, src=0)
        if there is not tensor:
            tensor.copy_(there)

    def tell(self, message: Any = None) -> Any:
        """As JSON: nothing is unpickled here either."""
        text = json.dumps(message).encode()
        length = torch.tensor([len(text)])
        self.broadcast(length)
        encoded = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0:
            encoded = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self.broadcast(encoded)
        return json.loads(bytes(encoded.tolist()))


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Join the group that torchrun set up; gives it and this process's device. Raises RecipeError.

    ``device`` is ``auto``, ``cpu`` or ``cuda``; with GPUs every process takes the one of its local rank.
    """
    if launched_size() == 1:
        yield ALONE, device
        return
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        local = local_rank()
        if local >= torch.cuda.device_count():
            raise RecipeError(
                f"Process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}. "
                f"Start torchrun with --nproc-per-node {torch.cuda.device_count()}."
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        place = torch.device(device if on_gpu else "cpu")
        yield TorchProcesses(distributed.get_rank(), distributed.get_world_size(), place), device
    finally:
        distributed.destroy_process_group()
