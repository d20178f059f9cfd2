"""Do two models share a vision tower? An SAE trained in one then serves the other, and can steer it.

Gemma 3 is released in three sizes around one frozen tower, so that the 27B model can explain, and answer for, features
found in the 4B model's tower (as in arXiv 2603.22593). Nobody's word is taken for it, and neither model is loaded for
it: the tensors of the towers are read from the files one after another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig

from backend.errors import SubjectError, SubjectMismatch
from backend.models import load_tower
from backend.models._checkpoint import WITHOUT_WEIGHTS
from backend.types import HookPoint

TOWER = re.compile(r"(?:model\.)?(?:vision_tower|vision_model|visual)\.(?:vision_model\.)?(?P<name>.+)")
"""Names of the tower's tensors, as released and as transformers writes them today."""
BEHIND = re.compile(r"head\.|merger\.|deepstack_merger_list\.")
"""What some checkpoints keep within the tower but is read after the patches have left it: it may differ."""
DECIDING = (
    *("model_type", "image_size", "patch_size", "temporal_patch_size", "num_hidden_layers", "depth", "hidden_size"),
    *("intermediate_size", "num_attention_heads", "num_heads", "window_size", "fullatt_block_indexes", "hidden_act"),
    *("layer_norm_eps", "norm_type", "use_qk_norm", "rope_theta"),
)
"""Fields of a vision config that change what equal weights compute, in all families; not every family has each."""
ANYWHERE = HookPoint(layer=0)
"""Where a tower is cut whose pixels alone are asked for."""


def require_alike_towers(folder: Path, other: Path) -> None:
    """Raise SubjectMismatch if config.json alone shows that two models' towers differ: a look before long work."""
    for difference in _config_differences(folder, other):
        _refuse(folder, other, difference)


def require_same_tower(folder: Path, other: Path) -> None:
    """Compare the vision towers of two checkpoints, neither of which is loaded.

    Compared are the fields of the config that decide the computation, patch grid and image size, every tensor of the
    tower, the blocks after the hook point and the final norm included, and what the processors make of a picture. A
    tensor stored in another dtype is the same if its numbers are. At most two tensors are in memory at once.

    Args:
        folder: the model whose tower the SAE was trained in.
        other: the model that is to explain, or to answer, in its place.

    Raises:
        SubjectMismatch: naming the first difference.
        SubjectMissing: a processor is missing.
        SubjectError: a file cannot be read, or holds no vision tower.
    """
    try:
        difference = next(_differences(folder, other), None)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SubjectError(f"the vision towers of {folder} and {other} cannot be compared: {error}") from error
    if difference is not None:
        _refuse(folder, other, difference)


def _refuse(folder: Path, other: Path, difference: str) -> NoReturn:
    raise SubjectMismatch(
        f"{other} does not have the vision tower of {folder}: {difference}. Features found in one tower mean nothing "
        "in another. Choose a model around the same tower, as other sizes of one family may be; a recipe whose "
        "[explainer] says steers = false leaves out the arms that steer"
    )


def _differences(folder: Path, other: Path) -> Iterator[str]:
    yield from _config_differences(folder, other)
    yield from _tensor_differences(_tower_tensors(folder), _tower_tensors(other))
    towers = [load_tower(one, ANYWHERE, device=WITHOUT_WEIGHTS) for one in (folder, other)]
    for name in ("d_model", "grid", "image_px"):
        there, here = (getattr(tower, name) for tower in towers)
        if there != here:
            yield f"{name} is {there} there and {here} here"
    there, here = (tower.preprocess([_picture(tower.image_px)]) for tower in towers)
    if not torch.equal(there, here):
        yield "the processors make other pixels of the same picture"


def _config_differences(folder: Path, other: Path) -> Iterator[str]:
    towers = [getattr(config, "vision_config", config) for config in (_config(folder), _config(other))]
    for name in DECIDING:
        there, here = (getattr(tower, name, None) for tower in towers)
        if there != here:
            yield f"{name} is {there} there and {here} here"


def _tensor_differences(there: dict[str, tuple[Path, str]], here: dict[str, tuple[Path, str]]) -> Iterator[str]:
    """On the way through the tower; tensors that only the other has come last."""
    for name in sorted(there, key=_natural):
        if name not in here:
            yield f"tensor {name} is missing"
        elif not _equal(_read(*there[name]), _read(*here[name])):
            yield f"tensor {name} differs"
    for name in sorted(here.keys() - there.keys(), key=_natural):
        yield f"tensor {name} is only in the other"


def _tower_tensors(folder: Path) -> dict[str, tuple[Path, str]]:
    """File and full name of each tensor of the tower, by its name within the tower."""
    files: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            files |= dict.fromkeys(tensors.keys(), file)
    named = {match["name"]: full for full in files if (match := TOWER.fullmatch(full))}
    if not named and _stands_alone(folder):
        named = {full: full for full in files}
    found = {name: (files[full], full) for name, full in named.items() if not BEHIND.match(name)}
    if not found:
        raise SubjectError(f"{folder} holds no vision tower (*.safetensors with tensors named vision_tower…)")
    return found


def _stands_alone(folder: Path) -> bool:
    """Whether all of a checkpoint is its vision tower, so that nothing need name it."""
    return not hasattr(_config(folder), "vision_config")


def _config(folder: Path) -> Any:
    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as tensors:
        return tensors.get_tensor(name)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.double(), other.double())


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers by value, so that the first difference is the first on the way through the tower."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _picture(side_px: int) -> Image.Image:
    """Noise of an odd size, so that scaling and resampling count too."""
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (side_px // 2 + 5, side_px // 2 + 9, 3), dtype=np.uint8))
