"""One shrunken, random checkpoint for every family of models, so that all are held to the same contracts.

All have 32 px images, 4x4 patches, width 32 and 3 vision blocks; those that answer have 4 tokens of width 32 an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from backend.models.base import SubjectModel
from backend.types import HookPoint
from precompute.shrunken import clip, dinov2, dinov2_with_registers, dinov3_vit, gemma3, internvl, siglip

BUILDERS: dict[str, Callable[[Path], Path]] = {"gemma3": gemma3.build, "internvl": internvl.build}
"""Families that answer in words."""
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


def untouched_embeddings(subject: Any, images: list[Image.Image]) -> torch.Tensor:
    """Image embeddings [image token d_text] from the transformers model itself, whole."""
    with torch.no_grad():
        return subject.model.get_image_features(subject.preprocess(images)).pooler_output.float()


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """All tokens that enter a block, one tensor [image token d_model] for each of its runs."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    try:
        yield seen
    finally:
        handle.remove()
