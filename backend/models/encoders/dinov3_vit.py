"""DINOv3 (facebook/dinov3-vitb16-pretrain-lvd1689m and the other ViTs, gated; model type dinov3_vit).

Vision-only and trained without words. CLS and register tokens before the patches, blocks with rotary positions (which
every block is given, and which turn patches only), a final norm. CLS and registers are prefix tokens of the patch grid.

A picture is squashed to the size the processor names (224 px, 14 x 14 patches, in the released files); DINOv3's own
processor does the same and nothing is cropped. That processor exists for torchvision only, so its values are read into
ViT's, which runs in Pillow: the resampling differs in the last bit of a byte. Written against transformers 5.23, whose
modules are used untouched.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn
from transformers import DINOv3ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from backend.models._checkpoint import Checkpoint, load_vision_checkpoint
from backend.models.base import ModelCard
from backend.models.encoders._encoder import VisionEncoder
from backend.types import HookPoint

N_CLS_TOKENS = 1


def load(folder: Path, *, card: ModelCard, hook_point: HookPoint, device: str, dtype: str) -> DINOv3Tower:
    """Load the checkpoint in ``folder``. Called by :func:`backend.models.load_tower`, which lists the errors."""
    checkpoint = load_vision_checkpoint(
        DINOv3ViTModel, folder, card=card, device=device, dtype=dtype, processor_class=ViTImageProcessorPil
    )
    return DINOv3Tower(checkpoint, card=card, hook_point=hook_point)


class DINOv3Tower(VisionEncoder):
    """A DINOv3 vision transformer cut at one block."""

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        self.n_prefix_tokens = N_CLS_TOKENS + checkpoint.model.config.num_register_tokens
        super().__init__(checkpoint, card=card, hook_point=hook_point)

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.model.model.layer

    def _embedded(self, pixels: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image token d_model"]:
        return self.model.embeddings(pixels)

    def _block_inputs(self, pixels: Float[Tensor, "image 3 h w"]) -> dict[str, tuple[Tensor, Tensor]]:
        return {"position_embeddings": self.model.rope_embeddings(pixels)}
