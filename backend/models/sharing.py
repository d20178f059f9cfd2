"""Do two models share a vision tower? An SAE trained in one then serves the other, and can steer it.

Gemma 3 is released in three sizes around one frozen tower, so that the 27B model explains the features found in the 4B
model's tower (as in arXiv 2603.22593). Nobody's word is taken for it: every weight is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig

from backend.errors import SubjectMismatch
from backend.models._tower import CheckpointTower
from backend.models.base import VisionTower

DECIDING = ("image_size", "patch_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
"""Fields of a vision config that change what equal weights compute."""


def require_same_tower(tower: VisionTower, other: VisionTower) -> None:
    """Raise SubjectMismatch naming the first difference between the vision towers of two loaded models.

    Compared are what the processor makes of a picture, the fields of the config that decide the computation, and every
    weight and buffer of the tower bit by bit, the blocks after the hook point and the final norm included. Both models
    must be loaded in one dtype; they may lie on different devices.
    """
    for difference in _differences(tower, other):
        _refuse(tower.card.name, other.card.name, difference)


def require_alike_towers(folder: Path, other: Path) -> None:
    """Raise SubjectMismatch if config.json alone shows that two models' towers differ: a look before long work."""
    configs = [AutoConfig.from_pretrained(one, local_files_only=True) for one in (folder, other)]
    towers = [getattr(config, "vision_config", config) for config in configs]
    for difference in _config_differences(towers[0], towers[1], (*DECIDING, "hidden_size", "intermediate_size")):
        _refuse(folder.name, other.name, difference)


def _refuse(name: str, other_name: str, difference: str) -> NoReturn:
    raise SubjectMismatch(
        f"{other_name} does not have the vision tower of {name}: {difference}. Features found in one tower mean "
        "nothing in another. Choose a model around the same tower; a recipe whose [explainer] says steers = false "
        "leaves out the arms that steer"
    )


def _differences(tower: VisionTower, other: VisionTower) -> Iterator[str]:
    if not isinstance(tower, CheckpointTower) or not isinstance(other, CheckpointTower):
        yield "one of the two is no model of transformers, so the towers cannot be compared"
        return
    for name in ("d_model", "grid", "image_px"):
        if getattr(tower, name) != getattr(other, name):
            yield f"{name} is {getattr(tower, name)} there and {getattr(other, name)} here"
    yield from _config_differences(tower.vision_module.config, other.vision_module.config, DECIDING)
    yield from _tensor_differences(tower.vision_module.state_dict(), other.vision_module.state_dict())
    picture = [_picture(tower.image_px)]
    if not torch.equal(tower.preprocess(picture), other.preprocess(picture)):
        yield "the processors make other pixels of the same picture"


def _config_differences(first: Any, second: Any, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        there, here = (getattr(config, name, None) for config in (first, second))
        if there != here:
            yield f"{name} is {there} there and {here} here"


def _tensor_differences(there: dict[str, Tensor], here: dict[str, Tensor]) -> Iterator[str]:
    """In the order of the tower's own tensors; those that only the other has come last."""
    for name, tensor in there.items():
        if name not in here:
            yield f"tensor {name} is not here"
        elif tensor.shape != here[name].shape or not torch.equal(tensor.cpu(), here[name].cpu()):
            yield f"tensor {name} differs"
    for name in here.keys() - there.keys():
        yield f"tensor {name} is not there"


def _picture(side_px: int) -> Image.Image:
    """Noise of an odd size, so that scaling and resampling count too."""
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (side_px // 2 + 5, side_px // 2 + 9, 3), dtype=np.uint8))
