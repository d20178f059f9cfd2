"""The embeddings of an atlas's texts as one matrix, and the queries that are compared with them."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Float32

from backend.errors import ArtifactDamaged, DependencyMissing
from backend.feature_store import FeatureStore
from backend.text_encoders import TextEncoder, load_text_encoder

_CACHED_QUERIES = 256


class TextVectors:
    """Rows in the order of the texts table. Thread-safe; index and encoder are loaded when first needed."""

    def __init__(self, store: FeatureStore, encoder: TextEncoder | None = None) -> None:
        """``encoder`` defaults to the one named in meta.json."""
        self._store = store
        self._encoder = encoder
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def encode(self, text: str) -> Float32[np.ndarray, " d"]:
        """The unit vector of a query; the latest are kept. Raises DependencyMissing."""
        with self._lock:
            if text in self._cache:
                self._cache.move_to_end(text)
                return self._cache[text]
        if self._encoder is None:
            self._encoder = load_text_encoder(str(self._store.meta.get("text_encoder") or "all-MiniLM-L6-v2"))
        row = np.ascontiguousarray(self._encoder.encode([text])[0], dtype=np.float32)
        with self._lock:
            self._cache[text] = row
            while len(self._cache) > _CACHED_QUERIES:
                self._cache.popitem(last=False)
        return row

    @cached_property
    def rows(self) -> Float32[np.ndarray, "text d"]:
        """The vectors of index.faiss, without a copy. Raises DependencyMissing or ArtifactDamaged.

        One product with all of them is exact, and takes 15 ms for 150,000 texts.
        """
        index = self._index
        import faiss

        n, d = index.ntotal, index.d
        if not n:
            return np.zeros((0, d), np.float32)
        return faiss.rev_swig_ptr(index.get_xb(), n * d).reshape(n, d)

    @cached_property
    def _index(self) -> Any:
        try:
            import faiss
        except ImportError as error:
            raise DependencyMissing(f"faiss cannot be imported ({error}). Install it: pip install faiss-cpu") from error
        path = self._store.artifact.path("index.faiss")
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ArtifactDamaged(f"{path} is not a faiss index ({error}).") from error
        if not hasattr(index, "get_xb"):
            raise ArtifactDamaged(f"{path} is not a flat faiss index.")
        if index.ntotal != len(self._store.texts):
            raise ArtifactDamaged(f"{path} holds {index.ntotal} vectors for {len(self._store.texts)} texts.")
        return index
