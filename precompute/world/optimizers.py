"""The optimisers of the world's training runs: Muon for the blocks' matrices, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.optim import AdamW, Muon, Optimizer


def muon_and_adamw(module: nn.Module, *, learning_rate: float, weight_decay: float) -> dict[str, Optimizer]:
    """Two optimisers that share the parameters of ``module``: matrices inside ``layers`` go to Muon."""
    named = dict(module.named_parameters())
    matrices = [value for name, value in named.items() if value.ndim == 2 and ".layers." in name]
    chosen = {id(value) for value in matrices}
    rest = [value for value in named.values() if id(value) not in chosen]
    muon = Muon(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    adamw = AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay)
    return {"muon": muon, "adamw": adamw}


def set_learning_rate(optimizers: Mapping[str, Optimizer], rate: float) -> None:
    """Use ``rate`` for the next step."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = rate


def step_and_clear(optimizers: Mapping[str, Optimizer]) -> None:
    """One update, then forget the gradients."""
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
