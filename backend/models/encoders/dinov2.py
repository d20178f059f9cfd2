"""DINOv2 (facebook/dinov2-small to -giant, and any checkpoint whose model type is dinov2).

Vision-only and trained without words. One CLS token before the patches, learned positions, blocks, a final norm.
CLS is a prefix token of the patch grid: no SAE reads it.

The positions were learned at 518 px; transformers interpolates them to the size of the image, which here is the size
the processor ends with (224 px, 16 x 16 patches, in the released files). DINOv2's own processor resizes the shorter
side and cuts out the central square; here the whole picture is squashed to that square (see ``_encoder``). To read
more patches, raise ``crop_size`` in a copy of preprocessor_config.json: it is part of the model's fingerprint.
Written against transformers 5.23, whose modules are used untouched.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from transformers import Dinov2Model

from backend.models._checkpoint import load_vision_checkpoint
from backend.models.base import ModelCard
from backend.models.encoders._encoder import VisionEncoder
from backend.types import HookPoint

N_CLS_TOKENS = 1


def load(folder: Path, *, card: ModelCard, hook_point: HookPoint, device: str, dtype: str) -> Dinov2Tower:
    """Load the checkpoint in ``folder``. Called by :func:`backend.models.load_tower`, which lists the errors."""
    checkpoint = load_vision_checkpoint(Dinov2Model, folder, card=card, device=device, dtype=dtype)
    return Dinov2Tower(checkpoint, card=card, hook_point=hook_point)


class Dinov2Tower(VisionEncoder):
    """A DINOv2 model cut at one block."""

    n_prefix_tokens = N_CLS_TOKENS

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.model.encoder.layer

    def _embedded(self, pixels: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image token d_model"]:
        return self.model.embeddings(pixels)
