"""The tables of an atlas, put together from the artifacts of the earlier stages. Rows are joined by feature id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Float32, Int
from PIL import Image

from backend.artifacts import Artifact
from backend.atlas_schema import ATLAS_TABLES
from backend.types import ARMS, PatchGrid, Split
from precompute.datasets import ImageSet
from precompute.exemplars import ImageCache, alive_features
from precompute.synthesis import webp_bytes

THUMBNAIL_QUALITY = 62
"""WebP quality of thumbnails: a page shows dozens, and a repository carries them."""
_LARGEST_HALF = float(np.finfo(np.float16).max)
DESCRIBING = {Split.EXPLAIN: ("mean", "max", "decile"), Split.SCORE: ("mean",)}
"""Exemplars that an atlas carries."""
N_DECILES = 10
SILENT = "silent"
"""Pooling of the images on which a feature does not fire at all; they are drawn from the scoring images."""
_SILENT_SEED = 2603_22593


def cast(name: str, table: pa.Table) -> pa.Table:
    """``table`` in the columns, order and types of the atlas schema."""
    schema = ATLAS_TABLES[name]
    return table.select(schema.names).cast(schema)


def from_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as the atlas table ``name``."""
    return pa.Table.from_pylist(list(rows), schema=ATLAS_TABLES[name])


def explanations_table(explain: Artifact, score: Artifact) -> pa.Table:
    """Every explanation and failure, with its verdict and whether it was voted best."""
    outcomes = {(row["feature"], row["arm"]): row["truth_outcome"] for row in score.table("outcomes").to_pylist()}
    best = {row["feature"]: row["best_arm"] for row in score.table("votes").to_pylist()}
    order = {arm.key: place for place, arm in enumerate(ARMS)}
    rows = [
        {
            **row,
            "truth_outcome": outcomes[row["feature"], row["arm"]],
            "is_best": best.get(row["feature"]) == row["arm"],
        }
        for row in explain.table("explanations").to_pylist()
    ]
    return from_rows("explanations", sorted(rows, key=lambda row: (row["feature"], order[row["arm"]])))


def exemplars_table(harvest: Artifact, grid: PatchGrid, counts: Mapping[Split, int]) -> pa.Table:
    """Exemplars with dense activation grids: ``counts`` of them per feature, split and pooling, and all deciles."""
    table = harvest.table("exemplars")
    wanted = None
    for split, poolings in DESCRIBING.items():
        for pooling in poolings:
            limit = N_DECILES if pooling == "decile" else counts[split]
            here = (pc.field("split") == split.value) & (pc.field("pooling") == pooling) & (pc.field("rank") < limit)
            wanted = here if wanted is None else wanted | here
    table = table.filter(wanted).combine_chunks()
    shown = cast("exemplars", table.append_column("grid", _dense_grids(table, grid)))
    together = pa.concat_tables([shown, silent_table(harvest, grid, counts[Split.SCORE])])
    return together.sort_by([(name, "ascending") for name in ("feature", "split", "pooling", "rank")])


def silent_table(harvest: Artifact, grid: PatchGrid, n: int) -> pa.Table:
    """Up to ``n`` scoring images per alive feature on which no patch of it is active, drawn by a fixed seed.

    Who explains a feature should also be right about where it does not fire; these pictures let a visitor check that.
    """
    images = [row for row in harvest.table("images").to_pylist() if row["split"] == Split.SCORE.value]
    pooled = harvest.array(f"pooled_{Split.SCORE.value}")
    zeros = np.zeros(grid.n_patches, np.float16)
    rows = []
    for feature in alive_features(harvest):
        quiet = [row["image_id"] for row in images if pooled[row["row"], feature] == 0]
        drawn = np.random.default_rng([_SILENT_SEED, feature]).permutation(len(quiet))[:n]
        rows += [
            {
                "feature": feature,
                "split": Split.SCORE.value,
                "pooling": SILENT,
                "rank": rank,
                "image_id": quiet[place],
                "activation_mean": 0.0,
                "activation_max": 0.0,
                "grid": zeros,
            }
            for rank, place in enumerate(drawn.tolist())
        ]
    return from_rows("exemplars", rows)


def _dense_grids(table: pa.Table, grid: PatchGrid) -> pa.ListArray:
    patches, values = (table[name].combine_chunks() for name in ("patches", "values"))
    lengths = np.diff(patches.offsets.to_numpy())
    dense = np.zeros((len(table), grid.n_patches), dtype=np.float16)
    clipped = np.minimum(values.flatten().to_numpy(), _LARGEST_HALF)
    dense[np.repeat(np.arange(len(table)), lengths), patches.flatten().to_numpy()] = clipped
    offsets = np.arange(len(table) + 1, dtype=np.int32) * grid.n_patches
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(dense.ravel()))


