"""Tensors out of files written by ``torch.save`` or safetensors, and nothing but tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from backend.errors import SAEError


def read_torch_state(source: Path | BinaryIO, place: Path) -> dict[str, object]:
    """The state dict in a ``.pt`` file.

    A ``.pt`` file is a pickle, and unpickling runs what the file says. ``weights_only=True`` does not: torch reads the
    pickle's opcodes with an interpreter of its own, which can build tensors, numbers, texts, lists and dicts, and
    stops at every other name instead of importing it. So a file from a stranger can fail to load, but cannot run code.
    (Versions of torch before 2.6 had a hole here, CVE-2025-32434; pyproject.toml asks for a later one.) What is read
    is never written back in this form.

    Args:
        source: the file, or its bytes where the pickle is only a part of it.
        place: named in messages.

    Raises:
        SAEError: the file is damaged, holds more than tensors and plain values, or is not a state dict.
    """
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises the pickle module's own class, which nothing here imports
        raise SAEError(
            f"cannot read {place} as plain tensors ({_first_line(error)}). If it was saved as a whole object, save its "
            "state_dict() where it was made: nothing else is ever unpickled. If not, copy the file again."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise SAEError(f"{place} holds a {type(state).__name__} and not a state dict of named tensors")
    return dict(state)


def read_safetensors(path: Path) -> dict[str, object]:
    """The tensors in a safetensors file. Raises SAEError."""
    try:
        return dict(load_file(path))
    except (OSError, ValueError, SafetensorError) as error:
        raise SAEError(f"cannot read {path}: {error}. Copy the file again.") from error


def take_tensors(
    state: Mapping[str, object], names: Iterable[str], place: Path, *, allowed: Iterable[str] = ()
) -> dict[str, Tensor]:
    """The floating-point tensors of these names.

    Args:
        state: all entries of the file.
        names: entries that must be there.
        place: named in messages.
        allowed: further entries that may be there. Any other means an architecture that we would read wrongly.

    Raises:
        SAEError: an entry is missing, too many, or not a floating-point tensor.
    """
    names = list(names)
    missing = [name for name in names if name not in state]
    if missing:
        raise SAEError(f"{place} lacks {', '.join(missing)} (it has {', '.join(sorted(state))}): not this format")
    unknown = sorted(state.keys() - set(names) - set(allowed))
    if unknown:
        raise SAEError(f"{place} also holds {', '.join(unknown)}: this is more than a TopK SAE, and is not imported")
    tensors: dict[str, Tensor] = {}
    for name in names:
        value = state[name]
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.element_size() < 2:
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise SAEError(
                f"{name} in {place} is {kind}: only float16, bfloat16, float32 and float64 weights are read, so save "
                "the SAE in one of these where it was made"
            )
        tensors[name] = value.detach()
    return tensors


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
