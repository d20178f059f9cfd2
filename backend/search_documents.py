"""What a search looks through: every method's explanations, the known truth and the cluster labels, as flat arrays.

A document is one text of one feature. The same words stand in many documents, so they are scored once and the scores
gathered. Controls are left out: their words say nothing about the feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from backend.feature_store import FeatureStore, places_of
from backend.types import ARM_BY_KEY, Arm

SOURCE_WEIGHTS = {"truth": 1.0, "explanation": 0.55, "cluster": 0.25}
"""How much a match counts by where the words stand: the known truth, an explanation (which may be wrong), the label of
a whole region. What is known must outrank what is claimed in the very words of the query."""
DETECTION_SHARE = 0.3
"""Share of a truth match that depends on how well the feature detects its concept (average precision)."""
METHOD_ARMS: tuple[Arm, ...] = tuple(arm for arm in ARM_BY_KEY.values() if not arm.is_control)


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """Documents of one source, sorted by feature."""

    row: Int64[np.ndarray, " document"]
    """Row of the feature in the features table."""
    words: Int64[np.ndarray, " document"]
    """Place of the text in ``Corpus.words``."""
    weight: Float64[np.ndarray, " document"]
    """How much a full match counts, in [0, 1]."""
    rows: Int64[np.ndarray, " feature"]
    """The features that have any document, and where the documents of each start."""
    starts: Int64[np.ndarray, " feature"]

    def best(self, values: Float64[np.ndarray, " document"], n_features: int, absent: float) -> np.ndarray:
        """The largest value of each feature's documents [feature]; ``absent`` where it has none."""
        found = np.full(n_features, absent)
        if self.rows.size:
            found[self.rows] = np.maximum.reduceat(values, self.starts)
        return found

    def count(self, matching: np.ndarray, n_features: int) -> Int64[np.ndarray, " feature"]:
        """How many of each feature's documents match."""
        found = np.zeros(n_features, np.int64)
        if self.rows.size:
            found[self.rows] = np.add.reduceat(matching.astype(np.int64), self.starts)
        return found

    def of(self, row: int) -> range:
        """Places of the documents of one feature."""
        at = int(np.searchsorted(self.rows, row))
        if at == len(self.rows) or self.rows[at] != row:
            return range(0)
        stop = self.starts[at + 1] if at + 1 < len(self.starts) else len(self.row)
        return range(int(self.starts[at]), int(stop))


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """All documents of an atlas."""

    words: tuple[str, ...]
    """Every different text once."""
    explanations: Documents
    arm: Int64[np.ndarray, " document"]
    """Place in METHOD_ARMS of who wrote each explanation."""
    text: Int64[np.ndarray, " document"]
    """Row of each explanation's text in the embeddings; -1 if it has none."""
    truth: Documents
    clusters: Documents

    @property
    def copies(self) -> Int64[np.ndarray, " words"]:
        """How many documents hold each text."""
        parts = (self.explanations, self.truth, self.clusters)
        return np.bincount(np.concatenate([part.words for part in parts]), minlength=len(self.words))


class _Words:
    """Gives every different text a number."""

    def __init__(self, known: Sequence[str]) -> None:
        self.place = {text: at for at, text in enumerate(known)}

    def __call__(self, text: str) -> int:
        return self.place.setdefault(text, len(self.place))


def corpus(store: FeatureStore) -> Corpus:
    """The documents of an atlas. Raises ArtifactDamaged."""
    table = store.table("explanations")
    keys = pa.array([arm.key for arm in METHOD_ARMS], pa.string())
    arm = places_of(table["arm"], keys)
    row = places_of(table["feature"], _whole(store.features["feature"]))
    texts = table["text"].unique().dictionary_decode().drop_null()
    place = places_of(table["text"], texts)
    words = _Words(texts.to_pylist())
    chosen = np.flatnonzero(
        (arm >= 0) & (row >= 0) & (place >= 0) & (np.array([*map(bool, words.place), False])[place])
    )
    chosen = chosen[np.argsort(row[chosen], kind="stable")]
    in_embeddings = places_of(pa.chunked_array([texts]), _whole(store.texts["text"]))
    truth, clusters = _truth(store, words), _clusters(store, words)
    weight = np.full(len(chosen), SOURCE_WEIGHTS["explanation"])
    return Corpus(
        words=tuple(words.place),
        explanations=_documents(row[chosen], place[chosen], weight),
        arm=arm[chosen].astype(np.int64),
        text=in_embeddings[place[chosen]].astype(np.int64),
        truth=truth,
        clusters=clusters,
    )


def truth_terms(store: FeatureStore, row: int) -> tuple[str, ...]:
    """The words under which the truth of a feature is searched."""
    found = store.features.slice(row, 1).to_pylist()[0]
    return _terms(found.get("truth_concept"), found.get("truth_group"), found.get("truth_terms"))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _documents(row: np.ndarray, words: np.ndarray, weight: np.ndarray) -> Documents:
    rows, starts = np.unique(row.astype(np.int64), return_index=True)
    return Documents(row=row.astype(np.int64), words=words.astype(np.int64), weight=weight, rows=rows, starts=starts)


def _terms(concept: str | None, group: str | None, more: Sequence[str] | None) -> tuple[str, ...]:
    words = [word for word in (concept, group, *(more or ())) if word]
    return tuple(dict.fromkeys(word.replace("_", " ") for word in words))


def _truth(store: FeatureStore, words: _Words) -> Documents:
    """One document a term: a group's name alone must match as fully as the concept's."""
    table = store.features
    names = ("truth_concept", "truth_group", "truth_terms", "truth_ap")
    columns = [table[name].to_pylist() if name in table.column_names else [None] * len(table) for name in names]
    found: list[tuple[int, int, float]] = []
    for row, (concept, group, more, precision) in enumerate(zip(*columns, strict=True)):
        weight = SOURCE_WEIGHTS["truth"] * (1 - DETECTION_SHARE + DETECTION_SHARE * (precision or 0.0))
        found += [(row, words(term), weight) for term in _terms(concept, group, more)]
    row, place, weight = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return _documents(row.astype(np.int64), place.astype(np.int64), weight)


def _clusters(store: FeatureStore, words: _Words) -> Documents:
    labels = {one.cluster: words(one.label) for one in store.clusters if one.label}
    place = np.array([labels.get(cluster, -1) for cluster in store.features["cluster"].to_pylist()], dtype=np.int64)
    row = np.flatnonzero(place >= 0)
    return _documents(row, place[row], np.full(len(row), SOURCE_WEIGHTS["cluster"]))
