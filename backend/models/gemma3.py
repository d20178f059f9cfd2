"""Gemma 3 (google/gemma-3-4b-it, -12b-it, -27b-it, and any checkpoint of the same class).

The vision tower is a SigLIP encoder: patch embedding, blocks, final norm. After it, the multi-modal projector pools
the patches, normalises and projects them to the language model's width. There is no CLS token, so every token of the
tower is a patch. Written against transformers 5.23, whose modules are used untouched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import Gemma3ForConditionalGeneration, Gemma3Processor

from backend.models._answering import AnsweringSubject, AttentionMask
from backend.models._checkpoint import Checkpoint, load_checkpoint
from backend.models.base import ModelCard, TowerState
from backend.types import HookPoint, PatchGrid, Quantization

IMAGE_TOKEN_TYPE = 1


def load(
    folder: Path,
    *,
    card: ModelCard,
    hook_point: HookPoint,
    device: str,
    dtype: str,
    quantize: Quantization | None = None,
) -> Gemma3Subject:
    """Load the checkpoint in ``folder``. Called by :func:`backend.models.load_subject`, which lists the errors."""
    checkpoint = load_checkpoint(
        Gemma3ForConditionalGeneration,
        folder,
        processor_class=Gemma3Processor,
        card=card,
        device=device,
        dtype=dtype,
        quantize=quantize,
    )
    return Gemma3Subject(checkpoint, card=card, hook_point=hook_point)


class Gemma3Subject(AnsweringSubject):
    """A Gemma 3 model cut at one block of its vision tower."""

    end_of_turn = "<end_of_turn>"
    mask_mode = "bidirectional within an image"
    image_marks = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    # For one new token without padding everything in the cache is visible, so no mask is built.
    step_mask: ClassVar[AttentionMask] = {"full_attention": None, "sliding_attention": None}

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        super().__init__(checkpoint, card=card, hook_point=hook_point)
        config: Any = self.model.config
        side = config.vision_config.image_size // config.vision_config.patch_size
        self.grid = PatchGrid(rows=side, cols=side)
        self.d_model = config.vision_config.hidden_size
        self.n_image_tokens = config.mm_tokens_per_image
        self.image_px = config.vision_config.image_size

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.model.model.vision_tower.encoder.layers

    @torch.no_grad()
    def state_at_hook(self, pixel_values: Float[Tensor, "image 3 h w"]) -> TowerState:
        tower: Any = self.model.model.vision_tower
        hidden = tower.embeddings(pixel_values.to(self.device, self.model.dtype))
        for block in self._blocks[: self.hook_point.layer + 1]:
            hidden = block(hidden, None)
        patches = hidden.float()
        return TowerState(patches=patches, prefix_tokens=patches[:, :0])

    @torch.no_grad()
    def from_hook(
        self,
        residual: Float[Tensor, "image patch d_model"],
        prefix_tokens: Float[Tensor, "image prefix d_model"] | None = None,
    ) -> Float[Tensor, "image token d_text"]:
        hidden = self._sequence(residual, prefix_tokens)
        for block in self._blocks[self.hook_point.layer + 1 :]:
            hidden = block(hidden, None)
        model: Any = self.model.model
        return model.multi_modal_projector(model.vision_tower.post_layernorm(hidden)).float()

    def _masks(
        self, embeddings: Float[Tensor, "1 position d_text"], is_image: Bool[Tensor, " position"]
    ) -> dict[str, Tensor | None]:
        """Within one image every token sees every other; otherwise a token sees what came before."""
        masks = self.model.create_masks_for_generate(
            config=self.model.config,
            inputs_embeds=embeddings,
            attention_mask=None,
            past_key_values=None,
            position_ids=None,
            token_type_ids=is_image[None].long() * IMAGE_TOKEN_TYPE if bool(is_image.any()) else None,
        )
        return dict(masks)
