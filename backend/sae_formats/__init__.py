"""SAEs made elsewhere. One module per format, named like the format; loaded on demand.

A new format is one new file here: a module with ``FORMAT``, an object of a class derived from
:class:`backend.sae_formats.base.SAEFormat`. The command line, the list of names and the recognition of files follow.

Nothing is imported approximately: what our TopK form cannot express exactly is refused with the reason
(docs/decisions/011-importing-other-saes.md).
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import SAEError
from backend.sae_formats._hook_names import hook_point_from

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from backend.sae import TopKSAE
    from backend.sae_formats.base import SAEFormat
    from backend.types import HookPoint

__all__ = ["format_names", "hook_point_from", "import_sae", "load_format", "recognise"]


def format_names() -> list[str]:
    """Formats that can be read: the modules of this package that are neither the base nor internal."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if module.name != "base" and not module.name.startswith("_")
    )


def load_format(name: str) -> SAEFormat:
    """The format of this name. Raises SAEError if there is none."""
    if name not in format_names():
        raise SAEError(f"there is no SAE format {name!r}: choose --format from {', '.join(format_names())}")
    return importlib.import_module(f"backend.sae_formats.{name}").FORMAT


def recognise(source: Path) -> SAEFormat:
    """The one format that ``source`` is in.

    Raises:
        SAEError: nothing is there, no format recognises it, or more than one does.
    """
    if not source.exists():
        raise SAEError(f"there is nothing at {source}: give a file or folder that holds an SAE")
    found = [one for one in map(load_format, format_names()) if one.recognises(source)]
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(f"--format {one.name}" for one in found)
        raise SAEError(f"{source} holds SAEs of several formats: say which one is meant with {names}")
    looks = "; ".join(f"{one.name} is {one.looks_like}" for one in map(load_format, format_names()))
    raise SAEError(f"{source} is in no known SAE format ({looks})")


def import_sae(
    source: Path,
    *,
    format_name: str | None = None,
    hook_point: HookPoint | None = None,
    scale: float | None = None,
    mean: Float[Tensor, " d_model"] | None = None,
    subject: str | None = None,
) -> TopKSAE:
    """Read an SAE made elsewhere and bring it into our form, exactly.

    Args:
        source: file or folder; nothing in it is unpickled beyond plain tensors.
        format_name: one of :func:`format_names`; by default the format is recognised.
        hook_point: where it was trained. Needed where the file does not say; refused where the file says otherwise.
        scale: the SAE reads (residual - mean) / scale, in residual-stream L2 units; 1 if it reads the residual stream
            as it is. Needed where the file does not say.
        mean: subtracted from the residual before scaling; 0 by default.
        subject: name of the subject model; by default the one in the file.

    Raises:
        SAEError: the file is unreadable, of another architecture, or cannot be expressed exactly.
        SAEShapeMismatch: weights and config disagree, or a matrix is transposed.
        SubjectMismatch: the file names another hook point.
    """
    from backend.sae_formats._folding import to_topk  # torch: not needed to list formats

    chosen = load_format(format_name) if format_name else recognise(source)
    found = chosen.read(source)
    return to_topk(found, format_name=chosen.name, hook_point=hook_point, scale=scale, mean=mean, subject=subject)
