"""BM25 over short texts with light stemming: pure Python and NumPy-free, built in milliseconds for an atlas."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
STOP_WORDS = frozenset(
    "a an and are as at be but by for from has have in into is it its of on or that the their them there these this "
    "those to was were which while with".split()
)
_K1 = 1.2
_B = 0.3
"""BM25's length penalty, kept mild: one explanation is not worse for naming two things."""
_VOWELS = frozenset("aeiouy")


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """A light stem: plurals, -ing and -ed fall together (stripes, stripe, striped; blurred, blur), meanings do not."""
    text = word.casefold()
    if len(text) > 4 and text.endswith("ies"):
        text = text[:-3] + "y"
    elif len(text) > 4 and text.endswith(("sses", "shes", "ches", "xes", "zes")):
        text = text[:-2]
    elif len(text) > 3 and text.endswith("s") and not text.endswith(("ss", "us", "is")):
        text = text[:-1]
    for ending in ("ing", "ed"):
        root = text.removesuffix(ending)
        if root != text and len(root) >= 3 and _VOWELS & set(root):
            doubled = root[-1] == root[-2] and root[-1] not in "lsz"
            text = root[:-1] if doubled else root
            break
    return text[:-1] if len(text) > 3 and text.endswith("e") else text


def terms(text: str) -> list[str]:
    """Stems of the words of ``text`` in order, without stop words."""
    words = (match.group().casefold() for match in _WORD.finditer(text))
    return [stem(word) for word in words if word not in STOP_WORDS]


def has_words(text: str) -> bool:
    """Whether ``text`` holds any letter or digit at all."""
    return _WORD.search(text) is not None


class LexicalIndex:
    """BM25 over documents given once. Scores are shares of the best possible match, in [0, 1]."""

    def __init__(self, documents: Sequence[str]) -> None:
        """Index ``documents``; their position is their id."""
        counts = [Counter(terms(text)) for text in documents]
        lengths = [sum(count.values()) for count in counts]
        self.n_documents = len(documents)
        mean_length = max(sum(lengths) / max(len(lengths), 1), 1.0)
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for place, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            for term, n in count.items():
                weight = n * (_K1 + 1) / (n + _K1 * (1 - _B + _B * length / mean_length))
                self._postings[term].append((place, min(weight, 1.0)))

    def inverse_frequency(self, term: str) -> float:
        """Rarity of a stem (BM25's idf, above 0); a stem that no document holds counts as the rarest."""
        n = len(self._postings.get(term, ()))
        return math.log(1 + (self.n_documents - n + 0.5) / (n + 0.5))

    def scores(self, query: str) -> Mapping[int, tuple[float, tuple[str, ...]]]:
        """Matching documents with score and matched stems. Query words count once, weighted by rarity."""
        wanted = list(dict.fromkeys(terms(query)))
        total = sum(self.inverse_frequency(term) for term in wanted)
        found: dict[int, float] = defaultdict(float)
        matched: dict[int, list[str]] = defaultdict(list)
        for term in wanted:
            share = self.inverse_frequency(term) / total if total else 0.0
            for place, weight in self._postings.get(term, ()):
                found[place] += share * weight
                matched[place].append(term)
        return {place: (score, tuple(matched[place])) for place, score in found.items()}
