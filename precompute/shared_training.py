"""One SAE training by several processes: process 0 runs the stage and writes, the others do as it says.

Messages go from process 0 to all: start from this state, train until that step, and the end. If a process fails,
torchrun stops the others; a new start goes on from the last checkpoint, with any number of processes.
"""

from __future__ import annotations

import torch

from backend.errors import IconoscopeError
from precompute.encoding import fixed_threads
from precompute.processes import Processes
from precompute.recipe import Recipe, Runtime
from precompute.sae_run import TrainingRun, TrainingState
from precompute.stage import Progress

START, TRAIN, END = "start", "train", "end"


def lead_start(processes: Processes, state: TrainingState | None) -> None:
    """Process 0: have the others build the same run."""
    if processes.size == 1:
        return
    tensors = {} if state is None else state.tensors
    shapes = {name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for name, tensor in tensors.items()}
    facts = (state or TrainingState(tensors={})).facts
    processes.tell({"act": START, "facts": facts, "shapes": shapes})
    for tensor in tensors.values():
        processes.broadcast(tensor)


def lead_training(processes: Processes, step: int) -> None:
    """Process 0: have the others train on until ``step``."""
    if processes.size > 1:
        processes.tell({"act": TRAIN, "step": step})


def lead_end(processes: Processes) -> None:
    """Process 0: let the others go."""
    if processes.size > 1:
        processes.tell({"act": END})


def follow(recipe: Recipe, runtime: Runtime, progress: Progress, processes: Processes) -> None:
    """Every other process: train along until process 0 says that it is over."""
    run: TrainingRun | None = None
    while (message := processes.tell())["act"] != END:
        with fixed_threads(runtime.workers):
            if message["act"] == START:
                tensors = {
                    name: torch.empty(shape, dtype=getattr(torch, dtype))
                    for name, (shape, dtype) in message["shapes"].items()
                }
                for tensor in tensors.values():
                    processes.broadcast(tensor)
                state = TrainingState.of(tensors, message["facts"])
                run = TrainingRun(recipe, runtime, progress, state, processes)
            elif run is None:
                raise IconoscopeError("This process was told to train before it was told from where.")
            else:
                run.train_until(message["step"])
