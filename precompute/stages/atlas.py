"""Stage 5, atlas: everything the explorer needs, in one folder that can be copied anywhere.

One shard embeds the texts, lays out the map by the best ones and names the clusters; the others find in the exemplars
what a range of texts speaks about. Finishing writes the tables of backend/atlas_schema.py, thumbnails, the search index
and the SAE.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from backend.atlas_schema import ATLAS_TABLES
from backend.sae import TopKSAE
from backend.text_encoders import load_text_encoder
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
from precompute.exemplars import ExemplarIndex, ImageCache, alive_features, grid_of
from precompute.judges import open_judges
from precompute.recipe import Recipe, section_science
from precompute.semantic_map import clusters, coordinates, index_bytes, nearest
from precompute.stage import Stage, StageContext
from precompute.subject import open_explainer, open_tower
from precompute.texts import distinct_texts, embed_distinct, images_by_text, rows_of, text_masks, texts_table

MAP_KEY = "map"
TEXTS_PER_SHARD = 64
MASKED_EXEMPLARS = 8
"""Of a feature's explain exemplars so many get the masks of its texts; of its score exemplars all do."""
N_NEIGHBOURS = 12
COMPARED_ARMS = (Method.STEERING.value, "top_k_masks")
"""Arms whose texts are compared for ``agreement``."""


