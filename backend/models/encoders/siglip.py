"""SigLIP (google/siglip-so400m-patch14-384, and any checkpoint of model type siglip, fixed-size SigLIP 2 included).

Vision-only: of a checkpoint with both halves the text half is left on the disk. Patch embedding with learned positions,
blocks, a final norm and a pooling head that comes after the last hook point. There is no CLS token, so every token is a
patch.
A picture is squashed to the square the positions were learned for; SigLIP's own processor does the same.
Written against transformers 5.23, whose modules are used untouched.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from transformers import SiglipVisionModel

from backend.models._checkpoint import Checkpoint, load_vision_checkpoint
from backend.models.base import ModelCard
from backend.models.encoders._encoder import VisionEncoder
from backend.types import HookPoint


def load(folder: Path, *, card: ModelCard, hook_point: HookPoint, device: str, dtype: str) -> SiglipTower:
    """Load the checkpoint in ``folder``. Called by :func:`backend.models.load_tower`, which lists the errors."""
    checkpoint = load_vision_checkpoint(SiglipVisionModel, folder, card=card, device=device, dtype=dtype)
    return SiglipTower(checkpoint, card=card, hook_point=hook_point)


class SiglipTower(VisionEncoder):
    """The vision half of a SigLIP model cut at one block."""

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        super().__init__(checkpoint, card=card, hook_point=hook_point)
        self._require_fixed_positions()

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.model.encoder.layers

    def _embedded(self, pixels: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image token d_model"]:
        return self.model.embeddings(pixels)

    def _block_inputs(self, pixels: Float[Tensor, "image 3 h w"]) -> dict[str, None]:
        del pixels
        return {"attention_mask": None}
