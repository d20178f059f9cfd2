"""The caption grammar: several wordings for what a scene shows, and for a single highlighted element.

Every sentence can be read back by ``precompute.world.parser``. The first wording of a concept is the usual one, so
that greedy decoding of a model trained on these captions settles on it.
"""

from __future__ import annotations

import numpy as np

from precompute.world.concepts import CONCEPT_BY_ID, CONCEPTS, OBJECTS
from precompute.world.render import GRID, Rendered
from precompute.world.scenes import Placed

NOTHING = "nothing"
"""The answer when the picture is blank."""

USUAL_WORDING = 0.75
SIZE_WORD_FRACTION = 0.15
HYPERNYM_FRACTION = 0.03
BIG_PX, SMALL_PX = 64, 36
SMALLEST_AREA_PATCHES = GRID * GRID // 16
SMALLEST_OBJECT_PATCHES = 5

GROUP_PHRASES: dict[str, str] = {
    "depth": "something with depth",
    "perspective": "a place in perspective",
    "stripes": "stripes of some kind",
    "pattern": "a kind of pattern",
    "colour": "a plain colour",
    "nature": "a landscape",
    "landscape": "a landscape",
    "background": "a background",
    "wall": "a kind of wall",
    "person": "a person",
    "clothing": "a piece of clothing",
    "food": "some food",
    "footwear": "some footwear",
    "headwear": "some headwear",
}
"""Wording of a group where ``a kind of GROUP`` would read badly."""

ASKED_GROUPS: tuple[str, ...] = (
    "animal", "bird", "sea creature", "plant", "tree", "flower", "food", "fruit", "vehicle", "car", "aircraft",
    "person", "clothing", "footwear", "headwear", "building", "musical instrument", "perspective", "stripes",
    "pattern", "colour", "landscape", "wall",
)  # fmt: skip


def group_phrase(group: str) -> str:
    """Words for a group of concepts, e.g. ``a kind of bird``."""
    return GROUP_PHRASES.get(group, f"a kind of {group}")


def phrase(rng: np.random.Generator, concept_id: str) -> str:
    """One of the concept's wordings, usually the first."""
    phrases = CONCEPT_BY_ID[concept_id].phrases
    if rng.random() < USUAL_WORDING:
        return phrases[0]
    return phrases[int(rng.integers(len(phrases)))]


def visible_concepts(rendered: Rendered) -> list[str]:
    """What a caption should name: areas of at least 16 patches and objects of at least 5, and the light."""
    masks = rendered.patch_masks()
    sizes = masks.sum((1, 2))
    smallest = np.where(np.arange(len(CONCEPTS)) < len(OBJECTS), SMALLEST_OBJECT_PATCHES, SMALLEST_AREA_PATCHES)
    return [CONCEPTS[index].id for index in np.flatnonzero(sizes >= smallest)]


def caption(rng: np.random.Generator, rendered: Rendered) -> str:
    """A sentence naming every visible concept: objects from left to right, areas in reading order."""
    visible = visible_concepts(rendered)
    if not visible:
        return NOTHING
    placed = {one.object: one for one in rendered.spec.objects}
    objects = [name for name in visible if CONCEPT_BY_ID[name].kind == "object"]
    areas = [name for name in visible if CONCEPT_BY_ID[name].kind in ("background", "texture", "colour")]
    light = [name for name in visible if CONCEPT_BY_ID[name].kind == "photometric"]
    objects.sort(key=lambda name: (placed[name].left + placed[name].size / 2, name))
    areas.sort(key=[area.fill for area in rendered.spec.areas].index)
    words = _objects(rng, [placed[name] for name in objects])
    ground = " next to ".join(phrase(rng, name) for name in areas)
    parts = [_join(rng, words, ground)] + [phrase(rng, name) for name in light]
    return " and ".join(part for part in parts if part)


def _join(rng: np.random.Generator, words: str, ground: str) -> str:
    if not words or not ground:
        return words or ground
    wordings = (f"{words} on {ground}", f"{words} in front of {ground}", f"{ground} with {words}")
    return wordings[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]


def _objects(rng: np.random.Generator, placed: list[Placed]) -> str:
    if len(placed) == 2 and rng.random() < 0.2:
        first, second = placed
        return f"{_object(rng, first)} {_relation(first, second)} {_object(rng, second)}"
    return " and ".join(_object(rng, one) for one in placed)


def _relation(first: Placed, second: Placed) -> str:
    rows, cols = first.top - second.top, first.left - second.left
    if abs(rows) > abs(cols):
        return "above" if rows < 0 else "below"
    return "left of" if cols < 0 else "right of"


def _object(rng: np.random.Generator, placed: Placed) -> str:
    concept = CONCEPT_BY_ID[placed.object]
    if rng.random() < HYPERNYM_FRACTION:
        return group_phrase(concept.hypernyms[-1])
    words = phrase(rng, placed.object)
    size = "big" if placed.size >= BIG_PX else "small" if placed.size <= SMALL_PX else ""
    article, _, noun = words.partition(" ")
    if size and article in ("a", "an") and rng.random() < SIZE_WORD_FRACTION:
        return f"a {size} {noun}"
    return words
