"""SAM 2 of the ``sam2`` package from a folder: its layout, its weights, and the predictor around it.

A folder holds one checkpoint (``sam2.1_hiera_large.pt`` as released, or the same tensors as safetensors) and may hold
the model's YAML, as the repositories on the Hub do; without one, the package's own for the checkpoint's name is taken.
A YAML names classes to build: only those that modules of ``sam2.modeling`` define are accepted. Checkpoints are read
without unpickling.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from backend.errors import DependencyMissing, SubjectError, SubjectMissing
from precompute.judges.base import NeededWeights

CHECKPOINTS = ("sam2*.pt", "sam2*.safetensors")
SAM2_PATTERNS = (*CHECKPOINTS, "sam2*.yaml")
_CLASSES = "sam2.modeling."


def needed_sam2(part: str, model: str) -> NeededWeights:
    """What SAM 2 needs in ``model``, a folder or a repository."""
    return NeededWeights(part=part, model=model, needed=("|".join(CHECKPOINTS),), patterns=SAM2_PATTERNS)


def load_sam2(folder: Path, device: str) -> Any:
    """The model in eval mode, float32.

    Raises:
        DependencyMissing: the package is not installed.
        SubjectMissing: no checkpoint in the folder.
        SubjectError: the checkpoint does not fit the YAML, or the YAML builds something else.
    """
    try:
        from hydra.utils import instantiate
        from omegaconf import OmegaConf
    except ImportError as error:
        raise DependencyMissing(f'SAM 2 cannot be imported ({error}): pip install "iconoscope[paper]"') from error
    checkpoints = sorted(path for pattern in CHECKPOINTS for path in folder.glob(pattern))
    if not checkpoints:
        raise SubjectMissing(f"there is no SAM 2 checkpoint in {folder}: it must hold {' or '.join(CHECKPOINTS)}")
    checkpoint = checkpoints[-1]  # safetensors come last, and are taken where both are there
    layout = OmegaConf.load(_layout(folder, checkpoint))
    settings: Any = OmegaConf.to_container(layout, resolve=True)
    for target in _targets(settings["model"]):
        if not _is_own_class(target):
            raise SubjectError(f"the YAML in {folder} would build {target}; SAM 2 needs classes of {_CLASSES}* only")
    model = instantiate(settings["model"], _recursive_=True)
    try:
        model.load_state_dict(_tensors(checkpoint))
    except RuntimeError as error:
        raise SubjectError(f"{checkpoint} does not hold the weights that its YAML describes: {error}") from error
    return model.to(device).eval()


def _layout(folder: Path, checkpoint: Path) -> Path:
    """The YAML of a model: the folder's own, else the package's for the checkpoint's name."""
    own = sorted(folder.glob("sam2*.yaml"))
    if own:
        return own[0]
    try:
        import sam2
        from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES
    except ImportError as error:
        raise DependencyMissing(f'SAM 2 cannot be imported ({error}): pip install "iconoscope[paper]"') from error
    for name, released in HF_MODEL_ID_TO_FILENAMES.values():
        if Path(released).stem == checkpoint.stem:
            return Path(sam2.__path__[0]) / name
    raise SubjectError(f"no YAML in {folder}, and {checkpoint.name} is not the name of a released SAM 2 checkpoint")


def _targets(node: Any) -> Iterator[str]:
    """Every class a YAML names."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _is_own_class(target: str) -> bool:
    """Whether a name means a class that a module of ``sam2.modeling`` defines itself.

    The beginning of the name alone says nothing: modules import others, by which a name could reach ``os.system``.
    """
    module_name, _, class_name = target.rpartition(".")
    if not module_name.startswith(_CLASSES):
        return False
    try:
        found = getattr(import_module(module_name), class_name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__ == module_name


def _tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    if checkpoint.suffix == ".safetensors":
        return load_file(checkpoint)
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]


def sam2_predictor(model: Any) -> Any:
    """The package's image predictor. It assumes 1024 px images; for others, its map sizes follow the model's."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    return predictor
