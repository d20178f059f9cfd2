"""The world's judges: the renderer as image generator, exact masks as segmenter, truth, and a small CLIP.

Each reads an explanation through the parser. Text that names no concept raises UnparsableExplanation: there is
no default picture and no default mask.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from backend.errors import ImageUnreadable, MasksUnknown, UnparsableExplanation
from backend.settings import resolve_path
from backend.types import Split, TruthOutcome
from precompute.datasets import ImageSet
from precompute.judges import Judges
from precompute.recipe import Recipe, Runtime
from precompute.world.clip import WorldClipEncoder
from precompute.world.concepts import CONCEPT_BY_ID, CONCEPT_INDEX, CONCEPTS
from precompute.world.corpus import WORLD_VERSION, WorldCorpus, masks_array, open_corpus
from precompute.world.fills import SIDE_PX
from precompute.world.parser import ParsedText, groups_of, parse
from precompute.world.render import render
from precompute.world.scenes import BACKGROUND_IDS, OBJECT_IDS, PAPER, Area, SceneSpec, scatter

KIND = "world"
"""Kind of data whose masks are known."""
MAX_NAMED = 4
"""A picture is drawn of at most so many concepts; a longer list is cut after them."""
MAX_NAMED_RIGHT = 2
"""An explanation that lists more concepts than this is no longer *right*: a list of everything names the truth too."""


def members_of(group: str) -> tuple[str, ...]:
    """Concepts of a family or hypernym."""
    return tuple(concept.id for concept in CONCEPTS if group in groups_of(concept.id))


def _version(name: str) -> str:
    return hashlib.sha256(f"{name}/{WORLD_VERSION}".encode()).hexdigest()


class WorldImageGenerator:
    """Draws the concepts an explanation names; of a group, a member chosen per image."""

    fingerprint = _version("generator 1")

    def generate(self, text: str, n: int, seed: int) -> list[Image.Image]:
        parsed = parse(text)
        return [
            render(self._spec(parsed, np.random.default_rng([seed, index, _stable(text)]))).image for index in range(n)
        ]

    def _spec(self, parsed: ParsedText, rng: np.random.Generator) -> SceneSpec:
        drawn = [_any(rng, members_of(group)) for group in parsed.groups] if not parsed.concepts else []
        names = [*parsed.concepts, *drawn][:MAX_NAMED]
        objects = [name for name in names if name in OBJECT_IDS]
        fills = [name for name in names if CONCEPT_BY_ID[name].kind in ("background", "texture", "colour")]
        light = {name for name in names if CONCEPT_BY_ID[name].kind == "photometric"}
        if light and not fills:
            fills = [_any(rng, BACKGROUND_IDS)]
        if light and not objects:
            objects = [_any(rng, OBJECT_IDS)]
        low, high = (56, 110) if len(objects) == 1 else (40, 70)
        return SceneSpec(
            seed=int(rng.integers(2**31 - 1)),
            areas=_columns(fills or [PAPER]),
            objects=scatter(rng, objects, low, high),
            blurred="blurred" in light,
            dark="dark" in light,
            monochrome="monochrome" in light,
        )


def _stable(text: str) -> int:
    return zlib.crc32(text.encode())


def _any(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _columns(fills: Sequence[str]) -> tuple[Area, ...]:
    edges = [round(SIDE_PX * part / len(fills)) for part in range(len(fills) + 1)]
    return tuple(
        Area(fill=fill, left=left, right=right) for fill, left, right in zip(fills, edges, edges[1:], strict=False)
    )


class WorldSegmenter:
    """The exact pixels of the named concepts; of a group, of all its members."""

    def __init__(self, corpus_dir: Path) -> None:
        self._folder = corpus_dir
        self.fingerprint = _version("segmenter 1")

    def segment(
        self, image_ids: Sequence[str], images: Sequence[Image.Image], text: str
    ) -> list[Bool[np.ndarray, "h w"]]:
        del images
        parsed = parse(text)
        wanted = {*parsed.concepts} or {name for group in parsed.groups for name in members_of(group)}
        rows = sorted(CONCEPT_INDEX[name] for name in wanted)
        return [np.asarray(self._corpus(image_id).pixel_masks(image_id)[rows].any(0)) for image_id in image_ids]

    def _corpus(self, image_id: str) -> WorldCorpus:
        name = image_id.partition("-")[0]
        if name not in (Split.EXPLAIN, Split.SELECT, Split.SCORE):
            raise ImageUnreadable(f"{image_id} belongs to no corpus with masks; explain, select and score have them")
        return open_corpus(self._folder, Split(name))


class WorldTruth:
    """What is in every patch, and whether a text says so."""

    fingerprint = _version("truth 1")
    concepts: tuple[str, ...] = tuple(concept.id for concept in CONCEPTS)

    def masks(self, image_set: ImageSet, image_ids: Sequence[str]) -> Bool[np.ndarray, "image concept row col"]:
        if not isinstance(image_set, WorldCorpus):
            raise ImageUnreadable(f"the {image_set.split.value} images of {image_set.name} have no exact masks")
        return masks_array(image_set, image_ids)

    def judge(self, concept: str, text: str) -> TruthOutcome:
        """RIGHT: the concept is among at most two named. PARTLY: it is in a longer list, or a family or hypernym of it
        is named, or something else that belongs to one. Else WRONG.
        """
        try:
            parsed = parse(text)
        except UnparsableExplanation:
            return TruthOutcome.WRONG
        if concept in parsed.concepts:
            return TruthOutcome.RIGHT if len(parsed.concepts) <= MAX_NAMED_RIGHT else TruthOutcome.PARTLY
        named = set(parsed.groups).union(*(groups_of(name) for name in parsed.concepts))
        return TruthOutcome.PARTLY if named & groups_of(concept) else TruthOutcome.WRONG

    def family(self, concept: str) -> str:
        return CONCEPT_BY_ID[concept].family

    def kind(self, concept: str) -> str:
        """object, background, texture, colour or photometric."""
        return CONCEPT_BY_ID[concept].kind

    def terms(self, concept: str) -> tuple[str, ...]:
        """Name, family and hypernyms, for search."""
        known = CONCEPT_BY_ID[concept]
        return tuple(dict.fromkeys((known.id.replace("_", " "), known.family, *known.hypernyms)))

    def groups(self, text: str) -> tuple[str, ...] | None:
        """Family of every object named, kind of everything else; of a group, the sort its members share or its name."""
        try:
            parsed = parse(text)
        except UnparsableExplanation:
            return None
        named = [_sort(name) for name in parsed.concepts]
        for group in parsed.groups:
            sorts = {_sort(name) for name in members_of(group)}
            named.append(sorts.pop() if len(sorts) == 1 else group)
        return tuple(dict.fromkeys(named))


def _sort(concept: str) -> str:
    """What sort of thing a concept is: an object by its family, anything else by its kind."""
    known = CONCEPT_BY_ID[concept]
    return known.family if known.kind == "object" else known.kind


class NoMasks:
    """Stands in for the segmenter where images are not the world's: the renderer knows its own scenes only."""

    fingerprint = _version("no masks 1")

    def segment(
        self, image_ids: Sequence[str], images: Sequence[Image.Image], text: str
    ) -> Sequence[Bool[np.ndarray, "h w"]]:
        """Raises MasksUnknown, or UnparsableExplanation for a text that names nothing."""
        del image_ids, images
        parse(text)
        raise MasksUnknown("no masks are known for these images")


def open_judges(recipe: Recipe, runtime: Runtime | None = None) -> Judges:
    """The judges of a world recipe. Called by ``precompute.judges``; they compute on the CPU whatever the runtime.

    Over images that are not the world's, IoU and truth are absent: generator and CLIP alone can judge.
    """
    del runtime
    ours = recipe.data.kind == KIND
    return Judges(
        generator=WorldImageGenerator(),
        segmenter=WorldSegmenter(resolve_path(recipe.data.path)) if ours else NoMasks(),
        image_text=WorldClipEncoder(resolve_path(recipe.judges.clip)),
        truth=WorldTruth() if ours else None,
    )
