"""Subject models. One module per family, named like the ``model_type`` in its config.json; loaded on demand."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import SubjectError
from backend.models._locate import card_for, locate, model_fingerprint, read_model_type

if TYPE_CHECKING:
    from backend.models.base import SubjectModel
    from backend.types import HookPoint, Quantization

__all__ = [
    "families",
    "load_subject",
    "locate",
    "model_fingerprint",
    "require_quantization",
    "require_same_tower_files",
]


def families() -> list[str]:
    """Families with an adapter: the modules of this package that are neither the base nor internal."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if module.name != "base" and not module.name.startswith("_")
    )


def load_subject(
    path_or_repository: str | Path,
    hook_point: HookPoint,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    quantize: Quantization | None = None,
    allow_download: bool = False,
) -> SubjectModel:
    """Load a subject model from a folder or from the local Hugging Face cache.

    Args:
        path_or_repository: folder written by ``save_pretrained``, or a repository id.
        hook_point: where its vision tower is cut.
        device: torch device, e.g. ``cpu`` or ``cuda:0``.
        dtype: dtype the model computes in: float32, bfloat16 or float16.
        quantize: bits of the language model's weights; the vision tower is never quantised. Needs bitsandbytes.
        allow_download: fetch a missing repository. Off by default.

    Raises:
        DependencyMissing: ``quantize`` needs packages that are not installed.
        SubjectMissing: the files are not here (the message names the repository and its licence page).
        SubjectMismatch: the model has no such hook point.
        SubjectError: the model belongs to a family without an adapter, or its files cannot be read.
    """
    folder = locate(path_or_repository, allow_download=allow_download)
    family = read_model_type(folder)
    if family not in families():
        raise SubjectError(f"no adapter for models of type {family!r}; there is one for: {', '.join(families())}")
    adapter = importlib.import_module(f"backend.models.{family}")
    # Only who is asked to quantise must know how.
    options = {} if quantize is None else {"quantize": quantize}
    card = card_for(path_or_repository, family)
    return adapter.load(folder, card=card, hook_point=hook_point, device=device, dtype=dtype, **options)


def require_quantization(quantize: Quantization) -> None:
    """Raise DependencyMissing if the packages of quantised loading are not installed. Imports them."""
    from backend.models._quantized import quantization_options

    quantization_options(quantize, "cpu")


def require_same_tower_files(folder: Path, other: Path) -> None:
    """Raise SubjectMismatch naming the first difference between the vision towers of two checkpoints.

    See :func:`backend.models._same_tower.require_same_tower_files`.
    """
    from backend.models._same_tower import require_same_tower_files as compare

    compare(folder, other)
