"""FeatureAtlas: an opened atlas with its store, its search and its map. The one thing an explorer needs to browse."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backend.artifacts import Artifact
from backend.atlas_schema import ATLAS_FORMAT, ATLAS_TABLES, check_columns
from backend.errors import ArtifactDamaged, ArtifactStale
from backend.feature_store import ATLAS_KIND, FeatureStore
from backend.map_points import MapPoints, encode
from backend.search import Search
from backend.text_encoders import TextEncoder

_REQUIRED_FILES = ("meta.json", "summary.json", "embeddings.npy", "index.faiss")


def require_format(artifact: Artifact) -> None:
    """Raise ArtifactStale, with the commands that mend it, if an atlas is in another format than this code reads."""
    meta = artifact.json("meta")
    found = meta.get("format")
    if found != ATLAS_FORMAT:
        told = f"format {found}" if found is not None else f"a format before {ATLAS_FORMAT}"
        recipe, folder = meta.get("recipe") or "RECIPE", artifact.folder
        raise ArtifactStale(
            f"The atlas {folder} is in {told}; this code reads format {ATLAS_FORMAT}. Only its last stage has to run "
            f"again: iconoscope run {recipe} --out DIR, with the DIR of its run; for a copied atlas, then: "
            f"iconoscope copy DIR {folder}"
        )


class FeatureAtlas:
    """A complete atlas: ``store`` (records), ``search`` (queries), ``points`` (the map)."""

    def __init__(self, store: FeatureStore, search: Search) -> None:
        self.store = store
        self.search = search

    @classmethod
    def open(cls, path: str | Path, encoder: TextEncoder | None = None, verify: bool = True) -> FeatureAtlas:
        """Open the atlas folder at ``path`` and check files, tables and columns.

        Raises ArtifactMissing, ArtifactDamaged or ArtifactStale.
        """
        artifact = Artifact.open(path, kind=ATLAS_KIND, verify=verify)
        for name in _REQUIRED_FILES:
            artifact.path(name)
        require_format(artifact)
        for name in ATLAS_TABLES:
            check_columns(name, artifact.schema(name), str(artifact.folder))
        store = FeatureStore(artifact)
        n_rows, n_texts = artifact.array("embeddings").shape[0], len(store.texts)
        if n_rows != n_texts:
            raise ArtifactDamaged(f"{artifact.folder}: embeddings.npy has {n_rows} rows for {n_texts} texts.")
        return cls(store, Search(store, encoder))

    @property
    def sae_dir(self) -> Path:
        """Folder of the SAE weights for live steering."""
        return self.store.artifact.path("sae/cfg.json").parent

    def points(self) -> bytes:
        """The map as one binary file (backend/map_points.py); row order is that of the features table."""
        table = self.store.features
        return encode(
            MapPoints(
                ids=table["feature"].to_numpy().astype(np.int64),
                x=table["x"].to_numpy().astype(np.float32),
                y=table["y"].to_numpy().astype(np.float32),
                cluster=table["cluster"].fill_null(-1).to_numpy().astype(np.int64),
                kept=table["quality_kept"].fill_null(False).to_numpy(zero_copy_only=False).astype(bool),
            )
        )
