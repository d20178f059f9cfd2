"""The map: coordinates, clusters and neighbours of features from the embeddings of their best explanations.

Everything runs on one thread with fixed seeds: parallel float sums would differ from run to run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int
from sklearn.cluster import KMeans

from backend.errors import DependencyMissing
from precompute.recipe import AtlasSection

_BLOCK_ROWS = 1024
_RESTARTS = 10
_FEW = 4
"""With so few features there is nothing to project: they are laid on a line."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def _optional(module: str, package: str) -> Any:
    try:
        with warnings.catch_warnings():
            # UMAP warns at import that its TensorFlow variant, which nobody asked for, is not there.
            warnings.simplefilter("ignore", ImportWarning)
            return import_module(module)
    except ImportError as error:
        raise DependencyMissing(f"{package} cannot be imported ({error}). Install it: pip install {package}") from error


def coordinates(embeddings: Float32[np.ndarray, "feature d"], atlas: AtlasSection) -> Float32[np.ndarray, "feature xy"]:
    """UMAP of the embeddings (cosine), by the recipe's seed. Equal texts get different, neighbouring places."""
    n = len(embeddings)
    if n <= _FEW:
        return np.stack([np.arange(n), np.zeros(n)], axis=1).astype(np.float32)
    umap = _optional("umap", "umap-learn")
    projection = umap.UMAP(
        n_components=2,
        n_neighbors=min(atlas.umap_neighbors, n - 1),
        min_dist=atlas.umap_min_dist,
        metric="cosine",
        random_state=atlas.seed,
        n_jobs=1,
        # Not "spectral": its eigenvectors start anew from unseeded random numbers where texts repeat (SciPy 1.17).
        init="pca" if n > 3 * _FEW else "random",
    )
    with one_thread():
        return np.asarray(projection.fit_transform(embeddings), dtype=np.float32)


def clusters(embeddings: Float32[np.ndarray, "feature d"], atlas: AtlasSection) -> Int[np.ndarray, " feature"]:
    """k-means of the embeddings; clusters are numbered from the largest to the smallest."""
    n_distinct = len(np.unique(embeddings.round(4), axis=0))
    n_clusters = min(atlas.n_clusters, n_distinct)
    with one_thread():
        means = KMeans(n_clusters=n_clusters, n_init=_RESTARTS, random_state=atlas.seed)  # pyright: ignore[reportArgumentType]
        labels = means.fit_predict(embeddings)
    sizes = np.bincount(labels, minlength=n_clusters)
    first = np.array([np.flatnonzero(labels == cluster)[0] if sizes[cluster] else n for cluster, n in enumerate(sizes)])
    order = np.lexsort((first, -sizes))
    renumbered = np.empty(n_clusters, dtype=np.int64)
    renumbered[order] = np.arange(n_clusters)
    return renumbered[labels]


def nearest(
    rows: Float32[np.ndarray, "feature d"],
    n_neighbours: int,
    tie_break: Float32[np.ndarray, "feature e"] | None = None,
) -> tuple[Int[np.ndarray, "feature neighbour"], Float[np.ndarray, "feature neighbour"]]:
    """For each unit row the others with the highest cosine, best first.

    Equal cosines (features with the same words) are ordered by the cosine in ``tie_break``, then by place.
    """
    n = len(rows)
    count = min(n_neighbours, max(n - 1, 0))
    places, values = np.empty((n, count), np.int64), np.empty((n, count), np.float32)
    with one_thread():
        for start in range(0, n, _BLOCK_ROWS):
            block = slice(start, min(start + _BLOCK_ROWS, n))
            cosine = (rows[block] @ rows.T).round(4)
            within = np.arange(block.stop - start)
            cosine[within, within + start] = -np.inf
            second = tie_break[block] @ tie_break.T if tie_break is not None else np.zeros_like(cosine)
            order = np.lexsort((-second, -cosine), axis=1)[:, :count]
            places[block] = order
            values[block] = np.take_along_axis(cosine, order, axis=1)
    return places, values


def index_bytes(embeddings: Float32[np.ndarray, "feature d"]) -> bytes:
    """A flat inner-product faiss index of the rows, as a file."""
    faiss = _optional("faiss", "faiss-cpu")
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(np.ascontiguousarray(embeddings, dtype=np.float32))
    return faiss.serialize_index(index).tobytes()
