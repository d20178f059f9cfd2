"""Names for the clusters of the map, different from one another.

Two labelers: where the truth of features is known, from the concepts and families of the members; elsewhere the
subject's language model names a cluster from 20 random explanations, with the names of its siblings in view.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from backend.models.base import SubjectModel
from backend.types import TruthOutcome
from precompute.judges import TruthOracle

N_SHOWN = 20
N_TOP_WORDS = 6
MAX_LABEL_CHARACTERS = 60
_WORD = re.compile(r"[^\W\d_][\w'-]+")
_STOP_WORDS = frozenset(
    "a an and are as at be by for from has have in into is it its like of on or over same some than that the their "
    "these this to two various very was were which with without image images picture element highlighted".split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterMember:
    """What a labeler may know of one feature."""

    text: str | None
    """Its best explanation."""
    concept: str | None = None
    """Its truth, where known."""


class ClusterLabeler(Protocol):
    """Names all clusters at once, so that siblings can be told apart."""

    def label(self, clusters: Mapping[int, Sequence[ClusterMember]]) -> dict[int, str]:
        """One label per cluster, all different."""
        ...


def words_of(text: str) -> list[str]:
    """Content words of a text, lower case."""
    return [word for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]


def top_words(clusters: Mapping[int, Sequence[ClusterMember]], n: int = N_TOP_WORDS) -> dict[int, list[str]]:
    """The words that set each cluster apart: frequent in it, in few others (tf-idf over clusters)."""
    counts = {
        key: Counter(word for one in members for word in words_of(one.text or "")) for key, members in clusters.items()
    }
    spread = Counter(word for found in counts.values() for word in found)
    n_clusters = max(1, len(clusters))

    def weight(found: Counter[str], word: str) -> float:
        return found[word] * float(np.log((1 + n_clusters) / spread[word]))

    return {key: sorted(found, key=lambda word: (-weight(found, word), word))[:n] for key, found in counts.items()}


class TruthLabeler:
    """Names clusters by what their members detect or are said to: one concept, or a family and its commonest ones."""

    def __init__(self, oracle: TruthOracle) -> None:
        self._oracle = oracle
        self._read: dict[str, tuple[str, ...]] = {}

    def label(self, clusters: Mapping[int, Sequence[ClusterMember]]) -> dict[int, str]:
        words = top_words(clusters)
        counts = {key: self._concepts(members) for key, members in clusters.items()}
        labels = {key: self._name(counts[key], words[key], 2) for key in clusters}
        for detail in (3, 4, 5):
            repeated = {label for label, n in Counter(labels.values()).items() if n > 1}
            for key, label in labels.items():
                if label in repeated:
                    labels[key] = self._name(counts[key], words[key], detail)
        return numbered(labels)

    def _concepts(self, members: Sequence[ClusterMember]) -> Counter[str]:
        """Concepts of the members: their truth, and where it is unknown what their explanations name."""
        found: Counter[str] = Counter()
        for one in members:
            found.update([one.concept] if one.concept else self._named(one.text))
        return found

    def _named(self, text: str | None) -> tuple[str, ...]:
        if not text:
            return ()
        if text not in self._read:
            right = (one for one in self._oracle.concepts if self._oracle.judge(one, text) is TruthOutcome.RIGHT)
            self._read[text] = tuple(right)
        return self._read[text]

    def _name(self, concepts: Counter[str], words: Sequence[str], detail: int) -> str:
        """``crab``, or ``animal: crab, penguin``, or the characteristic words where no truth is known."""
        if not concepts:
            return ", ".join(words[:detail]) or "unnamed"
        ranked = sorted(concepts, key=lambda concept: (-concepts[concept], concept))
        total = sum(concepts.values())
        if concepts[ranked[0]] >= 0.6 * total and detail == 2:
            return self._readable(ranked[0])
        families = Counter[str]()
        for concept, n in concepts.items():
            families[self._oracle.family(concept)] += n
        family = min(families, key=lambda name: (-families[name], name))
        shown = ", ".join(self._readable(concept) for concept in ranked[:detail])
        return f"{family}: {shown}" if families[family] >= 0.6 * total else shown

    def _readable(self, concept: str) -> str:
        return concept.replace("_", " ")


class LanguageModelLabeler:
    """Asks the subject's own language model, without any image."""

    def __init__(self, subject: SubjectModel, seed: int, max_new_tokens: int = 16) -> None:
        self._subject = subject
        self._seed = seed
        self._max_new_tokens = max_new_tokens

    def label(self, clusters: Mapping[int, Sequence[ClusterMember]]) -> dict[int, str]:
        words = top_words(clusters)
        labels: dict[int, str] = {}
        for key in sorted(clusters):
            texts = sorted({one.text for one in clusters[key] if one.text})
            drawn = np.random.default_rng([self._seed, key]).permutation(len(texts))[:N_SHOWN]
            prompt = label_prompt([texts[place] for place in sorted(drawn)], list(labels.values()))
            no_image = torch.empty(
                1, 0, self._subject.n_image_tokens, self._subject.d_text, device=self._subject.device
            )
            answer = self._subject.generate(no_image, prompt, max_new_tokens=self._max_new_tokens)[0]
            labels[key] = clean_label(answer) or ", ".join(words[key][:3]) or "unnamed"
        return numbered(labels)


def label_prompt(texts: Sequence[str], siblings: Sequence[str]) -> str:
    """The question that names one cluster."""
    shown = "\n".join(f"- {text}" for text in texts)
    taken = f"\nOther groups are already called: {'; '.join(siblings)}. Choose a different name." if siblings else ""
    return (
        "Each line below describes a visual element found by one feature of a vision model. The lines form a group.\n"
        f"{shown}\nName what the group has in common in two to five words.{taken}\nAnswer with the name only."
    )


def clean_label(answer: str) -> str:
    """First line of an answer without quotation marks and final stop, cut at a word."""
    line = next((line.strip() for line in answer.splitlines() if line.strip()), "").strip("\"'“”‘’*. ")
    return line if len(line) <= MAX_LABEL_CHARACTERS else line[:MAX_LABEL_CHARACTERS].rsplit(" ", 1)[0]


def numbered(labels: Mapping[int, str]) -> dict[int, str]:
    """Labels that still repeat get a number, in the order of their clusters."""
    seen: Counter[str] = Counter()
    repeated = {label for label, n in Counter(labels.values()).items() if n > 1}
    result: dict[int, str] = {}
    for key in sorted(labels):
        label = labels[key]
        seen[label] += 1
        result[key] = f"{label} ({seen[label]})" if label in repeated else label
    return result
