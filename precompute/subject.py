"""The subject model of a recipe: where it lies, its fingerprint without loading it, and the loaded model."""

from __future__ import annotations

import gc
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from backend.models import load_subject, locate, model_fingerprint
from backend.models.base import SubjectModel
from backend.settings import load_settings, resolve_path
from backend.types import HookPoint
from precompute.recipe import Recipe, Runtime


def hook_point_of(recipe: Recipe) -> HookPoint:
    """Where the recipe cuts the vision tower."""
    return HookPoint(tower=recipe.subject.tower, layer=recipe.subject.layer)


def subject_science(recipe: Recipe) -> dict[str, Any]:
    """The part of a stage's science that names the subject: the contents of its files and the hook point."""
    return {"fingerprint": model_fingerprint(_folder(recipe)), "hook_point": str(hook_point_of(recipe))}


def device_of(runtime: Runtime) -> str:
    """The torch device of a run: as asked, else as the settings say, else the first GPU, else the CPU."""
    asked = runtime.device if runtime.device != "auto" else load_settings().device
    if asked != "auto":
        return asked
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def open_subject(recipe: Recipe, runtime: Runtime) -> SubjectModel:
    """The loaded subject; kept for the next stage of the same run. Raises SubjectMissing or SubjectMismatch."""
    return _load(str(_folder(recipe)), hook_point_of(recipe), device_of(runtime), runtime.dtype)


@lru_cache(maxsize=1)
def _load(folder: str, hook_point: HookPoint, device: str, dtype: str) -> SubjectModel:
    return load_subject(folder, hook_point, device=device, dtype=dtype)


def release_subject() -> None:
    """Forget the loaded subject, so that its memory is free for another process's."""
    _load.cache_clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _folder(recipe: Recipe) -> Path:
    if recipe.subject.path:
        return locate(resolve_path(recipe.subject.path))
    assert recipe.subject.repository, "the recipe names a path or a repository"
    return locate(recipe.subject.repository)
