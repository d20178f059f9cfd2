"""Models whose vision tower can be cut. One module per family, named like the ``model_type`` in its config.json.

To add a family, add one module. Its name is the model type, nothing else lists it, and it holds one function,
``load(folder, *, card, hook_point, device, dtype)``. Where the module lies says what the family can do:

* here for a vision-language model. ``load`` also takes ``quantize`` and returns a SubjectModel: derive its class from
  ``_answering.AnsweringSubject``, write ``_blocks``, ``state_at_hook``, ``from_hook`` and ``_masks`` (see ``gemma3``).
* in ``encoders`` for an encoder without a language model. ``load`` returns a VisionTower: derive its class from
  ``encoders._encoder.VisionEncoder`` and write ``_blocks`` and ``_embedded`` (see ``encoders.dinov2``).

Then add a shrunken checkpoint of the true class (``precompute/shrunken``) to tests/builders_families.py: the contract
tests run over every family and refuse one without it. Modules are imported when a model is loaded.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import SubjectError
from backend.models import encoders
from backend.models._locate import card_for, locate, model_fingerprint, read_model_type

if TYPE_CHECKING:
    from backend.models.base import SubjectModel, VisionTower
    from backend.types import HookPoint, Quantization

__all__ = [
    "NO_LANGUAGE_MODEL",
    "answers_in_words",
    "families",
    "load_subject",
    "load_tower",
    "locate",
    "model_fingerprint",
    "require_quantization",
]
NOT_FAMILIES = frozenset({"base", "sharing", "encoders"})
NO_LANGUAGE_MODEL = (
    "is an image encoder without a language model: it can be trained on, harvested and inspected, but it cannot answer "
    "or be steered. A recipe about it needs another model that explains its features: [explainer]"
)


def families() -> list[str]:
    """Families with an adapter: the modules of this package and of ``encoders`` that are made for one family."""
    return sorted(_places())


def answers_in_words(folder: Path) -> bool:
    """Whether the model in ``folder`` has a language model behind its vision tower. Reads config.json only.

    Raises SubjectError as :func:`load_tower` does.
    """
    return _module_of(read_model_type(folder)) == __name__


def load_tower(
    path_or_repository: str | Path,
    hook_point: HookPoint,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    quantize: Quantization | None = None,
    allow_download: bool = False,
) -> VisionTower:
    """Load any model with a vision tower, from a folder or from the local Hugging Face cache.

    A vision-language model comes whole, as a SubjectModel.

    Args:
        path_or_repository: folder written by ``save_pretrained``, or a repository id.
        hook_point: where its vision tower is cut.
        device: torch device, e.g. ``cpu`` or ``cuda:0``.
        dtype: dtype the model computes in: float32, bfloat16 or float16.
        quantize: bits of the language model's weights, where there is one; the vision tower is never quantised. Needs
            bitsandbytes.
        allow_download: fetch a missing repository. Off by default.

    Raises:
        DependencyMissing: ``quantize`` needs packages that are not installed.
        SubjectMissing: the files are not here (the message names the repository and its licence page).
        SubjectMismatch: the model has no such hook point.
        SubjectError: the model belongs to a family without an adapter, or its files cannot be read.
    """
    folder = locate(path_or_repository, allow_download=allow_download)
    family = read_model_type(folder)
    adapter: Any = importlib.import_module(f"{_module_of(family)}.{family}")
    # An encoder without a language model has nothing that could be quantised.
    options = {} if quantize is None or _module_of(family) != __name__ else {"quantize": quantize}
    card = card_for(path_or_repository, family)
    return adapter.load(folder, card=card, hook_point=hook_point, device=device, dtype=dtype, **options)


def load_subject(
    path_or_repository: str | Path,
    hook_point: HookPoint,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    quantize: Quantization | None = None,
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
    model = load_tower(path_or_repository, hook_point, device=device, dtype=dtype, quantize=quantize)
    assert isinstance(model, SubjectModel), f"backend/models/{model.card.family}.py: load returns no SubjectModel"
    return model


def require_quantization(quantize: Quantization) -> None:
    """Raise DependencyMissing if the packages of quantised loading are not installed. Imports them."""
    from backend.models._quantized import quantization_options

    quantization_options(quantize, "cpu")


def _module_of(family: str) -> str:
    """The package a family's module lies in. Raises SubjectError if there is none."""
    places = _places()
    if family not in places:
        raise SubjectError(f"no adapter for models of type {family!r}; there is one for: {', '.join(sorted(places))}")
    return places[family]


def _places() -> dict[str, str]:
    """Package by family."""
    return {
        module.name: package.__name__
        for package in (sys.modules[__name__], encoders)
        for module in pkgutil.iter_modules(package.__path__)
        if module.name not in NOT_FAMILIES and not module.name.startswith("_")
    }