class AtlasStage(Stage):
    """See the module docstring."""

    name = "atlas"
    version = 8
    upstream = ("train_sae", "harvest", "explain", "score")
    keep_shards = False

    def science(self, recipe: Recipe) -> dict[str, Any]:
        encoder = load_text_encoder(recipe.judges.text_encoder)
        judges = open_judges(recipe)
        share = {} if recipe.data.share == "thumbnails" else {"share": recipe.data.share}
        return {
            **share,
            "title": recipe.title,
            "recipe": recipe.name,
            "atlas": section_science(recipe.atlas),
            "text_encoder": encoder.fingerprint,
            "segmenter": judges.segmenter.fingerprint,
            "truth": None if judges.truth is None else judges.truth.fingerprint,
        }

    def shards(self, context: StageContext) -> Sequence[str]:
        n_texts = len(distinct_texts(context.upstream["explain"]))
        return [MAP_KEY, *(f"texts-{start:06d}" for start in range(0, n_texts, TEXTS_PER_SHARD))]

    def run_shard(self, context: StageContext, key: str) -> None:
        with fixed_threads(1):
            if key == MAP_KEY:
                self._map(context)
            else:
                self._masks(context, key)

    def _map(self, context: StageContext) -> None:
        """Embeddings of all texts, and the map of the best ones."""
        features = alive_features(context.upstream["harvest"])
        votes = {row["feature"]: row for row in context.upstream["score"].table("votes").to_pylist()}
        best = [votes[feature]["best_text"] for feature in features]
        texts = distinct_texts(context.upstream["explain"])
        encoder = load_text_encoder(context.recipe.judges.text_encoder)
        with context.progress.track("map", 4) as advance:
            exact = embed_distinct(encoder, texts, best)
            embeddings = exact.astype(np.float16)
            advance(1)
            rows = rows_of(embeddings.astype(np.float32), texts, best)
            places = coordinates(rows, context.recipe.atlas)
            advance(1)
            cluster = clusters(rows, context.recipe.atlas)
            advance(1)
            members = self._members(context, features, best, cluster)
            labels = self._labeler(context).label(members)
            advance(1)
        writer = context.writer
        writer.write_array("embeddings", embeddings, shard=MAP_KEY)
        writer.write_array("best", rows, shard=MAP_KEY)
        writer.write_array("agreement", self._agreement(context, features, texts, exact), shard=MAP_KEY)
        writer.write_array("places", places, shard=MAP_KEY)
        writer.write_array("cluster", cluster.astype(np.int16), shard=MAP_KEY)
        writer.write_table("clusters", clusters_table(cluster, places, labels, top_words(members)), shard=MAP_KEY)

    def _masks(self, context: StageContext, key: str) -> None:
        """What a range of texts speaks about in the exemplars of their features."""
        harvest, recipe = context.upstream["harvest"], context.recipe
        grid, segmenter = grid_of(harvest), open_judges(recipe, context.runtime).segmenter
        counts = {Split.EXPLAIN: min(MASKED_EXEMPLARS, recipe.atlas.n_exemplars), Split.SCORE: recipe.score.n_images}
        images: dict[int, list[str]] = {feature: [] for feature in alive_features(harvest)}
        split_of: dict[str, Split] = {}
        for split, count in counts.items():
            index = ExemplarIndex(harvest, split, "mean", grid)
            for feature, names in images.items():
                names += (found := [exemplar.image_id for exemplar in index.of(feature, count)])
                split_of.update(dict.fromkeys(found, split))
        start = int(key.removeprefix("texts-"))
        texts = distinct_texts(context.upstream["explain"])[start : start + TEXTS_PER_SHARD]
        wanted = images_by_text(context.upstream["explain"].table("explanations"), images)
        caches = {split: ImageCache(open_image_set(recipe, split)) for split in counts}
        rows: list[dict[str, object]] = []
        with context.progress.track("masks (texts)", len(texts)) as advance:
            for text in texts:
                pictures = {name: caches[split_of[name]][name] for name in wanted.get(text, ())}
                rows += text_masks(segmenter, text, pictures, grid, context.runtime.images_per_batch)
                advance(1)
        table = pa.Table.from_pylist(rows, schema=ATLAS_TABLES["text_masks"])
        context.writer.write_table("text_masks", table, shard=key)

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
        return LanguageModelLabeler(open_explainer(context.recipe, context.runtime), context.recipe.atlas.seed)

    def finish(self, context: StageContext) -> Mapping[str, Any]:
        writer, upstream = context.writer, context.upstream
        features = alive_features(upstream["harvest"])
        self._write_texts(context)
        writer.write_table("clusters", cast("clusters", writer.read_table("clusters", MAP_KEY)))
        writer.write_table("explanations", explanations_table(upstream["explain"], upstream["score"]))
        writer.write_table("scores", cast("scores", upstream["score"].table("scores")))
        self._write_pictures(context)
        table = self._write_features(context, features, np.load(writer.path("best.npy", MAP_KEY)))
        n_kept = int(np.count_nonzero(table["quality_kept"].to_numpy()))
        tower = open_tower(context.recipe, context.runtime)
        writer.write_json("meta", meta_document(context, tower, len(features), n_kept))
        summary = upstream["score"].json("summary")
        writer.write_json("summary", {name: summary[name] for name in ("arms", "n_best_texts", "tests")})
        writer.write_tree("sae", lambda folder: _copy_tree(upstream["train_sae"].folder / "sae", folder))
        explained = upstream["score"].manifest.failures
        return {"failures": dict(explained), "notes": {"n_features": len(features)}}

    def _write_texts(self, context: StageContext) -> None:
        """texts.parquet with embeddings and index in its order, and text_masks.parquet."""
        writer = context.writer
        texts = distinct_texts(context.upstream["explain"])
        writer.write_table("texts", texts_table(texts, open_judges(context.recipe).truth))
        embeddings = np.load(writer.path("embeddings.npy", MAP_KEY))
        writer.write_array("embeddings", embeddings)
        writer.write_bytes("index.faiss", index_bytes(embeddings.astype(np.float32)))
        keys = [key for key in context.shard_keys if key != MAP_KEY]
        masks = writer.read_shards("text_masks", keys) if keys else ATLAS_TABLES["text_masks"].empty_table()
        writer.write_table("text_masks", masks)

    def _write_pictures(self, context: StageContext) -> None:
        """Exemplars with their thumbnails, and the generated images."""
        harvest, recipe = context.upstream["harvest"], context.recipe
        counts = {Split.EXPLAIN: recipe.atlas.n_exemplars, Split.SCORE: recipe.score.n_images}
        exemplars = exemplars_table(harvest, grid_of(harvest), counts)
        context.writer.write_table("exemplars", exemplars)
        sets = {split: open_image_set(recipe, split) for split in counts}
        thumbnail_px = recipe.atlas.thumbnail_px if recipe.data.share == "thumbnails" else None
        context.writer.write_table("images", images_table(exemplars, sets, thumbnail_px))
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
            "agreement": [
                None if np.isnan(value) else float(value) for value in np.load(writer.path("agreement.npy", MAP_KEY))
            ],
            "recommended_strength": self._strengths(context, features),
        }
        table = features_table(features, upstream["harvest"], upstream["score"], columns)
        writer.write_table("features", table)
        return table

    def _agreement(
        self,
        context: StageContext,
        features: Sequence[int],
        texts: Sequence[str],
        embeddings: Float32[np.ndarray, "text d"],
    ) -> Float32[np.ndarray, " feature"]:
        """Cosine between the STEERING and the TOP_K (masks) text of each feature; NaN if one is missing."""
        said: dict[str, dict[int, str]] = {arm: {} for arm in COMPARED_ARMS}
        for row in context.upstream["explain"].table("explanations").to_pylist():
            if row["arm"] in said and row["text"] is not None:
                said[row["arm"]][row["feature"]] = row["text"]
        first, second = (rows_of(embeddings, texts, [said[arm].get(one) for one in features]) for arm in COMPARED_ARMS)
        both = [all(feature in said[arm] for arm in COMPARED_ARMS) for feature in features]
        return np.where(both, (first * second).sum(axis=1), np.nan).astype(np.float32)

    def _strengths(self, context: StageContext, features: Sequence[int]) -> list[float | None]:
        """The strength at which STEERING explained each feature, else the recipe's; None where nothing was steered."""
        explain = context.upstream["explain"]
        common = explain.json("strengths").get(Method.STEERING.value)
        if common is None:
            return [None] * len(features)
        own = {
            row["feature"]: row["strength"]
            for row in explain.table("explanations").to_pylist()
            if row["arm"] == Method.STEERING.value and row["strength"] is not None
        }
        return [float(own.get(feature, float(common))) for feature in features]


def _copy_tree(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, target / path.name)


STAGE = AtlasStage()
