"""Stage 5, atlas: everything the explorer needs, in one folder that can be copied anywhere.

One shard embeds the best explanations, lays out the map and names the clusters; finishing writes the tables of
backend/atlas_schema.py, thumbnails, the search index and the SAE.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from backend.sae import TopKSAE
from backend.search import load_text_encoder
from backend.types import Method, Split
from precompute.atlas_meta import meta_document
from precompute.atlas_tables import (
    cast,
    clusters_table,
    exemplars_table,
    explanations_table,
    features_table,
    images_table,
    neighbours_table,
    synthetic_tables,
)
from precompute.cluster_labels import ClusterLabeler, ClusterMember, LanguageModelLabeler, TruthLabeler, top_words
from precompute.datasets import open_image_set
from precompute.encoding import fixed_threads
from precompute.exemplars import alive_features, grid_of
from precompute.judges import open_judges
from precompute.recipe import Recipe, section_science
from precompute.semantic_map import clusters, coordinates, index_bytes, nearest
from precompute.stage import Stage, StageContext
from precompute.subject import open_subject

MAP_KEY = "map"
N_NEIGHBOURS = 12
COMPARED_ARMS = (Method.STEERING.value, "top_k_masks")
"""Arms whose texts are compared for ``agreement``."""


def embed_texts(encoder_name: str, texts: Sequence[str | None]) -> Float32[np.ndarray, "text d"]:
    """Unit rows, one per text; a missing text has a row of zeros, which is near nothing."""
    distinct = sorted({text for text in texts if text})
    rows = load_text_encoder(encoder_name).encode(distinct) if distinct else np.zeros((0, 1), np.float32)
    place = {text: row for row, text in enumerate(distinct)}
    empty = np.zeros(rows.shape[1], np.float32)
    return np.stack([rows[place[text]] if text else empty for text in texts]).astype(np.float32)


class AtlasStage(Stage):
    """See the module docstring."""

    name = "atlas"
    version = 3
    upstream = ("train_sae", "harvest", "explain", "score")
    keep_shards = False

    def science(self, recipe: Recipe) -> dict[str, Any]:
        encoder = load_text_encoder(recipe.judges.text_encoder)
        title = {"title": recipe.title, "recipe": recipe.name}
        return {**title, "atlas": section_science(recipe.atlas), "text_encoder": encoder.fingerprint}

    def shards(self, context: StageContext) -> Sequence[str]:
        del context  # the map needs all features at once
        return [MAP_KEY]

    def run_shard(self, context: StageContext, key: str) -> None:
        features = alive_features(context.upstream["harvest"])
        votes = {row["feature"]: row for row in context.upstream["score"].table("votes").to_pylist()}
        best = [votes[feature]["best_text"] for feature in features]
        with fixed_threads(1), context.progress.track("map", 4) as advance:
            embeddings = embed_texts(context.recipe.judges.text_encoder, best).astype(np.float16)
            advance(1)
            rows = embeddings.astype(np.float32)
            places = coordinates(rows, context.recipe.atlas)
            advance(1)
            cluster = clusters(rows, context.recipe.atlas)
            advance(1)
            members = self._members(context, features, best, cluster)
            labels = self._labeler(context).label(members)
            advance(1)
        writer = context.writer
        writer.write_array("embeddings", embeddings, shard=key)
        writer.write_array("places", places, shard=key)
        writer.write_array("cluster", cluster.astype(np.int16), shard=key)
        writer.write_table("clusters", clusters_table(cluster, places, labels, top_words(members)), shard=key)

    def _members(
        self, context: StageContext, features: Sequence[int], best: Sequence[str | None], cluster: np.ndarray
    ) -> dict[int, list[ClusterMember]]:
        score = context.upstream["score"]
        known = score.table("truth").to_pylist() if score.has("truth") else []
        truth = {row["feature"]: row["concept"] for row in known}
        members: dict[int, list[ClusterMember]] = {}
        for feature, text, key in zip(features, best, cluster.tolist(), strict=True):
            members.setdefault(key, []).append(ClusterMember(text=text, concept=truth.get(feature)))
        return dict(sorted(members.items()))

    def _labeler(self, context: StageContext) -> ClusterLabeler:
        oracle = open_judges(context.recipe).truth
        if oracle is not None:
            return TruthLabeler(oracle)
        return LanguageModelLabeler(open_subject(context.recipe, context.runtime), context.recipe.atlas.seed)

    def finish(self, context: StageContext) -> Mapping[str, Any]:
        writer, upstream = context.writer, context.upstream
        features = alive_features(upstream["harvest"])
        embeddings = np.load(writer.path("embeddings.npy", MAP_KEY))
        writer.write_array("embeddings", embeddings)
        writer.write_bytes("index.faiss", index_bytes(embeddings.astype(np.float32)))
        writer.write_table("clusters", cast("clusters", writer.read_table("clusters", MAP_KEY)))
        writer.write_table("explanations", explanations_table(upstream["explain"], upstream["score"]))
        writer.write_table("scores", cast("scores", upstream["score"].table("scores")))
        self._write_pictures(context)
        table = self._write_features(context, features, embeddings.astype(np.float32))
        n_kept = int(np.count_nonzero(table["quality_kept"].to_numpy()))
        subject = open_subject(context.recipe, context.runtime)
        writer.write_json("meta", meta_document(context, subject, len(features), n_kept))
        summary = upstream["score"].json("summary")
        writer.write_json("summary", {"arms": summary["arms"], "tests": summary["tests"]})
        writer.write_tree("sae", lambda folder: _copy_tree(upstream["train_sae"].folder / "sae", folder))
        explained = upstream["score"].manifest.failures
        return {"failures": dict(explained), "notes": {"n_features": len(features)}}

    def _write_pictures(self, context: StageContext) -> None:
        """Exemplars with their thumbnails, and the generated images."""
        harvest, recipe = context.upstream["harvest"], context.recipe
        counts = {Split.EXPLAIN: recipe.atlas.n_exemplars, Split.SCORE: recipe.score.n_images}
        exemplars = exemplars_table(harvest, grid_of(harvest), counts)
        context.writer.write_table("exemplars", exemplars)
        sets = {split: open_image_set(recipe, split) for split in counts}
        context.writer.write_table("images", images_table(exemplars, sets, recipe.atlas.thumbnail_px))
        synthetic, activations = synthetic_tables(context.upstream["score"])
        context.writer.write_table("synthetic", synthetic)
        context.writer.write_table("synthetic_activations", activations)

    def _write_features(
        self, context: StageContext, features: Sequence[int], embeddings: Float32[np.ndarray, "feature d"]
    ) -> pa.Table:
        """features.parquet and neighbours.parquet."""
        writer, upstream = context.writer, context.upstream
        sae = TopKSAE.load(upstream["train_sae"].folder / "sae")
        directions = sae.W_dec[list(features)].numpy()
        found = {
            "meaning": nearest(embeddings, N_NEIGHBOURS, directions),
            "direction": nearest(directions, N_NEIGHBOURS),
        }
        coactivation = upstream["harvest"].table("coactivation")
        writer.write_table("neighbours", neighbours_table(features, found, coactivation))
        places = np.load(writer.path("places.npy", MAP_KEY))
        columns = {
            "x": places[:, 0],
            "y": places[:, 1],
            "cluster": np.load(writer.path("cluster.npy", MAP_KEY)),
            "decoder_norm": np.linalg.norm(directions, axis=1),
            "agreement": self._agreement(context, features),
            "recommended_strength": self._strengths(context, features),
        }
        table = features_table(features, upstream["harvest"], upstream["score"], columns)
        writer.write_table("features", table)
        return table

    def _agreement(self, context: StageContext, features: Sequence[int]) -> list[float | None]:
        """Cosine between the STEERING and the TOP_K (masks) text of each feature; None if one is missing."""
        texts: dict[str, dict[int, str]] = {arm: {} for arm in COMPARED_ARMS}
        for row in context.upstream["explain"].table("explanations").to_pylist():
            if row["arm"] in texts and row["text"] is not None:
                texts[row["arm"]][row["feature"]] = row["text"]
        encoder = context.recipe.judges.text_encoder
        with fixed_threads(1):
            first, second = (embed_texts(encoder, [texts[arm].get(one) for one in features]) for arm in COMPARED_ARMS)
        cosine = (first * second).sum(axis=1)
        both = [all(feature in texts[arm] for arm in COMPARED_ARMS) for feature in features]
        return [float(value) if known else None for value, known in zip(cosine, both, strict=True)]

    def _strengths(self, context: StageContext, features: Sequence[int]) -> list[float]:
        """The strength at which STEERING explained each feature; the recipe's where it has none."""
        explain = context.upstream["explain"]
        common = float(explain.json("strengths")[Method.STEERING.value])
        own = {
            row["feature"]: row["strength"]
            for row in explain.table("explanations").to_pylist()
            if row["arm"] == Method.STEERING.value and row["strength"] is not None
        }
        return [float(own.get(feature, common)) for feature in features]


def _copy_tree(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, target / path.name)


STAGE = AtlasStage()
