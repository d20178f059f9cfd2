"""The vision-only half of an adapter: an image encoder that stands alone, without a language model behind it.

Every encoder here sees a picture as the vision-language models do: the whole of it, squashed to the square that the
processor ends with. The processors themselves would keep the sides' ratio and cut off what lies outside the central
square; then a patch would lie elsewhere in the picture than heatmaps, masks and the explorer draw it, and the margins
would never be looked at. So crops are turned off, whatever the processor's files say; for square pictures nothing
changes but the processors' slight zoom (DINOv2's reads the middle 224 of 256 pixels).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from backend.errors import SubjectError
from backend.models._checkpoint import Checkpoint
from backend.models._tower import CheckpointTower
from backend.models.base import ModelCard, TowerState
from backend.types import HookPoint, PatchGrid

WHOLE_PICTURES = "Every picture is squashed to a square, whole, without a centre crop."


class VisionEncoder(CheckpointTower):
    """An image encoder of transformers cut at one of its blocks."""

    n_prefix_tokens: int = 0
    """Tokens before the first patch: CLS, then registers."""

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        super().__init__(checkpoint, card=replace(card, note=WHOLE_PICTURES), hook_point=hook_point)
        self.d_model = self.model.config.hidden_size
        self.image_px = int(checkpoint.image_processor.size["height"])
        patch_px = self.model.config.patch_size
        if self.image_px % patch_px:
            raise SubjectError(
                f"the processor of {self.card.name} makes images of {self.image_px} px, which are no whole number of "
                f"patches of {patch_px} px: the processor belongs to another model"
            )
        side = self.image_px // patch_px
        self.grid = PatchGrid(rows=side, cols=side, n_prefix_tokens=self.n_prefix_tokens)

    def _require_fixed_positions(self) -> None:
        """Refuse a processor whose images have another size than the position embeddings. Raises SubjectError."""
        own_px = self.model.config.image_size
        if self.image_px != own_px:
            raise SubjectError(
                f"the processor of {self.card.name} makes images of {self.image_px} px, but the vision tower reads "
                f"{own_px} x {own_px}: the processor belongs to another model"
            )

    @abstractmethod
    def _embedded(self, pixels: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image token d_model"]:
        """All tokens as they enter the first block."""

    def _block_inputs(self, pixels: Float[Tensor, "image 3 h w"]) -> dict[str, Any]:
        """What every block is given besides the tokens."""
        del pixels
        return {}

    @torch.no_grad()
    def state_at_hook(self, pixel_values: Float[Tensor, "image 3 h w"]) -> TowerState:
        pixels = pixel_values.to(self.device, self.model.dtype)
        hidden, others = self._embedded(pixels), self._block_inputs(pixels)
        for block in self._blocks[: self.hook_point.layer + 1]:
            hidden = block(hidden, **others)
        tokens, n = hidden.float(), self.n_prefix_tokens
        return TowerState(patches=tokens[:, n:].contiguous(), prefix_tokens=tokens[:, :n].contiguous())
