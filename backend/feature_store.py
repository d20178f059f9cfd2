"""FeatureStore: the records of an atlas by feature id, read-only and lazy. Knows neither tensors nor models.

Tables are sorted by feature, so the rows of one are a slice. Texts that repeat (arms, metrics, image ids) stay
dictionary-encoded in memory: an atlas of 100,000 features takes hundreds of megabytes, not gigabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int, Int64

from backend.artifacts import Artifact
from backend.atlas_schema import ATLAS_TABLES, MAPPED_TABLES, REPEATED_TEXTS, check_columns
from backend.errors import ArtifactDamaged, UnknownFeature
from backend.feature_records import (
    ClusterRecord,
    ExemplarRecord,
    ExplanationRecord,
    FeatureRecord,
    NeighbourRecord,
    SyntheticRecord,
)
from backend.types import ARM_BY_KEY, Arm, PatchGrid, Score, TruthOutcome

__all__ = [
    "ATLAS_KIND",
    "ClusterRecord",
    "ExemplarRecord",
    "ExplanationRecord",
    "FeatureRecord",
    "FeatureStore",
    "NeighbourRecord",
    "SyntheticRecord",
]
ATLAS_KIND = "atlas"


class FeatureStore:
    """Reads one atlas. Tables load on first use; look-ups by feature are by index, not by scan."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self._tables: dict[str, pa.Table] = {}
        self._rows_of: dict[str, _FeatureRows] = {}
        self._lock = Lock()

    # whole-atlas views -------------------------------------------------------------------------------------------

    @cached_property
    def meta(self) -> Mapping[str, Any]:
        """meta.json: subject, hook point, SAE quality, prompts, metric cards, chance levels."""
        return self.artifact.json("meta")

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """summary.json: per-arm totals with intervals, and the tests between arms."""
        return self.artifact.json("summary")

    @cached_property
    def grid(self) -> PatchGrid:
        """Patch grid of the exemplars."""
        return PatchGrid(rows=int(self.meta["grid"]["rows"]), cols=int(self.meta["grid"]["cols"]))

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The arms of this atlas in the order of its tables."""
        return tuple(self._arm(key) for key in self.meta["arms"])

    @cached_property
    def absent_arms(self) -> Mapping[Arm, str]:
        """Arms that could not be made for this atlas, with the reason; empty for most atlases."""
        absent = self.meta.get("absent_arms") or {}
        return {arm: str(absent[key]) for key, arm in ARM_BY_KEY.items() if key in absent}

    @property
    def steered_model(self) -> Mapping[str, Any]:
        """Entry of meta.json of the model to steer: the explainer if it has the subject's tower, else the subject."""
        explainer = self.meta.get("explainer") or {}
        return explainer if explainer.get("steers") else self.meta.get("subject") or {}

    @property
    def cannot_steer(self) -> str | None:
        """Why no model can be steered along these features, in words; None where one can."""
        model = self.steered_model
        if model.get("answers", True):
            return None
        return (
            f"{model.get('repository') or model.get('name')} is an image encoder without a language model: pictures "
            "can be inspected with it, but it cannot answer, so it cannot be steered"
        )

    @property
    def features(self) -> pa.Table:
        """The features table."""
        return self.table("features")

    @property
    def texts(self) -> pa.Table:
        """The distinct texts of all arms; row order is that of embeddings.npy and index.faiss."""
        return self.table("texts")

    @cached_property
    def feature_ids(self) -> np.ndarray:
        """int32 ids of the alive features, in row order."""
        return self.features["feature"].to_numpy()

    @cached_property
    def clusters(self) -> tuple[ClusterRecord, ...]:
        """The labelled regions of the map."""
        rows = self.table("clusters").to_pylist()
        return tuple(ClusterRecord(**{**row, "top_words": tuple(row["top_words"] or ())}) for row in rows)

    def __len__(self) -> int:
        return len(self.feature_ids)

    def __contains__(self, feature: object) -> bool:
        return feature in self._row_of

    def table(self, name: str) -> pa.Table:
        """A table with its columns checked; texts that repeat come as dictionaries. Raises ArtifactDamaged."""
        if name not in self._tables:
            table = self.artifact.table(name, REPEATED_TEXTS.get(name, ()), mapped=name in MAPPED_TABLES)
            check_columns(name, table.schema, str(self.artifact.folder))
            self._tables[name] = table
        return self._tables[name]

    # by feature --------------------------------------------------------------------------------------------------

    def feature(self, feature: int) -> FeatureRecord:
        """The record of one feature. Raises UnknownFeature."""
        row = self.features.slice(self._row(feature), 1).to_pylist()[0]
        row = {name: row.get(name) for name in ATLAS_TABLES["features"].names}
        for name in ("histogram", "histogram_edges", "truth_terms"):
            row[name] = tuple(row[name] or ())
        row["best_arm"] = None if row["best_arm"] is None else self._arm(row["best_arm"])
        return FeatureRecord(**{name: _absent(value) for name, value in row.items()})

    def explanations(self, feature: int) -> tuple[ExplanationRecord, ...]:
        """Explanations and failures of every arm, in the order of ``arms``. Raises UnknownFeature."""
        records = [self._explanation(row) for row in self._rows("explanations", feature)]
        order = {arm: place for place, arm in enumerate(self.arms)}
        return tuple(sorted(records, key=lambda record: order.get(record.arm, len(order))))

    def scores(self, feature: int) -> Mapping[Arm, tuple[Score, ...]]:
        """Scores by arm. Raises UnknownFeature."""
        found: dict[Arm, list[Score]] = {}
        for row in self._rows("scores", feature):
            names = ("metric", "value", "n", "low", "high", "reason")
            score = Score(**{name: _absent(row[name]) for name in names})
            found.setdefault(self._arm(row["arm"]), []).append(score)
        return {arm: tuple(scores) for arm, scores in found.items()}

    def exemplars(
        self, feature: int, pooling: str = "mean", split: str | None = "explain"
    ) -> tuple[ExemplarRecord, ...]:
        """Exemplars by rank; ``split=None`` takes every split. Raises UnknownFeature."""
        table = self._slice("exemplars", feature)
        grids = table["grid"]
        rows = [
            (place, row)
            for place, row in enumerate(table.drop_columns(["grid"]).to_pylist())
            if row["pooling"] == pooling and (split is None or row["split"] == split)
        ]
        return tuple(
            ExemplarRecord(**row, grid=self._grid(grids[place]))
            for place, row in sorted(rows, key=lambda item: (item[1]["split"], item[1]["rank"]))
        )

    def synthetic(self, feature: int, arm: Arm | str) -> tuple[SyntheticRecord, ...]:
        """Generated images of an arm's explanation with the feature's activations. Raises UnknownFeature."""
        key = arm if isinstance(arm, str) else arm.key
        rows = [row for row in self._rows("synthetic_activations", feature) if row["arm"] == key]
        rows.sort(key=lambda row: row["image_index"])
        found = ((row, self._synthetic_row.get((row["text"], row["image_index"]))) for row in rows)
        images = self.table("synthetic")["webp"]
        return tuple(
            SyntheticRecord(
                text=row["text"],
                image_index=row["image_index"],
                webp=images[place].as_py(),
                activation=_absent(row["activation"]),
            )
            for row, place in found
            if place is not None
        )

    def neighbours(self, feature: int, kind: str) -> tuple[NeighbourRecord, ...]:
        """Nearest features by ``meaning``, ``direction`` or ``coactivation``. Raises UnknownFeature."""
        rows = [row for row in self._rows("neighbours", feature) if row["kind"] == kind]
        return tuple(
            NeighbourRecord(kind=kind, rank=row["rank"], feature=row["neighbour"], value=row["value"])
            for row in sorted(rows, key=lambda row: row["rank"])
        )

    # by text -------------------------------------------------------------------------------------------------------

    def text_row(self, text: str) -> int | None:
        """Row of a text in ``texts`` and embeddings.npy; None if no arm wrote it."""
        return self._text_rows.get(text)

    def text_groups(self, text: str) -> tuple[str, ...] | None:
        """What sorts of thing a text names, e.g. ``animal``; None where that is not known."""
        row = self.text_row(text)
        groups = None if row is None else self.texts["groups"][row].as_py()
        return None if groups is None else tuple(groups)

    def text_mask(self, text: str, image_id: str) -> Bool[np.ndarray, "row col"] | None:
        """The patches of a stored image that a text speaks about; None if its mask is not stored."""
        keys, order = self._mask_keys
        text_row, image_row = self.text_row(text), self._image_row.get(image_id)
        if text_row is None or image_row is None:
            return None
        key = text_row * len(self._image_row) + image_row
        at = int(np.searchsorted(keys, key))
        if at == len(keys) or keys[at] != key:
            return None
        packed = np.frombuffer(self.table("text_masks")["mask"][int(order[at])].as_py(), dtype=np.uint8)
        bits = np.unpackbits(packed)
        n = self.grid.n_patches
        if not n <= bits.size < n + 8:
            raise ArtifactDamaged(f"{self.artifact.folder}: a text mask has {bits.size} bits for {n} patches.")
        return bits[:n].reshape(self.grid.rows, self.grid.cols).astype(bool)

    @cached_property
    def _text_rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.texts["text"].to_pylist())}

    @cached_property
    def _mask_keys(self) -> tuple[Int64[np.ndarray, " mask"], Int64[np.ndarray, " mask"]]:
        """Sorted keys text row x images + image row, and the row of each in text_masks; foreign rows come first."""
        table, images = self.table("text_masks"), pa.array(list(self._image_row), pa.string())
        text, image = (
            places_of(table[name], known).astype(np.int64)
            for name, known in (("text", self.texts["text"].combine_chunks()), ("image_id", images))
        )
        keys = np.where((text < 0) | (image < 0), -1, text * len(images) + image)
        order = np.argsort(keys, kind="stable")
        return keys[order], order

    # images --------------------------------------------------------------------------------------------------------

    def image_bytes(self, image_id: str) -> bytes | None:
        """WebP bytes of a stored image; None where the atlas carries ids alone.

        Raises KeyError: ids come from this atlas's own tables.
        """
        return self.table("images")["webp"][self._image_row[image_id]].as_py()

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        """Ids of all stored images."""
        return tuple(self._image_row)

    @cached_property
    def _image_row(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.table("images")["image_id"].to_pylist())}

    @cached_property
    def _synthetic_row(self) -> dict[tuple[str, int], int]:
        table = self.table("synthetic")
        keys = zip(table["text"].to_pylist(), table["image_index"].to_pylist(), strict=True)
        return {key: row for row, key in enumerate(keys)}

    # inside --------------------------------------------------------------------------------------------------------

    @cached_property
    def _row_of(self) -> dict[int, int]:
        return {int(feature): row for row, feature in enumerate(self.feature_ids)}

    def _row(self, feature: int) -> int:
        row = self._row_of.get(feature)
        if row is None:
            raise UnknownFeature(
                f"There is no feature {feature} in this atlas: it has {len(self)} features of an SAE with "
                f"{self.meta['sae']['d_sae']}; the others never fire or the id is wrong."
            )
        return row

    def _rows(self, name: str, feature: int) -> list[dict[str, Any]]:
        """The rows of one feature in table order. Raises UnknownFeature."""
        return self._slice(name, feature).to_pylist()

    def _slice(self, name: str, feature: int) -> pa.Table:
        """The same as a table without copying."""
        self._row(feature)
        with self._lock:
            if name not in self._rows_of:
                self._rows_of[name] = _FeatureRows(self.table(name))
        return self._rows_of[name].of(feature)

    def _explanation(self, row: Mapping[str, Any]) -> ExplanationRecord:
        return ExplanationRecord(
            feature=row["feature"],
            arm=self._arm(row["arm"]),
            text=row["text"],
            raw_text=row["raw_text"] or "",
            failure=row["failure"],
            strength=_absent(row["strength"]),
            n_patches_edited=row["n_patches_edited"],
            image_ids=tuple(row["image_ids"] or ()),
            truth_outcome=TruthOutcome(row["truth_outcome"] or TruthOutcome.UNDECIDABLE),
            is_best=bool(row["is_best"]),
        )

    def _grid(self, values: pa.ListScalar) -> Float[np.ndarray, "row col"]:
        flat = values.values.to_numpy(zero_copy_only=False).astype(np.float32)
        if flat.size != self.grid.n_patches:
            raise ArtifactDamaged(
                f"{self.artifact.folder}: an exemplar has {flat.size} patches, the grid {self.grid.n_patches}."
            )
        return flat.reshape(self.grid.rows, self.grid.cols)

    def _arm(self, key: str) -> Arm:
        if key not in ARM_BY_KEY:
            raise ArtifactDamaged(f"{self.artifact.folder}: unknown explanation method {key!r}.")
        return ARM_BY_KEY[key]


