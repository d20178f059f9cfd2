"""One shrunken, random checkpoint for every family of models, so that all are held to the same contracts.

All have 32 px images, 4x4 patches, width 32 and 3 vision blocks; image embeddings are 32 wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from backend.models.base import SubjectModel
from backend.types import HookPoint
from precompute.shrunken import (
    clip,
    dinov2,
    dinov2_with_registers,
    dinov3_vit,
    gemma3,
    internvl,
    llava_onevision,
    qwen2_5_vl,
    siglip,
)
from tests.builders_subject import reference_pixels

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "gemma3": gemma3.build,
    "internvl": internvl.build,
    "llava_onevision": llava_onevision.build,
    "qwen2_5_vl": qwen2_5_vl.build,
}
"""Families that answer in words."""
N_IMAGE_TOKENS = {"gemma3": 4, "internvl": 4, "llava_onevision": 17, "qwen2_5_vl": 4}
"""Image embeddings per image."""
TOWERS: dict[str, Callable[[Path], Path]] = {
    "clip": clip.build,
    "dinov2": dinov2.build,
    "dinov2_with_registers": dinov2_with_registers.build,
    "dinov3_vit": dinov3_vit.build,
    "siglip": siglip.build,
}
"""Families of image encoders without a language model."""
ALL_FAMILIES = {**BUILDERS, **TOWERS}
MIDDLE, LAST = HookPoint(layer=1), HookPoint(layer=2)
PROMPT = "What is shown in the image?"


def embeddings_of(subject: SubjectModel, images: list[Image.Image], n_images: int = 1) -> torch.Tensor:
    """Image embeddings [prompt image token d_text] through the cut, ``n_images`` to a prompt."""
    state = subject.states(images)
    return subject.from_hook(state.patches, state.prefix_tokens).unflatten(0, (-1, n_images))


def untouched_embeddings(subject: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """Image embeddings [image token d_text] from the transformers model itself, whole, and its own processor."""
    with torch.no_grad():
        output = subject.model.get_image_features(**reference_pixels(subject, images)).pooler_output
    return (output if isinstance(output, torch.Tensor) else torch.stack(list(output))).float()


def in_grid_order(subject: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Tokens of a block [image token d_model], prefix first and patches row-major, whatever order the tower keeps."""
    if subject.patch_order is None:
        return tokens
    return tokens.unflatten(0, (-1, len(subject.patch_order)))[:, subject.patch_order.argsort()]


@contextmanager
def inputs_of(subject: Any) -> Iterator[list[torch.Tensor]]:
    """All tokens that enter the block at the hook point, one tensor [image token d_model] for each of its runs."""
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(in_grid_order(subject, inputs[0].clone()))

    handle = subject.hook_module.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
