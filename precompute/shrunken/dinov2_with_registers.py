"""A shrunken, random DINOv2 with four registers: see :mod:`precompute.shrunken.dinov2`."""

from __future__ import annotations

from pathlib import Path

from precompute.shrunken import dinov2

N_REGISTERS = 4


def build(folder: Path, *, seed: int = 0) -> Path:
    """Save the model and its image processor to ``folder``."""
    return dinov2.build(folder, seed=seed, n_registers=N_REGISTERS)
