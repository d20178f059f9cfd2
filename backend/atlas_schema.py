"""The tables of an atlas: columns and types, as docs/artifacts.md states them (a test compares the two).

Whoever writes an atlas casts to these schemas; whoever reads one checks against them. Column order is part of it.
"""

from __future__ import annotations

import pyarrow as pa

from backend.errors import ArtifactDamaged

ATLAS_FORMAT = 5
"""Version of the tables and files of an atlas, in its meta.json as ``format``. Atlases before 4 do not name theirs."""
_STRINGS = pa.list_(pa.string())

ATLAS_TABLES: dict[str, pa.Schema] = {
    "features": pa.schema(
        [
            ("feature", pa.int32()),
            ("x", pa.float32()),
            ("y", pa.float32()),
            ("cluster", pa.int16()),
            ("firing_fraction", pa.float32()),
            ("mean_when_active", pa.float32()),
            ("maximum", pa.float32()),
            ("n_images_active", pa.int32()),
            ("histogram", pa.list_(pa.int32())),
            ("histogram_edges", pa.list_(pa.float32())),
            ("decoder_norm", pa.float32()),
            ("truth_concept", pa.string()),
            ("truth_ap", pa.float32()),
            ("truth_ap_low", pa.float32()),
            ("truth_ap_high", pa.float32()),
            ("truth_n_images", pa.int32()),
            ("truth_group", pa.string()),
            ("truth_terms", _STRINGS),
            ("best_arm", pa.string()),
            ("best_text", pa.string()),
            ("agreement", pa.float32()),
            ("quality_kept", pa.bool_()),
            ("recommended_strength", pa.float32()),
        ]
    ),
    "explanations": pa.schema(
        [
            ("feature", pa.int32()),
            ("arm", pa.string()),
            ("text", pa.string()),
            ("raw_text", pa.string()),
            ("failure", pa.string()),
            ("strength", pa.float32()),
            ("n_patches_edited", pa.int32()),
            ("image_ids", _STRINGS),
            ("truth_outcome", pa.string()),
            ("is_best", pa.bool_()),
        ]
    ),
    "texts": pa.schema([("text", pa.string()), ("groups", _STRINGS)]),
    "text_masks": pa.schema([("text", pa.string()), ("image_id", pa.string()), ("mask", pa.binary())]),
    "scores": pa.schema(
        [
            ("feature", pa.int32()),
            ("arm", pa.string()),
            ("metric", pa.string()),
            ("value", pa.float32()),
            ("n", pa.int32()),
            ("low", pa.float32()),
            ("high", pa.float32()),
            ("reason", pa.string()),
        ]
    ),
    "exemplars": pa.schema(
        [
            ("feature", pa.int32()),
            ("split", pa.string()),
            ("pooling", pa.string()),
            ("rank", pa.int32()),
            ("image_id", pa.string()),
            ("activation_mean", pa.float32()),
            ("activation_max", pa.float32()),
            ("grid", pa.list_(pa.float16())),
        ]
    ),
    "images": pa.schema(
        [
            ("image_id", pa.string()),
            ("split", pa.string()),
            ("webp", pa.binary()),
            ("width", pa.int32()),
            ("height", pa.int32()),
        ]
    ),
    "synthetic": pa.schema([("text", pa.string()), ("image_index", pa.int32()), ("webp", pa.binary())]),
    "synthetic_activations": pa.schema(
        [
            ("feature", pa.int32()),
            ("arm", pa.string()),
            ("text", pa.string()),
            ("image_index", pa.int32()),
            ("activation", pa.float32()),
        ]
    ),
    "neighbours": pa.schema(
        [
            ("feature", pa.int32()),
            ("kind", pa.string()),
            ("rank", pa.int32()),
            ("neighbour", pa.int32()),
            ("value", pa.float32()),
        ]
    ),
    "clusters": pa.schema(
        [
            ("cluster", pa.int16()),
            ("label", pa.string()),
            ("x", pa.float32()),
            ("y", pa.float32()),
            ("n_features", pa.int32()),
            ("top_words", _STRINGS),
        ]
    ),
}
OPTIONAL_COLUMNS = frozenset({("features", "decoder_norm"), ("features", "truth_terms")})
"""Columns a reader does without: their values count as absent."""
NEIGHBOUR_KINDS: tuple[str, ...] = ("meaning", "direction", "coactivation")


REPEATED_TEXTS: dict[str, tuple[str, ...]] = {
    "explanations": ("arm", "text", "raw_text", "failure", "truth_outcome"),
    "text_masks": ("text", "image_id"),
    "scores": ("arm", "metric", "reason"),
    "exemplars": ("split", "pooling", "image_id"),
    "synthetic_activations": ("arm", "text"),
    "neighbours": ("kind",),
}
"""Columns by table whose texts repeat: a reader may keep them as dictionaries."""

MAPPED_TABLES = frozenset({"exemplars", "images", "synthetic", "text_masks"})
"""Tables of pictures, grids and masks: large, and read a few rows at a time."""


def check_columns(name: str, schema: pa.Schema, where: str) -> None:
    """Raise ArtifactDamaged if the schema of a table lacks a column or holds it in an incompatible type."""
    for column in ATLAS_TABLES[name]:
        if column.name not in schema.names:
            if (name, column.name) in OPTIONAL_COLUMNS:
                continue
            raise ArtifactDamaged(f"{where}: table {name!r} has no column {column.name!r}.")
        found = schema.field(column.name).type
        if _family(found) != _family(column.type):
            raise ArtifactDamaged(
                f"{where}: column {name}.{column.name} has type {found} where {column.type} was expected."
            )


def _family(kind: pa.DataType) -> str:
    """Types that a reader may exchange freely: widths and offsets do not matter, and an all-null column fits any."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list of {_family(kind.value_type)}"
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    tests = {
        "integer": pa.types.is_integer,
        "float": pa.types.is_floating,
        "text": lambda item: pa.types.is_string(item) or pa.types.is_large_string(item),
        "bytes": lambda item: pa.types.is_binary(item) or pa.types.is_large_binary(item),
        "boolean": pa.types.is_boolean,
    }
    return next((name for name, test in tests.items() if test(kind)), str(kind))
