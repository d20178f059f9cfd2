"""Checkpoints of the world's training runs: safetensors and JSON, so that a cut run loses nothing.

A checkpoint is written to a temporary name and renamed. Optimiser state is flattened into named tensors;
nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer


def save_checkpoint(path: Path, step: int, module: nn.Module, optimizers: Mapping[str, Optimizer]) -> None:
    """Write the module's and the optimisers' state after ``step`` steps."""
    tensors = {f"module/{name}": value.detach().clone().contiguous() for name, value in module.state_dict().items()}
    for label, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer/{label}/{index}/{name}"] = torch.as_tensor(value).detach().clone().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file(tensors, temporary, metadata={"step": json.dumps(step)})
    temporary.replace(path)


def load_checkpoint(path: Path, module: nn.Module, optimizers: Mapping[str, Optimizer]) -> int:
    """Restore state in place and return the number of steps done; 0 if there is no checkpoint."""
    if not path.is_file():
        return 0
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        step = int(json.loads((file.metadata() or {})["step"]))
    module.load_state_dict(
        {name.removeprefix("module/"): v for name, v in tensors.items() if name.startswith("module/")}
    )
    for label, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            parts = name.split("/")
            if parts[:2] == ["optimizer", label]:
                state.setdefault(int(parts[2]), {})[parts[3]] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
