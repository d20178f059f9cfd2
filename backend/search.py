"""Search: from words to ranked features, by meaning (faiss over sentence embeddings) and by words (BM25), fused.

What is searched by meaning is each feature's best explanation. What is searched by words is every explanation of every
method (controls left out: their words say nothing about the feature), the cluster labels, and the truth where it is
known. Queries are text only. faiss and the encoder are loaded on the first query.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from backend.errors import ArtifactDamaged, DependencyMissing, EmptyQuery
from backend.feature_store import FeatureStore, NeighbourRecord
from backend.lexical import LexicalIndex, has_words
from backend.text_encoders import TextEncoder, load_text_encoder
from backend.types import ARM_BY_KEY, Arm

Reason = Literal["meaning", "words", "both"]
MEANING_WEIGHT = 0.4
WORDS_WEIGHT = 0.6
MEANING_FLOOR = 0.25
"""Cosine below which a sentence is not counted as near in meaning: unrelated short sentences reach about that."""
MAX_QUERY_CHARACTERS = 1000
_CACHED_QUERIES = 256
_SOURCE_WEIGHTS = {"truth": 1.0, "explanation": 0.55, "cluster": 0.25}
"""How much a match counts by where the words stand: the known truth, an explanation (which may be wrong), the label of
a whole region. What is known must outrank what is claimed in the very words of the query."""
_AGREEMENT_BONUS = 0.2
"""Share of the words score that depends on how many of the methods' texts match."""
_DETECTION_SHARE = 0.3
"""Share of a truth match that depends on how well the feature detects its concept (average precision)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A feature that answers a query, and why."""

    feature: int
    score: float
    """Fused score in [0, 1]; comparable within one query only."""
    reason: Reason
    text: str
    """The explanation to show: the one whose words match, else the best one."""
    arm: Arm | None
    """Who wrote ``text``; None if the feature has no explanation."""
    why: str
    """One line for a person, e.g. ``Top-k (masks) says it; close in meaning (0.71)``."""
    similarity: float | None = None
    """Cosine between query and best explanation, in [-1, 1]; None if it was not near enough to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """One searchable text of one feature."""

    feature: int
    source: str
    text: str
    weight: float
    """How much a full match counts, in [0, 1]."""
    arm: Arm | None = None
    shown: str = ""
    """What a person reads instead of ``text``, if that is more."""


@dataclass(slots=True)
class _WordsMatch:
    score: float
    document: _Document
    n_matching: int


class Search:
    """Answers queries over one atlas. Thread-safe; query embeddings are cached."""

    def __init__(self, store: FeatureStore, encoder: TextEncoder | None = None) -> None:
        """``encoder`` defaults to the one named in meta.json, loaded on the first query."""
        self.store = store
        self._encoder = encoder
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def query(self, text: str, n: int = 20) -> list[Hit]:
        """The ``n`` best features for ``text``, best first, each once.

        Raises EmptyQuery, DependencyMissing (faiss or the encoder) or ArtifactDamaged (the index does not fit).
        """
        if not has_words(text):
            raise EmptyQuery("The query holds no words. Type what the feature should show, e.g.: striped pattern")
        cleaned = " ".join(text.split())[:MAX_QUERY_CHARACTERS]
        by_meaning = self._by_meaning(cleaned)
        by_words = self._by_words(cleaned)
        features = by_meaning.keys() | by_words.keys()
        hits = [self._hit(feature, by_meaning.get(feature), by_words.get(feature)) for feature in features]
        hits.sort(key=lambda hit: (-hit.score, hit.feature))
        return hits[: max(n, 0)]

    def similar(self, feature: int, kind: str = "meaning") -> tuple[NeighbourRecord, ...]:
        """Stored nearest features by ``meaning``, ``direction`` or ``coactivation``. Raises UnknownFeature."""
        return self.store.neighbours(feature, kind)

    def warm_up(self) -> None:
        """Load index, encoder and lexical index now, so that the first query does not wait for them."""
        self._encode("warm up")
        _ = self._index, self._lexical

    # meaning -----------------------------------------------------------------------------------------------------

    def _by_meaning(self, text: str) -> dict[int, float]:
        """Cosine of every feature whose best explanation is near enough to ``text``."""
        if not len(self.store):
            return {}
        values, rows = self._index.search(self._encode(text)[None, :], len(self.store.texts))
        near = {int(row): float(value) for value, row in zip(values[0], rows[0], strict=True) if value >= MEANING_FLOOR}
        found: dict[int, float] = {}
        for document in self._documents:
            row = self.store.text_row(document.text) if document.arm is not None else None
            if row in near:
                found[document.feature] = max(near[row], found.get(document.feature, -1.0))
        return found

    def _encode(self, text: str) -> Float32[np.ndarray, " d"]:
        with self._lock:
            if text in self._cache:
                self._cache.move_to_end(text)
                return self._cache[text]
        if self._encoder is None:
            self._encoder = load_text_encoder(str(self.store.meta.get("text_encoder") or "all-MiniLM-L6-v2"))
        row = np.ascontiguousarray(self._encoder.encode([text])[0], dtype=np.float32)
        with self._lock:
            self._cache[text] = row
            while len(self._cache) > _CACHED_QUERIES:
                self._cache.popitem(last=False)
        return row

    @cached_property
    def _index(self) -> Any:
        try:
            import faiss
        except ImportError as error:
            raise DependencyMissing(f"faiss cannot be imported ({error}). Install it: pip install faiss-cpu") from error
        path = self.store.artifact.path("index.faiss")
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ArtifactDamaged(f"{path} is not a faiss index ({error}).") from error
        if index.ntotal != len(self.store.texts):
            raise ArtifactDamaged(f"{path} holds {index.ntotal} vectors for {len(self.store.texts)} texts.")
        return index

    # words -------------------------------------------------------------------------------------------------------

    def _by_words(self, text: str) -> dict[int, _WordsMatch]:
        """For every feature with a matching text: score in [0, 1], the text that matches best, and how many do."""
        documents = self._documents
        found: dict[int, _WordsMatch] = {}
        for place, (score, _) in self._lexical.scores(text).items():
            document = documents[place]
            weighted = score * document.weight
            known = found.get(document.feature)
            if known is None:
                found[document.feature] = _WordsMatch(weighted, document, int(document.arm is not None))
                continue
            known.n_matching += document.arm is not None
            if weighted > known.score:
                known.score, known.document = weighted, document
        for feature, match in found.items():
            share = match.n_matching / max(1, self._n_explanations.get(feature, 0))
            match.score *= 1 - _AGREEMENT_BONUS + _AGREEMENT_BONUS * share
        return found

    @cached_property
    def _lexical(self) -> LexicalIndex:
        return LexicalIndex([document.text for document in self._documents])

    @cached_property
    def _documents(self) -> list[_Document]:
        return [*_explanation_documents(self.store), *_truth_documents(self.store), *_cluster_documents(self.store)]

    @cached_property
    def _n_explanations(self) -> Mapping[int, int]:
        counts: dict[int, int] = {}
        for document in self._documents:
            if document.arm is None:
                continue
            counts[document.feature] = counts.get(document.feature, 0) + 1
        return counts

    # fusion ------------------------------------------------------------------------------------------------------

    def _hit(self, feature: int, cosine: float | None, words: _WordsMatch | None) -> Hit:
        near = 0.0 if cosine is None else min(max(cosine, 0.0), 1.0)
        score = MEANING_WEIGHT * near + WORDS_WEIGHT * (words.score if words else 0.0)
        best_text, best_arm = self._best[feature]
        text, arm, parts = best_text, best_arm, []
        if words:
            parts.append(_why_words(words.document))
            if words.document.arm is not None:
                text, arm = words.document.text, words.document.arm
        if cosine is not None:
            parts.append(f"close in meaning ({cosine:.2f})")
        reason: Reason = "both" if words and cosine is not None else "words" if words else "meaning"
        return Hit(
            feature=feature,
            score=score,
            reason=reason,
            text=text,
            arm=arm,
            why="; ".join(parts),
            similarity=cosine,
        )

    @cached_property
    def _best(self) -> dict[int, tuple[str, Arm | None]]:
        table = self.store.features
        rows = zip(*(table[name].to_pylist() for name in ("feature", "best_text", "best_arm")), strict=True)
        return {feature: (text or "", ARM_BY_KEY.get(arm or "")) for feature, text, arm in rows}


def _why_words(document: _Document) -> str:
    if document.arm is not None:
        return f"{document.arm.label} says it"
    if document.source == "truth":
        return f"its truth is: {document.shown or document.text}"
    return f"its cluster is: {document.text}"


def _explanation_documents(store: FeatureStore) -> list[_Document]:
    table = store.table("explanations")
    rows = zip(*(table[name].to_pylist() for name in ("feature", "arm", "text")), strict=True)
    weight = _SOURCE_WEIGHTS["explanation"]
    return [
        _Document(feature=feature, source="explanation", text=text, weight=weight, arm=ARM_BY_KEY[arm])
        for feature, arm, text in rows
        if text and arm in ARM_BY_KEY and not ARM_BY_KEY[arm].is_control
    ]


def _truth_documents(store: FeatureStore) -> list[_Document]:
    table = store.features
    names = ["truth_ap", "truth_concept", "truth_group", "truth_terms"]
    columns = [table[name].to_pylist() if name in table.column_names else [None] * len(table) for name in names]
    documents = []
    for feature, precision, concept, group, more in zip(table["feature"].to_pylist(), *columns, strict=True):
        words: Sequence[str] = [word for word in (concept, group, *(more or ())) if word]
        if words:
            terms = list(dict.fromkeys(word.replace("_", " ") for word in words))
            weight = _SOURCE_WEIGHTS["truth"] * (1 - _DETECTION_SHARE + _DETECTION_SHARE * (precision or 0.0))
            shown = ", ".join(terms)
            # One document a term: a group's name alone must match as fully as the concept's.
            documents += [
                _Document(feature=feature, source="truth", text=term, weight=weight, shown=shown) for term in terms
            ]
    return documents


def _cluster_documents(store: FeatureStore) -> list[_Document]:
    labels = {cluster.cluster: cluster.label for cluster in store.clusters}
    columns = (store.features[name].to_pylist() for name in ("feature", "cluster"))
    return [
        _Document(feature=feature, source="cluster", text=labels[cluster], weight=_SOURCE_WEIGHTS["cluster"])
        for feature, cluster in zip(*columns, strict=True)
        if labels.get(cluster)
    ]
