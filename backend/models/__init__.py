"""Models whose vision tower can be cut. One module per family, named like the ``model_type`` in its config.json.

To add a family, add one module here. Its name is the model type, nothing else lists it, and it holds one function:

* ``load(folder, *, card, hook_point, device, dtype) -> SubjectModel`` for a vision-language model. Derive the class
  from ``_answering.AnsweringSubject`` and write ``_blocks``, ``state_at_hook``, ``from_hook`` and ``_masks`` (see
  ``gemma3``).
* ``load_tower(...) -> VisionTower``, same arguments, for an encoder without a language model. Derive the class from
  ``_vision_only.VisionEncoder`` and write ``_blocks`` and ``_embedded`` (see ``dinov2``).

Then add a shrunken checkpoint of the true class (``precompute/shrunken``) to tests/builders_families.py: the contract
tests run over every family and refuse one without it. Modules are imported when a model is loaded.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from backend.errors import SubjectError
from backend.models._locate import card_for, locate, model_fingerprint, read_model_type

if TYPE_CHECKING:
    from backend.models.base import SubjectModel, VisionTower
    from backend.types import HookPoint

__all__ = ["answers_in_words", "families", "load_subject", "load_tower", "locate", "model_fingerprint"]


def families() -> list[str]:
    """Families with an adapter: the modules of this package that are neither the base nor internal."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if module.name != "base" and not module.name.startswith("_")
    )


def answers_in_words(folder: Path) -> bool:
    """Whether the model in ``folder`` has a language model behind its vision tower. Reads config.json only.

    Raises SubjectError as :func:`load_tower` does.
    """
    return hasattr(_adapter(read_model_type(folder)), "load")


def load_tower(
    path_or_repository: str | Path,
    hook_point: HookPoint,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    allow_download: bool = False,
) -> VisionTower:
    """Load any model with a vision tower, from a folder or from the local Hugging Face cache.

    A vision-language model comes whole, as a SubjectModel.

    Args:
        path_or_repository: folder written by ``save_pretrained``, or a repository id.
        hook_point: where its vision tower is cut.
        device: torch device, e.g. ``cpu`` or ``cuda:0``.
        dtype: dtype the model computes in: float32, bfloat16 or float16.
        allow_download: fetch a missing repository. Off by default.

    Raises:
        SubjectMissing: the files are not here (the message names the repository and its licence page).
        SubjectMismatch: the model has no such hook point.
        SubjectError: the model belongs to a family without an adapter, or its files cannot be read.
    """
    folder = locate(path_or_repository, allow_download=allow_download)
    family = read_model_type(folder)
    adapter: Any = _adapter(family)
    load = adapter.load if hasattr(adapter, "load") else adapter.load_tower
    return load(folder, card=card_for(path_or_repository, family), hook_point=hook_point, device=device, dtype=dtype)


def load_subject(
    path_or_repository: str | Path,
    hook_point: HookPoint,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    allow_download: bool = False,
) -> SubjectModel:
    """Load a model that also answers in words. Arguments and errors as for :func:`load_tower`, and:

    Raises:
        SubjectError: the model has no language model, so it can neither explain nor be steered.
    """
    from backend.models.base import SubjectModel

    folder = locate(path_or_repository, allow_download=allow_download)
    if not answers_in_words(folder):
        raise SubjectError(f"{path_or_repository} {NO_LANGUAGE_MODEL}")
    model = load_tower(path_or_repository, hook_point, device=device, dtype=dtype)
    assert isinstance(model, SubjectModel), f"backend/models/{model.card.family}.py: load returns no SubjectModel"
    return model


NO_LANGUAGE_MODEL = (
    "is an image encoder without a language model: it can be trained on, harvested and inspected, but it cannot answer "
    "or be steered. A recipe about it needs another model that explains its features: [explainer]"
)


def _adapter(family: str) -> ModuleType:
    """The module of a family. Raises SubjectError if there is none."""
    if family not in families():
        raise SubjectError(f"no adapter for models of type {family!r}; there is one for: {', '.join(families())}")
    return importlib.import_module(f"backend.models.{family}")
