"""Qwen2.5-VL (Qwen/Qwen2.5-VL-3B-Instruct to -72B-Instruct, and any checkpoint of the same class).

The vision tower has no CLS token and no positions of its own; rotary positions say where a patch lies. Most blocks
attend within windows, a few to the whole image. A merger then folds every square of 2 x 2 patches into one token.

**Order.** The tower keeps the patches of a square, and the squares of a window, next to one another. Here patches enter
and leave row-major on the patch grid; the tower's own order is :attr:`patch_order`.

**Size.** The tower reads any shape. One patch grid for every image needs one: squares of 448 px (32 x 32 patches, 256
tokens, 4 x 4 whole windows at the released sizes), or as near to it as the processor's range of pixels allows. A
picture that is not square is squeezed, as Gemma 3's and InternVL's processors do.

**Positions.** The language model counts an image's tokens in time, height and width, and goes on after the largest.
transformers remembers the step between tokens and positions from the last pixels it saw; here positions are always
given, so that nothing depends on an earlier call.

**Greedy is greedy.** The repetition penalty in the released generation_config.json is not applied.

Qwen3-VL is another class: it also feeds the language model from blocks in the middle of its tower, see
docs/decisions/013-further-families.md. Written against transformers 5.23, whose modules are used untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.vision_utils import get_vision_window_index

from backend.errors import SubjectError
from backend.model_shapes import SQUARE_PX, nearest_square
from backend.models._answering import AnsweringSubject
from backend.models._checkpoint import Checkpoint, load_checkpoint
from backend.models._tower import squeezed
from backend.models.base import ModelCard, TowerState
from backend.types import HookPoint, PatchGrid, Quantization

IMAGE_PX = SQUARE_PX["qwen2_5_vl"]


def load(
    folder: Path,
    *,
    card: ModelCard,
    hook_point: HookPoint,
    device: str,
    dtype: str,
    quantize: Quantization | None = None,
) -> Qwen25VLSubject:
    """Load the checkpoint in ``folder``. Called by :func:`backend.models.load_subject`, which lists the errors."""
    checkpoint = load_checkpoint(
        Qwen2_5_VLForConditionalGeneration,
        folder,
        processor_class=Qwen2_5_VLProcessor,
        card=card,
        device=device,
        dtype=dtype,
        quantize=quantize,
    )
    return Qwen25VLSubject(checkpoint, card=card, hook_point=hook_point)


class Qwen25VLSubject(AnsweringSubject):
    """A Qwen2.5-VL model cut at one block of its vision tower."""

    end_of_turn = "<|im_end|>"
    mask_mode = "causal"
    image_marks = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        super().__init__(checkpoint, card=card, hook_point=hook_point)
        vision: Any = self.model.config.vision_config
        self._patch_px, self._merge = vision.patch_size, vision.spatial_merge_size
        self.image_px = self._nearest_square()
        side = self.image_px // self._patch_px
        self.grid = PatchGrid(rows=side, cols=side)
        self.d_model = vision.hidden_size
        self.n_image_tokens = (side // self._merge) ** 2
        self._image_shape = torch.tensor([[1, side, side]])
        """Frames, rows and columns of patches of one image."""
        self._merged_order, windows = get_vision_window_index(
            self._image_shape, self._merge, vision.window_size, vision.patch_size
        )
        self._window_ends = windows[1:]
        self._order: Tensor = self._patches_by_window().to(self.device)
        self.patch_order = self._order

    def _nearest_square(self) -> int:
        """Side in pixels: IMAGE_PX, or the nearest the processor makes. SubjectError if it makes none."""
        step = self._patch_px * self._merge
        size: Any = self._checkpoint.image_processor.size
        least, most = getattr(size, "shortest_edge", None), getattr(size, "longest_edge", None)
        side = nearest_square(IMAGE_PX, step, least, most) if least and most else None
        if side is None:
            raise SubjectError(
                f"the image processor of {self.card.name} names no range of pixels that holds a square of {step} px "
                f"(it names {dict(size)}): the processor belongs to another model"
            )
        return side

    def _patches_by_window(self) -> Int[Tensor, " patch"]:
        """Row-major patches in the order of the tower: by window, then by merged square, then by row."""
        patches = torch.arange(self.grid.n_patches).reshape(self.grid.rows, self.grid.cols)
        squares = rearrange(patches, "(row a) (col b) -> (row col) (a b)", a=self._merge, b=self._merge)
        return squares[self._merged_order].flatten()

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.model.model.visual.blocks

    def _pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "image 3 h w"]:
        """The processor's pixels as pictures: it cuts them into patches of two equal frames, by merged square."""
        processor: Any = self._checkpoint.image_processor
        squares = [squeezed(image, self.image_px, processor.resample) for image in images]
        patches: Tensor = processor(images=squares, return_tensors="pt")["pixel_values"]
        side = self.grid.rows // self._merge
        return rearrange(
            patches,
            "(image row col a b) (c frame y x) -> frame image c (row a y) (col b x)",
            row=side,
            col=side,
            a=self._merge,
            b=self._merge,
            c=3,
            y=self._patch_px,
            x=self._patch_px,
        )[0]

    @torch.no_grad()
    def state_at_hook(self, pixel_values: Float[Tensor, "image 3 h w"]) -> TowerState:
        tower: Any = self.model.model.visual
        patches = rearrange(
            pixel_values.to(self.device, self.model.dtype),
            "image c (row y) (col x) -> image (row col) c y x",
            y=self._patch_px,
            x=self._patch_px,
        )[:, self._order]
        frames = tower.config.temporal_patch_size
        hidden = tower.patch_embed(repeat(patches, "image patch c y x -> (image patch) (c t y x)", t=frames))
        hidden = self._through(hidden, len(pixel_values), 0, self.hook_point.layer + 1)
        tokens = hidden.float().unflatten(0, (len(pixel_values), -1))
        residual = tokens[:, self._order.argsort()]
        return TowerState(patches=residual, prefix_tokens=residual[:, :0])

    @torch.no_grad()
    def from_hook(
        self,
        residual: Float[Tensor, "image patch d_model"],
        prefix_tokens: Float[Tensor, "image prefix d_model"] | None = None,
    ) -> Float[Tensor, "image token d_text"]:
        tokens = self._sequence(residual, prefix_tokens)[:, self._order]
        hidden = self._through(tokens.flatten(0, 1), len(residual), self.hook_point.layer + 1, len(self._blocks))
        merged = self.model.model.visual.merger(hidden).unflatten(0, (len(residual), -1))
        return merged[:, self._merged_order.argsort()].float()

    def _through(
        self, hidden: Float[Tensor, "token d_model"], n_images: int, first: int, end: int
    ) -> Float[Tensor, "token d_model"]:
        """The blocks ``first`` to ``end - 1`` over all tokens of some images in the tower's order."""
        tower: Any = self.model.model.visual
        places = torch.stack([self._order // self.grid.cols, self._order % self.grid.cols], dim=1)
        rotations = tower.rotary_pos_emb(hidden, places.repeat(n_images, 1))
        starts = torch.arange(n_images)[:, None] * self.grid.n_patches
        windows, images = (_bounds(starts + ends) for ends in (self._window_ends, torch.tensor([self.grid.n_patches])))
        for layer in range(first, end):
            whole = layer in tower.fullatt_block_indexes
            bounds = (images if whole else windows).to(self.device)
            hidden = self._blocks[layer](hidden, cu_seqlens=bounds, position_embeddings=rotations)
        return hidden

    def _masks(self, embeddings: Float[Tensor, "1 position d_text"], is_image: Bool[Tensor, " position"]) -> None:
        """None: images are read like words, in order, and the language model builds its own causal masks."""

    def _positions(
        self, ids: Int[Tensor, "1 position"], is_image: Bool[Tensor, " position"]
    ) -> Int[Tensor, "axis 1 position"]:
        n_images = int(is_image.sum()) // self.n_image_tokens
        positions, _ = self.model.model.get_rope_index(
            ids, is_image[None].long(), image_grid_thw=self._image_shape.repeat(n_images, 1)
        )
        return positions


def _bounds(ends: Int[Tensor, "image segment"]) -> Int[Tensor, " bound"]:
    """Where segments of tokens begin and end, as the attention takes them."""
    return nn.functional.pad(ends.flatten(), (1, 0)).int()
