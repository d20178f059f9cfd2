"""InternVL (OpenGVLab/InternVL3-1B-hf to -78B-hf, and any checkpoint of the same class).

The vision tower is an InternViT: one CLS token before the patches, blocks, and a final norm that is the identity in
the released checkpoints. After it the CLS token is dropped; pixel shuffle folds every square of patches (2 x 2 at the
usual ratio of 0.5) into one token, and the multi-modal projector brings it to the language model's width.

CLS is a prefix token of the patch grid: no SAE reads it and no intervention edits it, but it passes the cut, for the
blocks after the hook point attend to it. (The code released with arXiv 2603.22593 drops CLS when it harvests and counts
it when it steers, so that its steered patches lie one off.)

Every image is one tile. InternVL can also cut an image into several, each with its own tokens; one patch grid for one
image, as the paper has it too, needs that turned off, which it is here whatever the processor's files say.

Only checkpoints of transformers' own class are read (repositories that end in ``-hf``), never code from a repository.
Written against transformers 5.23, whose modules are used untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration, InternVLProcessor

from backend.errors import SubjectError
from backend.models._answering import AnsweringSubject
from backend.models._checkpoint import Checkpoint, load_checkpoint
from backend.models.base import ModelCard, TowerState
from backend.types import HookPoint, PatchGrid, Quantization

N_CLS_TOKENS = 1


def load(
    folder: Path,
    *,
    card: ModelCard,
    hook_point: HookPoint,
    device: str,
    dtype: str,
    quantize: Quantization | None = None,
) -> InternVLSubject:
    """Load the checkpoint in ``folder``. Called by :func:`backend.models.load_subject`, which lists the errors."""
    checkpoint = load_checkpoint(
        InternVLForConditionalGeneration,
        folder,
        processor_class=InternVLProcessor,
        card=card,
        device=device,
        dtype=dtype,
        quantize=quantize,
    )
    return InternVLSubject(checkpoint, card=card, hook_point=hook_point)


class InternVLSubject(AnsweringSubject):
    """An InternVL model cut at one block of its vision tower."""

    end_of_turn = "<|im_end|>"
    mask_mode = "causal"
    image_marks = ("<img>", "</img>", "<IMG_CONTEXT>", "<video>")
    image_options: ClassVar[Mapping[str, object]] = {"crop_to_patches": False}

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        super().__init__(checkpoint, card=card, hook_point=hook_point)
        config: Any = self.model.config
        self._check_projection()
        self.image_px, patch_px = config.vision_config.image_size[0], config.vision_config.patch_size[0]
        side = self.image_px // patch_px
        self.grid = PatchGrid(rows=side, cols=side, n_prefix_tokens=N_CLS_TOKENS)
        self.d_model = config.vision_config.hidden_size
        self.n_image_tokens = int(side * config.downsample_ratio) ** 2

    def _check_projection(self) -> None:
        """Refuse what no released checkpoint has and :meth:`from_hook` would get wrong."""
        config: Any = self.model.config
        vision: Any = config.vision_config
        if len(set(vision.image_size)) > 1 or len(set(vision.patch_size)) > 1:
            raise SubjectError(f"{self.card.name} reads images or patches that are not square; only squares can be cut")
        if (config.vision_feature_layer, config.vision_feature_select_strategy) != (-1, "default"):
            raise SubjectError(
                f"{self.card.name} projects layer {config.vision_feature_layer} of its tower by the strategy "
                f"{config.vision_feature_select_strategy!r}; only layer -1 by 'default' can be run on from a hook point"
            )

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.model.model.vision_tower.encoder.layer

    @torch.no_grad()
    def state_at_hook(self, pixel_values: Float[Tensor, "image 3 h w"]) -> TowerState:
        tower: Any = self.model.model.vision_tower
        hidden = tower.embeddings(pixel_values.to(self.device, self.model.dtype))
        for block in self._blocks[: self.hook_point.layer + 1]:
            hidden = block(hidden)
        tokens = hidden.float()
        return TowerState(
            patches=tokens[:, N_CLS_TOKENS:].contiguous(), prefix_tokens=tokens[:, :N_CLS_TOKENS].contiguous()
        )

    @torch.no_grad()
    def from_hook(
        self,
        residual: Float[Tensor, "image patch d_model"],
        prefix_tokens: Float[Tensor, "image prefix d_model"] | None = None,
    ) -> Float[Tensor, "image token d_text"]:
        hidden = self._sequence(residual, prefix_tokens)
        for block in self._blocks[self.hook_point.layer + 1 :]:
            hidden = block(hidden)
        model: Any = self.model.model
        patches = model.vision_tower.layernorm(hidden)[:, N_CLS_TOKENS:]
        squares = patches.unflatten(1, (self.grid.rows, self.grid.cols))
        folded = model.pixel_shuffle(squares, scale_factor=self.model.config.downsample_ratio)
        return model.multi_modal_projector(folded.flatten(1, 2)).float()

    def _masks(self, embeddings: Float[Tensor, "1 position d_text"], is_image: Bool[Tensor, " position"]) -> None:
        """None: images are read like words, in order, and the language model builds its own causal masks."""
