"""Search written plainly, document by document in Python: what the fast one must equal."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from backend.feature_store import FeatureStore
from backend.lexical import terms
from backend.text_encoders import TextEncoder
from backend.types import ARM_BY_KEY, Arm


class PlainLexicalIndex:
    """BM25 as in its definition; one posting list per stem."""

    def __init__(self, documents: Sequence[str]) -> None:
        counts = [Counter(terms(text)) for text in documents]
        lengths = [sum(count.values()) for count in counts]
        self.n_documents = len(documents)
        mean_length = max(sum(lengths) / max(len(lengths), 1), 1.0)
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for place, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            for term, n in count.items():
                weight = n * 2.2 / (n + 1.2 * (0.7 + 0.3 * length / mean_length))
                self._postings[term].append((place, min(weight, 1.0)))

    def inverse_frequency(self, term: str) -> float:
        n = len(self._postings.get(term, ()))
        return math.log(1 + (self.n_documents - n + 0.5) / (n + 0.5))

    def scores(self, query: str) -> Mapping[int, float]:
        wanted = list(dict.fromkeys(terms(query)))
        total = sum(self.inverse_frequency(term) for term in wanted)
        found: dict[int, float] = defaultdict(float)
        for term in wanted:
            for place, weight in self._postings.get(term, ()):
                found[place] += self.inverse_frequency(term) / total * weight
        return found


def plain_scores(store: FeatureStore, encoder: TextEncoder, query: str, arm: Arm | None = None) -> dict[int, float]:
    """Fused score of every feature that answers ``query``, by feature id."""
    documents = _documents(store)
    lexical = PlainLexicalIndex([text for _, _, text, _ in documents]).scores(query)
    vectors = dict(
        zip(store.texts["text"].to_pylist(), store.artifact.array("embeddings").astype(np.float32), strict=True)
    )
    asked = encoder.encode([query])[0]
    meaning: dict[int, float] = {}
    words: dict[int, float] = defaultdict(float)
    n_matching: Counter[int] = Counter()
    n_explanations: Counter[int] = Counter()
    for place, (feature, key, text, weight) in enumerate(documents):
        if arm is not None and key != arm.key:
            continue
        if place in lexical:
            words[feature] = max(words[feature], lexical[place] * weight)
        if key is not None:
            n_explanations[feature] += 1
            n_matching[feature] += place in lexical
            if text in vectors:
                meaning[feature] = max(meaning.get(feature, -1.0), float(vectors[text] @ asked))
    found: dict[int, float] = {}
    for feature in store.feature_ids.tolist():
        near = meaning.get(feature, -1.0)
        near = near if near >= 0.25 else 0.0
        share = n_matching[feature] / max(n_explanations[feature], 1)
        if near or words[feature]:
            found[feature] = 0.4 * min(near, 1.0) + 0.6 * words[feature] * (0.8 + 0.2 * share)
    return found


def _documents(store: FeatureStore) -> list[tuple[int, str | None, str, float]]:
    """Feature, arm (None for truth and clusters), text and weight."""
    found: list[tuple[int, str | None, str, float]] = []
    for row in store.table("explanations").to_pylist():
        if row["text"] and row["arm"] in ARM_BY_KEY and not ARM_BY_KEY[row["arm"]].is_control:
            found.append((row["feature"], row["arm"], row["text"], 0.55))
    labels = {cluster.cluster: cluster.label for cluster in store.clusters}
    for feature in store.feature_ids.tolist():
        record = store.feature(feature)
        known = [word for word in (record.truth_concept, record.truth_group, *record.truth_terms) if word]
        for term in dict.fromkeys(word.replace("_", " ") for word in known):
            found.append((feature, None, term, 0.7 + 0.3 * (record.truth_ap or 0.0)))
        if labels.get(record.cluster):
            found.append((feature, None, labels[record.cluster], 0.25))
    return found
