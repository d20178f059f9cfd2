"""What every format gives: the weights as they lie in the file, and how the format's own forward pass uses them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from backend.errors import SAEError
from backend.sae_formats._hook_names import NOT_RECORDED, RecordedHook


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The four tensors of an SAE in our orientation, in the dtype of the file."""

    W_enc: Float[Tensor, "d_model d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d_model"]
    b_dec: Float[Tensor, " d_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSAE:
    """A TopK SAE as another library wrote it. Its forward pass, on x = (residual - mean) / scale:

    h = (x - b_dec if subtracts_b_dec else x) @ W_enc + b_enc
    kept = the k features with the largest h (or h * ||W_dec row||, if selects_by_contribution)
    x_hat = relu(h[kept]) @ W_dec[kept] + b_dec
    """

    weights_file: Path
    weights: Weights
    d_model: int
    """Width that the config declares; compared with the weights."""
    d_sae: int
    """Number of features that the config declares."""
    k: int
    subtracts_b_dec: bool = True
    selects_by_contribution: bool = False
    """Whether the k kept features are the largest by h times the norm of their decoder row."""
    scale_question: str | None = None
    """Why the scale is not known from the files, as the start of a sentence; None if they read the raw residual."""
    hook: RecordedHook = NOT_RECORDED
    subject: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    """Anything else worth keeping; JSON values only."""


class SAEFormat(ABC):
    """One format on disk. Each module of this package holds one object of it, named ``FORMAT``."""

    name: str
    """The module's name; what --format takes."""
    looks_like: str
    """The files that make up one SAE, in words."""

    @abstractmethod
    def recognises(self, source: Path) -> bool:
        """Whether ``source`` (an existing file or folder) looks like this format. Reads a few bytes at most."""

    @abstractmethod
    def read(self, source: Path) -> SourceSAE:
        """Read the files.

        Raises:
            SAEError: a file is missing or unreadable, or the SAE is of an architecture we cannot express.
            SAEShapeMismatch: the files disagree about a size.
        """


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file. Raises SAEError if there is none."""
    try:
        return json_object(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise SAEError(f"cannot read {path}: {error}") from error


def json_object(text: str, place: Path) -> dict[str, object]:
    """The JSON object in a text. Raises SAEError if it holds something else."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SAEError(f"the configuration in {place} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SAEError(f"the configuration in {place} must be a JSON object, not {type(value).__name__}")
    return value


def table(value: object, name: str, place: Path) -> dict[str, object]:
    """``value`` as a JSON object. Raises SAEError naming the field."""
    if not isinstance(value, dict):
        raise SAEError(f"{place} has no table {name!r}: it is not complete, copy it again")
    return value


def whole_number(value: object, name: str, place: Path) -> int:
    """``value`` as an integer (8.0 counts, True does not). Raises SAEError naming the field."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:  # NaN and infinity too
        raise SAEError(f"{place} must give a whole number {name}, not {value!r}")
    return int(value)


def optional_text(value: object) -> str | None:
    """``value`` if it is a text with letters in it, else None."""
    return value if isinstance(value, str) and value.strip() else None
