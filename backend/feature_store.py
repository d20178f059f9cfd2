"""FeatureStore: the records of an atlas by feature id, read-only and lazy. Knows neither tensors nor models.

Every record is frozen and plain; absent values are None (never 0, never NaN).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from backend.artifacts import Artifact
from backend.atlas_schema import ATLAS_TABLES, check_columns
from backend.errors import ArtifactDamaged, UnknownFeature
from backend.types import ARM_BY_KEY, Arm, PatchGrid, Score, TruthOutcome

ATLAS_KIND = "atlas"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRecord:
    """One alive feature of the SAE. Activations are in the SAE's own units (residual-stream L2)."""

    feature: int
    x: float
    y: float
    cluster: int
    firing_fraction: float
    """Share of patches with an activation above 0, in [0, 1]."""
    mean_when_active: float
    maximum: float
    n_images_active: int
    histogram: tuple[int, ...]
    """Counts of active patches per bin."""
    histogram_edges: tuple[float, ...]
    """Bin edges, one more than there are bins."""
    decoder_norm: float | None
    truth_concept: str | None
    truth_ap: float | None
    """Average precision of the activation against the concept's exact masks, in [0, 1]."""
    truth_group: str | None
    truth_terms: tuple[str, ...]
    """Concept name, family and hypernyms: the words under which the truth can be searched."""
    best_arm: Arm | None
    best_text: str | None
    agreement: float | None
    """Cosine between the embeddings of the STEERING and the Top-k (masks) text, in [-1, 1]."""
    quality_kept: bool
    recommended_strength: float | None
    """For steering, in residual-stream L2 units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationRecord:
    """What one arm wrote for one feature: ``text`` or the reason of its failure."""

    feature: int
    arm: Arm
    text: str | None
    raw_text: str
    failure: str | None
    strength: float | None
    n_patches_edited: int | None
    image_ids: tuple[str, ...]
    truth_outcome: TruthOutcome
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemplarRecord:
    """An image on which a feature is active, with its activation per patch."""

    feature: int
    split: str
    pooling: str
    rank: int
    image_id: str
    activation_mean: float
    activation_max: float
    grid: Float[np.ndarray, "row col"]
    """float32 activation of the feature at each patch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticRecord:
    """An image generated from an explanation and the feature's activation on it (None: not measured)."""

    text: str
    image_index: int
    webp: bytes
    activation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourRecord:
    """A feature near another by ``kind``: cosine of meaning or direction, or co-activation."""

    kind: str
    rank: int
    feature: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord:
    """A region of the map with its label."""

    cluster: int
    label: str
    x: float
    y: float
    n_features: int
    top_words: tuple[str, ...]


class FeatureStore:
    """Reads one atlas. Tables load on first use; look-ups by feature are by index, not by scan."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self._groups: dict[str, dict[int, np.ndarray]] = {}

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
        """A table of the atlas with its columns checked. Raises ArtifactDamaged."""
        table = self.artifact.table(name)
        check_columns(name, table, str(self.artifact.folder))
        return table

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
        rows = [row for row in self._rows("exemplars", feature) if row["pooling"] == pooling]
        rows = [row for row in rows if split is None or row["split"] == split]
        return tuple(
            ExemplarRecord(**{**row, "grid": self._grid(row["grid"])})
            for row in sorted(rows, key=lambda row: (row["split"], row["rank"]))
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
        row = self._mask_rows.get((text, image_id))
        if row is None:
            return None
        packed = np.frombuffer(self.table("text_masks")["mask"][row].as_py(), dtype=np.uint8)
        bits = np.unpackbits(packed)
        n = self.grid.n_patches
        if not n <= bits.size < n + 8:
            raise ArtifactDamaged(f"{self.artifact.folder}: a text mask has {bits.size} bits for {n} patches.")
        return bits[:n].reshape(self.grid.rows, self.grid.cols).astype(bool)

    @cached_property
    def _text_rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.texts["text"].to_pylist())}

    @cached_property
    def _mask_rows(self) -> dict[tuple[str, str], int]:
        table = self.table("text_masks")
        keys = zip(table["text"].to_pylist(), table["image_id"].to_pylist(), strict=True)
        return {key: row for row, key in enumerate(keys)}

    # images --------------------------------------------------------------------------------------------------------

    def image_bytes(self, image_id: str) -> bytes:
        """WebP bytes of a stored image. Raises KeyError: ids come from this atlas's own tables."""
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

    def _rows(self, name: str, feature: int) -> Iterator[dict[str, Any]]:
        """The rows of one feature in table order."""
        self._row(feature)
        if name not in self._groups:
            column = self.table(name)["feature"].to_numpy()
            order = np.argsort(column, kind="stable")
            ids, starts = np.unique(column[order], return_index=True)
            self._groups[name] = dict(zip(ids.tolist(), np.split(order, starts[1:]), strict=True)) if len(ids) else {}
        places = self._groups[name].get(feature)
        if places is not None:
            yield from self.table(name).take(pa.array(places)).to_pylist()

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

    def _grid(self, values: list[float]) -> Float[np.ndarray, "row col"]:
        flat = np.asarray(values, dtype=np.float32)
        if flat.size != self.grid.n_patches:
            raise ArtifactDamaged(
                f"{self.artifact.folder}: an exemplar has {flat.size} patches, the grid {self.grid.n_patches}."
            )
        return flat.reshape(self.grid.rows, self.grid.cols)

    def _arm(self, key: str) -> Arm:
        if key not in ARM_BY_KEY:
            raise ArtifactDamaged(f"{self.artifact.folder}: unknown explanation method {key!r}.")
        return ARM_BY_KEY[key]


def _absent(value: Any) -> Any:
    """NaN becomes None, so that a missing number cannot be drawn or averaged by mistake."""
    return None if isinstance(value, float) and value != value else value
