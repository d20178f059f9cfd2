"""From words back to concepts: a longest-match reader of the world's vocabulary.

Synonyms count (every phrase of a concept, its bare name, the plural of its group). Words the world does not
know are passed over; text without a single known word raises UnparsableExplanation, never a lucky default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from backend.errors import UnparsableExplanation
from precompute.world.captions import GROUP_PHRASES
from precompute.world.concepts import CONCEPT_BY_ID, CONCEPTS, HYPERNYMS

ARTICLES = ("a", "an", "the", "some", "big", "small")
WORD = re.compile(r"[a-z][a-z-]*")
MAX_TEXT_CHARACTERS = 4000
EXTRA_NAMES: dict[str, tuple[str, ...]] = {
    "pine": ("pine", "fir tree"), "palm": ("palm",), "maple": ("maple", "leaf"), "red_car": ("red car",),
    "blue_car": ("blue car",), "bicycle": ("bike",), "police": ("police",), "builder": ("builder",),
    "guard": ("guard",), "shirt": ("shirt",), "jeans": ("jeans", "trousers"), "boot": ("boot",),
    "crown": ("crown",), "key": ("key",), "book": ("book",), "balloon": ("balloon",), "umbrella": ("umbrella",),
    "football": ("ball",), "watermelon": ("watermelon",), "pizza": ("pizza",), "ice_cream": ("ice cream",),
    "sky": ("sky", "clouds"), "sea": ("sea", "waves"), "sand": ("sand", "desert"), "night": ("night sky", "stars"),
    "brick": ("brick wall", "bricks"), "wood": ("wood", "planks"), "road": ("road",), "floor": ("checkered floor",),
    "corridor": ("corridor", "hallway"), "blurred": ("out of focus", "blurred", "defocus"),
    "dark": ("dark", "dim"), "monochrome": ("black and white photo", "monochrome"), "santa": ("santa",),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedText:
    """Concepts and groups a text names, in order of appearance, without repeats."""

    concepts: tuple[str, ...]
    groups: tuple[str, ...]


@lru_cache(maxsize=1)
def _lexicon() -> dict[tuple[str, ...], tuple[str, str]]:
    """Word sequence -> (``concept`` or ``group``, name)."""
    entries: dict[tuple[str, ...], tuple[str, str]] = {}
    for group in HYPERNYMS:
        for wording in (group, f"{group}s", GROUP_PHRASES.get(group, group)):
            entries[_words(wording)] = ("group", group)
    for concept in CONCEPTS:
        names = (*concept.phrases, concept.id.replace("_", " "), *EXTRA_NAMES.get(concept.id, ()))
        for wording in names:
            entries[_words(wording)] = ("concept", concept.id)
    return entries


def _words(text: str) -> tuple[str, ...]:
    words = WORD.findall(text.lower())
    return tuple(word for word in words if word not in ARTICLES)


@lru_cache(maxsize=65536)
def parse(text: str) -> ParsedText:
    """Read the concepts and groups named in ``text``.

    Raises:
        UnparsableExplanation: no known word, or more than ``MAX_TEXT_CHARACTERS`` characters.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        raise UnparsableExplanation(f"text of {len(text)} characters; the world reads at most {MAX_TEXT_CHARACTERS}")
    words, lexicon = _words(text), _lexicon()
    longest = max(len(entry) for entry in lexicon)
    found: dict[tuple[str, str], None] = {}
    position = 0
    while position < len(words):
        for length in range(min(longest, len(words) - position), 0, -1):
            entry = lexicon.get(words[position : position + length])
            if entry is not None:
                found[entry] = None
                position += length
                break
        else:
            position += 1
    if not found:
        raise UnparsableExplanation(f"no concept of the world is named in {text[:80]!r}")
    return ParsedText(
        concepts=tuple(name for kind, name in found if kind == "concept"),
        groups=tuple(name for kind, name in found if kind == "group"),
    )


def groups_of(concept_id: str) -> frozenset[str]:
    """The concept's family and hypernyms."""
    concept = CONCEPT_BY_ID[concept_id]
    return frozenset((concept.family, *concept.hypernyms))