def images_table(exemplars: pa.Table, sets: Mapping[Split, ImageSet], thumbnail_px: int | None) -> pa.Table:
    """Thumbnails of every image an exemplar names; width and height are those of the full image.

    With ``thumbnail_px`` None no picture is opened, and the table holds the ids alone. Raises ImageUnreadable.
    """
    named = sorted(set(zip(exemplars["image_id"].to_pylist(), exemplars["split"].to_pylist(), strict=True)))
    rows = []
    caches = {split: ImageCache(images, limit=0) for split, images in sets.items()}
    for image_id, split in named:
        if thumbnail_px is None:
            rows.append({"image_id": image_id, "split": split, "webp": None, "width": None, "height": None})
            continue
        image = caches[Split(split)][image_id]
        rows.append(
            {
                "image_id": image_id,
                "split": split,
                "webp": webp_bytes(thumbnail(image, thumbnail_px), THUMBNAIL_QUALITY),
                "width": image.width,
                "height": image.height,
            }
        )
    return from_rows("images", rows)


def thumbnail(image: Image.Image, side_px: int) -> Image.Image:
    """The picture reduced to at most ``side_px`` on its longer side; never enlarged."""
    if max(image.size) <= side_px:
        return image
    reduced = image.copy()
    reduced.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return reduced


def synthetic_tables(score: Artifact) -> tuple[pa.Table, pa.Table]:
    """Generated images and activations of the explanation arms; those of controls stay in the score artifact."""
    activations = score.table("synthetic_activations")
    activations = activations.filter(pc.field("arm").isin([arm.key for arm in ARMS if not arm.is_control]))
    if not score.has("synthetic"):
        return from_rows("synthetic", []), cast("synthetic_activations", activations)
    synthetic = score.table("synthetic")
    synthetic = synthetic.filter(pc.field("text").isin(activations["text"].unique()))
    return cast("synthetic", synthetic), cast("synthetic_activations", activations)


def neighbours_table(
    features: Sequence[int],
    found: Mapping[str, tuple[Int[np.ndarray, "feature neighbour"], Float[np.ndarray, "feature neighbour"]]],
    coactivation: pa.Table,
) -> pa.Table:
    """Nearest features by meaning and direction (places into ``features``), and by coactivation (ids)."""
    ids = np.asarray(features, dtype=np.int32)
    parts = []
    for kind, (places, values) in found.items():
        n, count = places.shape
        parts.append(
            pa.table(
                {
                    "feature": np.repeat(ids, count),
                    "kind": [kind] * (n * count),
                    "rank": np.tile(np.arange(count, dtype=np.int32), n),
                    "neighbour": ids[places.ravel()],
                    "value": values.ravel().astype(np.float32),
                }
            )
        )
    together = coactivation.append_column("kind", pa.array(["coactivation"] * len(coactivation)))
    table = pa.concat_tables([cast("neighbours", part) for part in (*parts, together)])
    return table.take(pa.array(np.argsort(table["feature"].to_numpy(), kind="stable")))


def features_table(
    features: Sequence[int],
    harvest: Artifact,
    score: Artifact,
    columns: Mapping[str, Sequence[Any] | np.ndarray],
) -> pa.Table:
    """One row per alive feature; ``columns`` are in the order of ``features`` (map, agreement, strength, norm)."""
    stored = {row["feature"]: row for row in harvest.table("features").to_pylist()}
    truth = {row["feature"]: row for row in score.table("truth").to_pylist()} if score.has("truth") else {}
    votes = {row["feature"]: row for row in score.table("votes").to_pylist()}
    rows = []
    for place, feature in enumerate(features):
        known = truth.get(feature, {})
        rows.append(
            {
                **{name: stored[feature][name] for name in ATLAS_TABLES["features"].names if name in stored[feature]},
                "truth_concept": known.get("concept"),
                "truth_ap": known.get("average_precision"),
                "truth_ap_low": known.get("low"),
                "truth_ap_high": known.get("high"),
                "truth_n_images": known.get("n_images"),
                "truth_group": known.get("family"),
                "truth_terms": known.get("terms") or [],
                "best_arm": votes[feature]["best_arm"],
                "best_text": votes[feature]["best_text"],
                "quality_kept": votes[feature]["quality_kept"],
                **{name: _item(column[place]) for name, column in columns.items()},
            }
        )
    return from_rows("features", rows)


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def clusters_table(
    cluster: Int[np.ndarray, " feature"],
    places: Float32[np.ndarray, "feature xy"],
    labels: Mapping[int, str],
    words: Mapping[int, Sequence[str]],
) -> pa.Table:
    """One row per cluster; it lies at the median of its members."""
    rows = []
    for key in sorted(labels):
        members = places[cluster == key]
        x, y = np.median(members, axis=0)
        rows.append(
            {
                "cluster": key,
                "label": labels[key],
                "x": float(x),
                "y": float(y),
                "n_features": len(members),
                "top_words": list(words[key]),
            }
        )
    return from_rows("clusters", rows)
