"""DINOv2 with registers (facebook/dinov2-with-registers-small to -giant, and any checkpoint of that model type).

As DINOv2 (see ``dinov2``, crops and positions included), with register tokens between CLS and the first patch: the
model was trained to put there what would otherwise occupy patches of plain background. Written against transformers
5.23, whose modules are used untouched.
"""

from __future__ import annotations

from pathlib import Path

from transformers import Dinov2WithRegistersModel

from backend.models._checkpoint import Checkpoint, load_vision_checkpoint
from backend.models.base import ModelCard
from backend.models.encoders.dinov2 import N_CLS_TOKENS, Dinov2Tower
from backend.types import HookPoint


def load(folder: Path, *, card: ModelCard, hook_point: HookPoint, device: str, dtype: str) -> Dinov2WithRegistersTower:
    """Load the checkpoint in ``folder``. Called by :func:`backend.models.load_tower`, which lists the errors."""
    checkpoint = load_vision_checkpoint(Dinov2WithRegistersModel, folder, card=card, device=device, dtype=dtype)
    return Dinov2WithRegistersTower(checkpoint, card=card, hook_point=hook_point)


class Dinov2WithRegistersTower(Dinov2Tower):
    """A DINOv2 model with registers cut at one block."""

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        self.n_prefix_tokens = N_CLS_TOKENS + checkpoint.model.config.num_register_tokens
        super().__init__(checkpoint, card=card, hook_point=hook_point)
