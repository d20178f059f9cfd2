"""Search: from words to ranked features, by meaning (sentence embeddings) and by words (BM25), fused.

Both look through every explanation of every method (controls left out: their words say nothing about the feature);
words also through the cluster labels and the truth where it is known. Every score is worked out for all features at
once, as arrays, and is exact: there is no approximate index whose misses would have to be explained. Only the hits
themselves become objects. faiss and the encoder are loaded on the first query.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from backend.errors import EmptyQuery
from backend.feature_store import FeatureStore, NeighbourRecord
from backend.lexical import LexicalIndex, has_words
from backend.search_documents import METHOD_ARMS, Corpus, Documents, corpus, truth_terms
from backend.text_encoders import TextEncoder
from backend.text_vectors import TextVectors
from backend.types import ARM_BY_KEY, Arm

Reason = Literal["meaning", "words", "both", "direction", "coactivation", "activation"]
LIKE_KINDS = ("meaning", "direction", "coactivation")
MEANING_WEIGHT = 0.4
WORDS_WEIGHT = 0.6
MEANING_FLOOR = 0.25
"""Cosine below which a sentence is not counted as near in meaning: unrelated short sentences reach about that."""
MAX_QUERY_CHARACTERS = 1000
_AGREEMENT_BONUS = 0.2
"""Share of the words score that depends on how many of the methods' texts match."""
_NEVER = -np.inf
"""Cosine of what has no text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A feature that answers a query, and why."""

    feature: int
    score: float
    """In [0, 1]; comparable within one query only."""
    reason: Reason
    """``activation`` is for searches by picture, which are not made here."""
    text: str
    """The explanation to show: the one whose words match, else the nearest in meaning, else the best one."""
    arm: Arm | None
    """Who wrote ``text``; None if the feature has no explanation."""
    why: str
    """One line for a person, e.g. ``Top-k (masks) says it; Steering is close in meaning (0.71)``."""
    similarity: float | None = None
    """What the neighbourhood is measured by, in [-1, 1]: for a query the cosine with the nearest explanation. None if
    none was near enough to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """Scores of every feature for one query."""

    meaning: Float64[np.ndarray, " feature"]
    """Cosine of the nearest explanation; -inf below the floor."""
    words: Float64[np.ndarray, " feature"]
    """Score of the matching words, 0 if none match."""
    of_words: Float64[np.ndarray, " words"]
    """Score of every different text."""
    of_texts: Float32[np.ndarray, " text"]
    """Cosine of every embedded text."""
    arm: int | None
    """Place in METHOD_ARMS of the only method searched."""

    def fused(self, rows: Int64[np.ndarray, " row"]) -> Float64[np.ndarray, " row"]:
        """Score in [0, 1]: nearness in meaning and matching words, weighted."""
        return MEANING_WEIGHT * np.clip(self.meaning[rows], 0, 1) + WORDS_WEIGHT * self.words[rows]

    @property
    def found(self) -> Int64[np.ndarray, " row"]:
        """Rows of the features that answer at all."""
        return np.flatnonzero(np.isfinite(self.meaning) | (self.words > 0))


class Search:
    """Answers queries over one atlas. Thread-safe; query embeddings are cached."""

    def __init__(self, store: FeatureStore, encoder: TextEncoder | None = None) -> None:
        """``encoder`` defaults to the one named in meta.json, loaded on the first query."""
        self.store = store
        self._vectors = TextVectors(store, encoder)
        self._loading = Lock()

    def query(self, text: str, n: int = 20, arm: Arm | None = None) -> list[Hit]:
        """The ``n`` best features for ``text``, best first, each once; with ``arm`` by the words of that method only.

        Raises EmptyQuery, DependencyMissing (faiss or the encoder) or ArtifactDamaged (the index does not fit).
        """
        if not has_words(text):
            raise EmptyQuery("The query holds no words. Type what the feature should show, e.g.: striped pattern")
        cleaned = " ".join(text.split())[:MAX_QUERY_CHARACTERS]
        self._load()
        if not len(self.store):
            return []
        scored = self._score(cleaned, None if arm is None else METHOD_ARMS.index(arm))
        rows = scored.found
        chosen = _largest(scored.fused(rows), n)
        return [self._hit(row, scored) for row in rows[chosen].tolist()]

    def like(self, feature: int, kind: str = "meaning", n: int = 20) -> list[Hit]:
        """The ``n`` features most like another, best first, with the reason.

        ``meaning`` compares the texts of all methods, and reaches the whole atlas; ``direction`` (cosine of decoder
        rows) and ``coactivation`` know the stored neighbours only. Raises UnknownFeature, ValueError (kind),
        DependencyMissing or ArtifactDamaged.
        """
        if kind not in LIKE_KINDS:
            raise ValueError(f"kind is {kind!r}; choose one of: {', '.join(LIKE_KINDS)}")
        if kind == "meaning":
            return self._like_meaning(feature, n)
        told = "decoder direction: cosine {:.2f}" if kind == "direction" else "fires on the same patches: {:.2f}"
        hits = []
        for near in self.store.neighbours(feature, kind)[: max(n, 0)]:
            text, arm = self._best(self._row(near.feature))
            hits.append(
                Hit(
                    feature=near.feature,
                    score=min(max(near.value, 0.0), 1.0),
                    reason="direction" if kind == "direction" else "coactivation",
                    text=text,
                    arm=arm,
                    why=told.format(near.value),
                    similarity=near.value,
                )
            )
        return hits

    def similar(self, feature: int, kind: str = "meaning") -> tuple[NeighbourRecord, ...]:
        """Stored nearest features by ``meaning``, ``direction`` or ``coactivation``. Raises UnknownFeature."""
        return self.store.neighbours(feature, kind)

    def warm_up(self) -> None:
        """Load index, encoder and documents now, so that the first query does not wait for them."""
        self._load()
        self._vectors.encode("warm up")

    # scores ------------------------------------------------------------------------------------------------------

    def _score(self, text: str, arm: int | None) -> _Scored:
        of_texts = self._rows @ self._vectors.encode(text)
        of_words = self._lexical.scores(text)
        n, explanations = len(self.store), self._corpus.explanations
        chosen = slice(None) if arm is None else self._of_arm[arm]
        cosine = np.append(of_texts, np.float32(_NEVER))[self._corpus.text[chosen]].astype(np.float64)
        said = (of_words[explanations.words] * explanations.weight)[chosen]
        if arm is None:
            meaning = explanations.best(cosine, n, _NEVER)
            words = explanations.best(said, n, 0.0)
            share = explanations.count(said > 0, n) / np.maximum(self._n_explanations, 1)
            for source in (self._corpus.truth, self._corpus.clusters):
                words = np.maximum(words, source.best(of_words[source.words] * source.weight, n, 0.0))
            words = words * (1 - _AGREEMENT_BONUS + _AGREEMENT_BONUS * share)
        else:
            meaning, words = np.full(n, _NEVER), np.zeros(n)
            meaning[explanations.row[chosen]] = cosine
            words[explanations.row[chosen]] = said
        meaning = np.where(meaning >= MEANING_FLOOR, meaning, _NEVER)
        return _Scored(meaning=meaning, words=words, of_words=of_words, of_texts=of_texts, arm=arm)

    def _like_meaning(self, feature: int, n: int) -> list[Hit]:
        self.store.feature(feature)  # raises UnknownFeature
        self._load()
        documents, own = self._corpus.explanations, self._row(feature)
        texts = [int(self._corpus.text[place]) for place in documents.of(own)]
        distinct, times = np.unique([text for text in texts if text >= 0], return_counts=True)
        if not distinct.size:
            return []
        near = np.zeros(len(self.store))
        nearest = np.full(len(self._rows) + 1, np.float32(_NEVER))
        for text, count in zip(distinct.tolist(), times.tolist(), strict=True):
            cosine = np.append(self._rows @ self._rows[text], np.float32(_NEVER))
            nearest = np.maximum(nearest, cosine)
            gathered = cosine[self._corpus.text].astype(np.float64)
            near += count / times.sum() * documents.best(gathered, len(self.store), _NEVER)
        near[own] = _NEVER
        known = np.flatnonzero(np.isfinite(near))
        rows = known[_largest(near[known], n)]
        return [self._like_hit(row, float(near[row]), nearest) for row in rows.tolist()]

    # hits --------------------------------------------------------------------------------------------------------

    def _hit(self, row: int, scored: _Scored) -> Hit:
        words = self._best_words(row, scored)
        near = self._nearest(row, scored.of_texts, scored.arm) if np.isfinite(scored.meaning[row]) else None
        text, arm = self._best(row)
        parts = []
        if near is not None:
            text, arm = self._text_of(near)
        if words is not None:
            source, place = words
            if source == "explanation":
                text, arm = self._text_of(place)
            parts.append(self._why_words(row, source, place))
        if near is not None:
            by = self._text_of(near)[1]
            who = "" if arm is None or by == arm else f"{by.label} is "
            parts.append(f"{who}close in meaning ({scored.meaning[row]:.2f})")
        return Hit(
            feature=int(self.store.feature_ids[row]),
            score=float(scored.fused(np.array([row]))[0]),
            reason="both" if words and near is not None else "words" if words else "meaning",
            text=text,
            arm=arm,
            why="; ".join(parts),
            similarity=float(scored.meaning[row]) if near is not None else None,
        )

    def _like_hit(self, row: int, value: float, nearest: Float32[np.ndarray, " text"]) -> Hit:
        place = self._nearest(row, nearest, None)
        text, arm = self._best(row) if place is None else self._text_of(place)
        return Hit(
            feature=int(self.store.feature_ids[row]),
            score=min(max(value, 0.0), 1.0),
            reason="meaning",
            text=text,
            arm=arm,
            why=f"its texts are close in meaning ({value:.2f})",
            similarity=value,
        )

    def _best_words(self, row: int, scored: _Scored) -> tuple[str, int] | None:
        """Source and place of the document of a feature whose words match best."""
        best: tuple[str, int] | None = None
        highest = 0.0
        sources = {"explanation": self._corpus.explanations}
        if scored.arm is None:
            sources |= {"truth": self._corpus.truth, "cluster": self._corpus.clusters}
        for source, documents in sources.items():
            for place in self._places(documents, row, scored.arm):
                score = float(scored.of_words[documents.words[place]] * documents.weight[place])
                if score > highest:
                    best, highest = (source, place), score
        return best

    def _places(self, documents: Documents, row: int, arm: int | None) -> list[int]:
        """Places of a feature's documents; of explanations, the winner's first and only those of ``arm`` if given."""
        places = list(documents.of(row))
        if documents is not self._corpus.explanations:
            return places
        best = self._best(row)[1]
        places.sort(key=lambda place: METHOD_ARMS[self._corpus.arm[place]] != best)
        return [place for place in places if arm is None or self._corpus.arm[place] == arm]

    def _nearest(self, row: int, of_texts: Float32[np.ndarray, " text"], arm: int | None) -> int | None:
        """Place of a feature's explanation that is nearest in meaning."""
        places = [place for place in self._places(self._corpus.explanations, row, arm) if self._corpus.text[place] >= 0]
        return max(places, key=lambda place: of_texts[self._corpus.text[place]], default=None)

    def _text_of(self, place: int) -> tuple[str, Arm]:
        words = self._corpus.words[self._corpus.explanations.words[place]]
        return words, METHOD_ARMS[self._corpus.arm[place]]

    def _why_words(self, row: int, source: str, place: int) -> str:
        if source == "explanation":
            return f"{self._text_of(place)[1].label} says it"
        if source == "truth":
            return f"its truth is: {', '.join(truth_terms(self.store, row))}"
        return f"its cluster is: {self._corpus.words[self._corpus.clusters.words[place]]}"

    def _best(self, row: int) -> tuple[str, Arm | None]:
        """The winning explanation of a feature."""
        text, arm = (self.store.features[name][row].as_py() for name in ("best_text", "best_arm"))
        return text or "", ARM_BY_KEY.get(arm or "")

    def _row(self, feature: int) -> int:
        return int(np.flatnonzero(self.store.feature_ids == feature)[0])

    # loading -----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Index and documents, once: two threads must not build them side by side."""
        with self._loading:
            _ = self._rows, self._lexical, self._of_arm, self._n_explanations

    @cached_property
    def _corpus(self) -> Corpus:
        return corpus(self.store)

    @cached_property
    def _lexical(self) -> LexicalIndex:
        return LexicalIndex(self._corpus.words, self._corpus.copies)

    @cached_property
    def _of_arm(self) -> tuple[Int64[np.ndarray, " document"], ...]:
        """Places of the explanations of each method."""
        return tuple(np.flatnonzero(self._corpus.arm == place) for place in range(len(METHOD_ARMS)))

    @cached_property
    def _n_explanations(self) -> Int64[np.ndarray, " feature"]:
        return np.bincount(self._corpus.explanations.row, minlength=len(self.store))

    @property
    def _rows(self) -> Float32[np.ndarray, "text d"]:
        return self._vectors.rows


def _largest(values: Float64[np.ndarray, " value"], n: int) -> Int64[np.ndarray, " place"]:
    """Places of the ``n`` largest values, largest first; equal ones by their place."""
    places = np.arange(len(values))
    if n <= 0:
        return places[:0]
    if n < len(values):
        bound = np.partition(values, len(values) - n)[len(values) - n]
        places = np.flatnonzero(values >= bound)
    return places[np.lexsort((places, -values[places]))][:n]
