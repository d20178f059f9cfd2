"""CLIP (openai/clip-vit-large-patch14, laion/CLIP-ViT-..., and any checkpoint whose model type is clip).

Vision-only: of a checkpoint with both halves the text half is left on the disk. One CLS token before the patches,
learned positions, a norm before the first block (``pre_layrnorm``), blocks; the final norm and the projection follow
the last. CLS is a prefix token of the patch grid: no SAE reads it.

CLIP's own processor resizes the shorter side and cuts out the central square; here the whole picture is squashed to the
square the positions were learned for (see ``_encoder``). Written against transformers 5.23, whose modules are used
untouched.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPVisionModel

from backend.models._checkpoint import Checkpoint, load_vision_checkpoint
from backend.models.base import ModelCard
from backend.models.encoders._encoder import VisionEncoder
from backend.types import HookPoint

N_CLS_TOKENS = 1


def load(folder: Path, *, card: ModelCard, hook_point: HookPoint, device: str, dtype: str) -> CLIPTower:
    """Load the checkpoint in ``folder``. Called by :func:`backend.models.load_tower`, which lists the errors."""
    checkpoint = load_vision_checkpoint(CLIPVisionModel, folder, card=card, device=device, dtype=dtype)
    return CLIPTower(checkpoint, card=card, hook_point=hook_point)


class CLIPTower(VisionEncoder):
    """The vision half of a CLIP model cut at one block."""

    n_prefix_tokens = N_CLS_TOKENS

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        super().__init__(checkpoint, card=card, hook_point=hook_point)
        self._require_fixed_positions()

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.model.encoder.layers

    def _embedded(self, pixels: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image token d_model"]:
        return self.model.pre_layrnorm(self.model.embeddings(pixels))

    def _block_inputs(self, pixels: Float[Tensor, "image 3 h w"]) -> dict[str, None]:
        del pixels
        return {"attention_mask": None}
