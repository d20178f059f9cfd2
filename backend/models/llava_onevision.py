"""LLaVA-OneVision (llava-hf/llava-onevision-qwen2-0.5b-ov-hf to -72b-ov-hf, and any checkpoint of the same class).

The vision tower is a SigLIP encoder without CLS token. What its last block leaves, before the tower's final norm, goes
through the multi-modal projector token by token: 27 x 27 patches give 729 tokens at the released sizes. One learned
token, the newline, ends every image.

Every image is one tile: the whole picture, squeezed into a square. The family cuts a picture that comes alone into
several tiles besides; one patch grid for one image, as the paper has it, needs that turned off. Turned off, one image
is laid out as each of several is in the model's own prompts of several images.

Written against transformers 5.23, whose modules are used untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from backend.errors import SubjectError
from backend.models._answering import AnsweringSubject
from backend.models._checkpoint import Checkpoint, load_checkpoint
from backend.models._tower import squeezed
from backend.models.base import ModelCard, TowerState
from backend.types import HookPoint, PatchGrid, Quantization

TOWER = "siglip_vision_model"
N_NEWLINE_TOKENS = 1


def load(
    folder: Path,
    *,
    card: ModelCard,
    hook_point: HookPoint,
    device: str,
    dtype: str,
    quantize: Quantization | None = None,
) -> LlavaOnevisionSubject:
    """Load the checkpoint in ``folder``. Called by :func:`backend.models.load_subject`, which lists the errors."""
    checkpoint = load_checkpoint(
        LlavaOnevisionForConditionalGeneration,
        folder,
        processor_class=LlavaOnevisionProcessor,
        card=card,
        device=device,
        dtype=dtype,
        quantize=quantize,
    )
    return LlavaOnevisionSubject(checkpoint, card=card, hook_point=hook_point)


class LlavaOnevisionSubject(AnsweringSubject):
    """A LLaVA-OneVision model cut at one block of its vision tower."""

    end_of_turn = "<|im_end|>"
    mask_mode = "causal"
    image_marks = ("<image>", "<video>")

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        super().__init__(checkpoint, card=card, hook_point=hook_point)
        vision: Any = self.model.config.vision_config
        self._check_projection()
        self.image_px = vision.image_size
        side = vision.image_size // vision.patch_size
        self.grid = PatchGrid(rows=side, cols=side)
        self.d_model = vision.hidden_size
        self.n_image_tokens = self.grid.n_patches + N_NEWLINE_TOKENS

    def _check_projection(self) -> None:
        """Refuse what no released checkpoint has and :meth:`from_hook` would get wrong."""
        config: Any = self.model.config
        if config.vision_config.model_type != TOWER:
            raise SubjectError(
                f"{self.card.name} has a vision tower of type {config.vision_config.model_type!r}; only {TOWER!r} can "
                "be cut"
            )
        if (config.vision_feature_layer, config.vision_feature_select_strategy) != (-1, "full"):
            raise SubjectError(
                f"{self.card.name} projects layer {config.vision_feature_layer} of its tower by the strategy "
                f"{config.vision_feature_select_strategy!r}; only layer -1 by 'full' can be run on from a hook point"
            )

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.model.model.vision_tower.encoder.layers

    def _pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "image 3 h w"]:
        """Given as one prompt's images, of which each is one tile; a single one comes twice."""
        processor: Any = self._checkpoint.image_processor
        squares = [squeezed(image, self.image_px, processor.resample) for image in images]
        together = squares * 2 if len(squares) == 1 else squares
        return processor(images=[together], return_tensors="pt")["pixel_values"][: len(squares), 0]

    @torch.no_grad()
    def state_at_hook(self, pixel_values: Float[Tensor, "image 3 h w"]) -> TowerState:
        hidden = self.model.model.vision_tower.embeddings(pixel_values.to(self.device, self.model.dtype))
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
        projected = model.multi_modal_projector(hidden)
        newline = model.image_newline.to(projected).expand(len(projected), N_NEWLINE_TOKENS, -1)
        return torch.cat([projected, newline], dim=1).float()

    def _masks(self, embeddings: Float[Tensor, "1 position d_text"], is_image: Bool[Tensor, " position"]) -> None:
        """None: images are read like words, in order, and the language model builds its own causal masks."""

    def _tokenised(self, turn: Sequence[dict[str, object]]) -> Int[Tensor, "1 position"]:
        """The processor counts the tiles of a single image in; so the image's tokens are written out here."""
        text: str = self.processor.apply_chat_template(list(turn), tokenize=False, add_generation_prompt=True)
        mark: str = self.processor.image_token
        n_tokens = self.processor.num_image_tokens + N_NEWLINE_TOKENS
        return self.processor.tokenizer(text.replace(mark, mark * n_tokens), return_tensors="pt")["input_ids"]
