"""The models of a recipe: where they lie, their fingerprints without loading them, and the loaded models.

The *tower* is the vision tower of ``[subject]``: features are found, harvested and measured in it. The *explainer* is
the model that puts them into words: the subject itself, or the model of ``[explainer]``.
"""

from __future__ import annotations

import gc
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from backend.errors import SubjectError
from backend.models import (
    NO_LANGUAGE_MODEL,
    answers_in_words,
    load_tower,
    locate,
    model_fingerprint,
)
from backend.models.base import SubjectModel, VisionTower
from backend.settings import load_settings, resolve_path
from backend.types import HookPoint
from precompute.recipe import ExplainerSection, Recipe, Runtime, SubjectSection

UNCUT = HookPoint(layer=0)
"""Where an explainer is cut that is never steered: anywhere will do."""


def hook_point_of(recipe: Recipe) -> HookPoint:
    """Where the recipe cuts the vision tower."""
    return HookPoint(tower=recipe.subject.tower, layer=recipe.subject.layer)


def subject_science(recipe: Recipe) -> dict[str, Any]:
    """The part of a stage's science that names the subject: the contents of its files and the hook point."""
    return {"fingerprint": model_fingerprint(_folder(recipe.subject)), "hook_point": str(hook_point_of(recipe))}


def explainer_science(recipe: Recipe) -> dict[str, Any]:
    """The part of a stage's science that names an explainer of its own; empty where the subject explains itself.

    Before anything is computed it raises SubjectError if the explainer has no language model, and SubjectMismatch if it
    is to steer and its config.json alone shows another vision tower.
    """
    section = recipe.explainer or recipe.subject
    if not answers_in_words(_folder(section)):
        raise SubjectError(f"recipe {recipe.name}: {section.path or section.repository} {NO_LANGUAGE_MODEL}")
    if recipe.explainer is None:
        return {}
    folder = _folder(recipe.explainer)
    if recipe.explainer.steers:
        from backend.models.sharing import require_alike_towers  # transformers takes seconds to import

        require_alike_towers(_folder(recipe.subject), folder)
    return {"explainer": {"fingerprint": model_fingerprint(folder), "steers": recipe.explainer.steers}}


def explainer_document(recipe: Recipe) -> dict[str, Any] | None:
    """What meta.json says of an explainer of its own; None where the subject explains itself."""
    section = recipe.explainer
    if section is None:
        return None
    return {
        "name": section.repository or Path(str(section.path)).name,
        "path": section.path,
        "repository": section.repository,
        "fingerprint": model_fingerprint(_folder(section)),
        "steers": section.steers,
    }


def device_of(runtime: Runtime) -> str:
    """The torch device of a run: as asked, else as the settings say, else the first GPU, else the CPU."""
    asked = runtime.device if runtime.device != "auto" else load_settings().device
    if asked != "auto":
        return asked
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def open_tower(recipe: Recipe, runtime: Runtime) -> VisionTower:
    """The loaded vision tower; kept for the next stage of the same run. Raises SubjectMissing or SubjectMismatch."""
    return _load(_place(recipe.subject), hook_point_of(recipe), device_of(runtime), runtime.dtype)


def open_explainer(recipe: Recipe, runtime: Runtime) -> SubjectModel:
    """The loaded model that explains, cut at the recipe's hook point if it steers. It is kept in place of the tower.

    Raises:
        SubjectMissing: its files are not here.
        SubjectError: it has no language model.
        SubjectMismatch: it is to steer, but its vision tower is not that of the subject.
    """
    section = recipe.explainer
    point = UNCUT if section is not None and not section.steers else hook_point_of(recipe)
    if section is not None and section.steers:
        _check_towers(_folder(recipe.subject), _folder(section))
    model = _load(_place(section or recipe.subject), point, device_of(runtime), runtime.dtype)
    if not isinstance(model, SubjectModel):
        raise SubjectError(f"{model.card.name} {NO_LANGUAGE_MODEL}")
    return model


@lru_cache(maxsize=1)
def _load(place: Path | str, hook_point: HookPoint, device: str, dtype: str) -> VisionTower:
    return load_tower(place, hook_point, device=device, dtype=dtype)


@lru_cache(maxsize=1)
def _check_towers(subject: Path, explainer: Path) -> None:
    """Once per run, from the files."""
    from backend.models.sharing import require_same_tower

    require_same_tower(subject, explainer)


def _place(section: SubjectSection | ExplainerSection) -> Path | str:
    """A folder, or the repository id, which the model's card then names."""
    if section.path:
        return resolve_path(section.path)
    assert section.repository, "the recipe names a path or a repository"
    return section.repository


def _folder(section: SubjectSection | ExplainerSection) -> Path:
    return locate(_place(section))


def release_models() -> None:
    """Forget the loaded models, so that their memory is free for another process's."""
    _load.cache_clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
