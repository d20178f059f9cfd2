"""A complete, valid atlas of any size with made-up contents, to see how the explorer bears a large SAE.

Nothing in it is a result: explanations come from a grammar, activations and scores from a random generator, and its
title says so. Tables, files, checksums and the order of rows are those of a true atlas (docs/artifacts.md).

    python -m benchmarks.synthetic_atlas OUT --features 100000
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import pyarrow as pa
import tyro
from jaxtyping import Float32, Int64

from backend.artifact_writer import ArtifactWriter
from backend.artifacts import Artifact
from backend.atlas_schema import ATLAS_TABLES
from backend.errors import ArtifactError
from backend.text_encoders import TextEncoder, load_text_encoder
from benchmarks.synthetic_documents import D_MODEL, TEXT_ENCODER, K, meta_document, summary_document
from benchmarks.synthetic_grammar import N_TOPICS, embeddings
from benchmarks.synthetic_pictures import Exemplars, images_table, synthetic_tables
from benchmarks.synthetic_tables import (
    Plan,
    clusters_table,
    explanations_table,
    features_table,
    neighbours_table,
    plan,
    scores_table,
)

_SPREAD = 0.35
"""Standard deviation of a cluster on the map, where clusters are about 1 apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to make."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder that does not exist yet, or is empty."""
    features: int = 100_000
    """Alive features."""
    seed: int = 0
    """Equal seeds give equal atlases."""


def synthetic_atlas(folder: Path, n_features: int, seed: int = 0, encoder: TextEncoder | None = None) -> Artifact:
    """Write the atlas into ``folder``. ``encoder`` defaults to the packaged MiniLM.

    Raises ArtifactError if the folder holds anything, ValueError without a feature.
    """
    if n_features < 1:
        raise ValueError("an atlas needs at least one feature")
    if folder.exists() and any(folder.iterdir()):
        raise ArtifactError(f"{folder} is not empty. Remove it or choose another place.")
    config = {"synthetic": {"n_features": n_features, "seed": seed}}
    writer = ArtifactWriter(folder, "atlas", 1, config, {})
    made = plan(n_features, seed)
    cluster = _numbered(made.topic)
    places = _places(made, cluster)
    tables = _tables(made, places, cluster)
    for name, table in tables.items():
        writer.write_table(name, table)
    chosen = encoder or load_text_encoder(TEXT_ENCODER)
    vectors = np.concatenate([embeddings(made.codes, chosen), chosen.encode(made.texts[-1:])]).astype(np.float16)
    writer.write_array("embeddings", vectors)
    _write_index(writer, vectors.astype(np.float32))
    _write_sae(writer, made)
    n_kept = int(np.count_nonzero(tables["features"]["quality_kept"].to_numpy()))
    writer.write_json("meta", meta_document(made, n_kept))
    writer.write_json("summary", summary_document(made, tables["explanations"], tables["scores"]))
    return writer.commit({"failures": {"empty answer": int(np.count_nonzero(made.text < 0))}})


def _tables(
    made: Plan, places: Float32[np.ndarray, "feature xy"], cluster: Int64[np.ndarray, " feature"]
) -> dict[str, pa.Table]:
    exemplars = Exemplars(made)
    texts = {"text": list(made.texts), "groups": [None] * len(made.texts)}
    synthetic, activations = synthetic_tables(made)
    return {
        "features": features_table(made, places, cluster),
        "explanations": explanations_table(made),
        "texts": pa.Table.from_pydict(texts, schema=ATLAS_TABLES["texts"]),
        "text_masks": exemplars.text_masks(),
        "scores": scores_table(made),
        "exemplars": exemplars.table(),
        "images": images_table(made),
        "synthetic": synthetic,
        "synthetic_activations": activations,
        "neighbours": neighbours_table(made),
        "clusters": clusters_table(made, places, cluster),
    }


def _numbered(topic: Int64[np.ndarray, " feature"]) -> Int64[np.ndarray, " feature"]:
    """Cluster of every feature: topics in the order of their sizes."""
    sizes = np.bincount(topic, minlength=N_TOPICS)
    order = np.argsort(-sizes, kind="stable")
    number = np.empty(N_TOPICS, np.int64)
    number[order] = np.arange(N_TOPICS)
    return number[topic]


def _places(made: Plan, cluster: Int64[np.ndarray, " feature"]) -> Float32[np.ndarray, "feature xy"]:
    """Clusters on a sunflower spiral, largest in the middle; features around their centres."""
    angle = cluster * np.pi * (3 - 5**0.5)
    radius = np.sqrt(cluster + 0.5)
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    return (centres + made.rng("places").normal(0, _SPREAD, (made.n, 2))).astype(np.float32)


def _write_index(writer: ArtifactWriter, vectors: Float32[np.ndarray, "text d"]) -> None:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    writer.write_with("index.faiss", lambda path: faiss.write_index(index, str(path)))


def _write_sae(writer: ArtifactWriter, made: Plan) -> None:
    """Random unit directions: nothing can be steered with them, because there is no subject."""
    from safetensors.numpy import save

    d_sae = int(made.features[-1]) + 1
    decoder = made.rng("sae").normal(size=(d_sae, D_MODEL)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    weights = {
        "W_enc": np.ascontiguousarray(decoder.T),
        "W_dec": decoder,
        "b_enc": np.zeros(d_sae, np.float32),
        "b_dec": np.zeros(D_MODEL, np.float32),
    }
    writer.write_bytes("sae/sae_weights.safetensors", save(weights))
    config = {"architecture": "topk", "d_in": D_MODEL, "d_sae": d_sae, "k": K, "dtype": "float32"}
    writer.write_json("sae/cfg", config)


def main(settings: Settings) -> None:
    """Make the atlas and say what is in it."""
    started = perf_counter()
    artifact = synthetic_atlas(settings.out, settings.features, settings.seed)
    size = sum(entry.bytes for entry in artifact.manifest.files.values())
    rows = {name: artifact.manifest.files[f"{name}.parquet"].rows for name in ("texts", "exemplars", "scores")}
    told = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    print(f"{artifact.folder}: {settings.features:,} made-up features, {told}")
    print(f"{size / 1e6:.0f} MB in {perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main(tyro.cli(Settings))
