"""The judges of an explanation, as protocols: the world implements them exactly, paper-scale models approximately.

This module knows neither the world's concepts nor any model; ``open_judges`` imports the chosen kind when asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Bool, Float32

from backend.errors import RecipeError
from backend.types import TruthOutcome

if TYPE_CHECKING:
    from PIL import Image

    from precompute.datasets import ImageSet
    from precompute.recipe import Recipe


class ImageGenerator(Protocol):
    """Draws images from an explanation."""

    @property
    def fingerprint(self) -> str: ...

    def generate(self, text: str, n: int, seed: int) -> list[Image.Image]:
        """``n`` RGB images; equal arguments give equal pixels. Raises UnparsableExplanation."""
        ...


class Segmenter(Protocol):
    """Finds the region an explanation speaks about."""

    @property
    def fingerprint(self) -> str: ...

    def segment(
        self, image_ids: Sequence[str], images: Sequence[Image.Image], text: str
    ) -> Bool[np.ndarray, "image h w"]:
        """One mask per image, at image resolution. Raises UnparsableExplanation."""
        ...


class ImageTextEncoder(Protocol):
    """A CLIP: images and texts in one space, rows of unit norm."""

    @property
    def fingerprint(self) -> str: ...

    def encode_images(self, images: Sequence[Image.Image]) -> Float32[np.ndarray, "image d"]: ...

    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d"]: ...


class TruthOracle(Protocol):
    """Knows what is in every patch, and whether a text names a concept."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def concepts(self) -> Sequence[str]: ...

    def masks(self, image_set: ImageSet, image_ids: Sequence[str]) -> Bool[np.ndarray, "image concept row col"]: ...

    def judge(self, concept: str, text: str) -> TruthOutcome:
        """RIGHT, PARTLY (family or hypernym) or WRONG; a text that cannot be parsed is WRONG."""
        ...

    def family(self, concept: str) -> str:
        """The concept's family, e.g. ``animal``."""
        ...

    def kind(self, concept: str) -> str:
        """What sort of concept it is, e.g. ``object`` or ``texture``; coverage is reported by kind."""
        ...

    def terms(self, concept: str) -> Sequence[str]:
        """Words under which a person would search for the concept: its names, family and hypernyms."""
        ...

    def groups(self, text: str) -> Sequence[str] | None:
        """What sorts of thing a text names, e.g. ``animal`` and ``background``; None if that cannot be told."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judges:
    """The judges of one recipe. ``truth`` is None where nobody knows the truth (real images)."""

    generator: ImageGenerator
    segmenter: Segmenter
    image_text: ImageTextEncoder
    truth: TruthOracle | None = None

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """What goes into a stage's fingerprint."""
        named = {
            "generator": self.generator,
            "segmenter": self.segmenter,
            "image_text": self.image_text,
            "truth": self.truth,
        }
        return {name: judge.fingerprint for name, judge in named.items() if judge is not None}


JUDGE_MODULES = {"world": "precompute.world.judges"}
"""Kind of judges to the module whose ``open_judges(recipe)`` builds them; heavy imports happen there."""


def open_judges(recipe: Recipe) -> Judges:
    """The judges a recipe asks for. Raises RecipeError for a kind nobody implements."""
    kind = recipe.judges.kind
    if kind not in JUDGE_MODULES:
        raise RecipeError(f"[judges] kind = {kind!r} is unknown; choose one of: {', '.join(sorted(JUDGE_MODULES))}")
    return import_module(JUDGE_MODULES[kind]).open_judges(recipe)