class _FeatureRows:
    """The rows of a table by feature: slices of it, after sorting it where it is not sorted by feature."""

    def __init__(self, table: pa.Table) -> None:
        feature = table["feature"].to_numpy()
        if not bool((feature[1:] >= feature[:-1]).all()):
            order = np.argsort(feature, kind="stable")
            table, feature = table.take(pa.array(order)), feature[order]
        firsts = np.flatnonzero(np.diff(feature, prepend=feature[:1] - 1))
        self._features = feature[firsts]
        self._bounds = np.append(firsts, len(feature))
        self._schema = table.schema
        # A slice of a batch takes microseconds; one of a table goes through every chunk of every column.
        self._batches = table.to_batches()
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])

    def of(self, feature: int) -> pa.Table:
        at = int(np.searchsorted(self._features, self._features.dtype.type(feature)))
        known = at < len(self._features) and int(self._features[at]) == feature
        start, stop = (int(self._bounds[at]), int(self._bounds[at + 1])) if known else (0, 0)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        while start < stop:
            within = start - int(self._starts[first])
            parts.append(self._batches[first].slice(within, stop - start))
            start += len(parts[-1])
            first += 1
        return pa.Table.from_batches(parts, self._schema)


def places_of(values: pa.ChunkedArray, known: pa.Array) -> Int[np.ndarray, " row"]:
    """Where each value stands among the known ones; -1 for others and for null."""
    found = pc.index_in(values, value_set=known)  # pyright: ignore[reportAttributeAccessIssue]
    return pc.fill_null(found, -1).to_numpy()


def _absent(value: Any) -> Any:
    """NaN becomes None, so that a missing number cannot be drawn or averaged by mistake."""
    return None if isinstance(value, float) and value != value else value
