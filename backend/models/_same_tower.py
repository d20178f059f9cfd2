"""Do two checkpoints hold the same vision tower? Then features of one can be steered in the other.

Gemma 3 is released in three sizes around one frozen tower, so that the 27B model can answer for features found in the
4B model's (as in arXiv 2603.22593). Nobody's word is taken for it, and neither model is loaded for it: the tensors of
the towers are read from the files one after another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor

from backend.errors import SubjectError, SubjectMismatch

TOWER = re.compile(r"(?:model\.)?(?:vision_tower|vision_model|visual)\.(?:vision_model\.)?(?P<name>.+)")
"""Names of the tower's tensors, as released and as transformers writes them today."""
BEHIND = re.compile(r"head\.|merger\.|deepstack_merger_list\.")
"""What some checkpoints keep within the tower but is read after the patches have left it: it may differ."""
DECIDING = ("image_size", "patch_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
"""Fields of a vision config that change what equal weights compute."""
PICTURE_PX = (211, 307)
"""Odd, so that scaling and resampling count too."""


def require_same_tower_files(folder: Path, other: Path) -> None:
    """Compare the vision towers of two checkpoints: every tensor, the fields that decide, and the processors' pixels.

    A tensor stored in another dtype is the same if its numbers are. At most two tensors are in memory at once.

    Args:
        folder: the model whose tower the SAE was trained in.
        other: the model that is to answer for it.

    Raises:
        SubjectMismatch: naming the first difference.
        SubjectError: a file cannot be read, or holds no vision tower.
    """
    try:
        difference = next(_differences(folder, other), None)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SubjectError(f"the vision towers of {folder} and {other} cannot be compared: {error}") from error
    if difference is not None:
        raise SubjectMismatch(
            f"{other} does not have the vision tower of {folder}: {difference}. Features found in one tower mean "
            "nothing in another: serve the atlas with its own subject, or with another size of it around the same tower"
        )


def _differences(folder: Path, other: Path) -> Iterator[str]:
    configs: list[Any] = [
        AutoConfig.from_pretrained(one, local_files_only=True).vision_config for one in (folder, other)
    ]
    for name in DECIDING:
        there, here = (getattr(config, name, None) for config in configs)
        if there != here:
            yield f"{name} is {there} there and {here} here"
    there, here = _tower_tensors(folder), _tower_tensors(other)
    for name in sorted(there, key=_natural):
        if name not in here:
            yield f"tensor {name} is missing"
        elif not _equal(_read(*there[name]), _read(*here[name])):
            yield f"tensor {name} differs"
    for name in sorted(here.keys() - there.keys(), key=_natural):
        yield f"tensor {name} is only in the other"
    if not torch.equal(_pixels(folder), _pixels(other)):
        yield "the image processors make other pixels of the same picture"


def _tower_tensors(folder: Path) -> dict[str, tuple[Path, str]]:
    """File and full name of each tensor of the tower, by its name within the tower."""
    found: dict[str, tuple[Path, str]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for full in list(tensors.keys()):
                match = TOWER.fullmatch(full)
                if match and not BEHIND.match(match["name"]):
                    found[match["name"]] = (file, full)
    if not found:
        raise SubjectError(f"{folder} holds no vision tower (*.safetensors with tensors named vision_tower…)")
    return found


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as tensors:
        return tensors.get_tensor(name)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.float(), other.float())


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers by value, so that the first difference is the first on the way through the tower."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _pixels(folder: Path) -> Tensor:
    """What the image processor makes of one picture of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (*PICTURE_PX, 3), dtype=np.uint8)
    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    return processor(images=[Image.fromarray(noise)], return_tensors="pt")["pixel_values"]
