"""The judges of an explanation, as protocols: the world implements them exactly, paper-scale models approximately.

This module knows neither the world's concepts nor any model. A module of this package that holds a ``JUDGE`` adds a
paper-scale judge under the module's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from backend.errors import SubjectMissing
from backend.settings import resolve_path
from backend.types import TruthOutcome
from backend.weights import REPOSITORY_PATTERN, cached_repository, missing_files

if TYPE_CHECKING:
    from PIL import Image

    from precompute.datasets import ImageSet
    from precompute.recipe import JudgesSection, Runtime


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
    ) -> Sequence[Bool[np.ndarray, "h w"]]:
        """One mask per image, at the image's own resolution; images may differ in size.

        A text that is found nowhere in an image gives an empty mask: that is a measurement, an IoU of 0. A text that
        names nothing raises UnparsableExplanation, and its score is absent. An id stands for one image only, so that
        what does not depend on the text may be remembered under it.
        """
        ...


class ImageTextEncoder(Protocol):
    """A CLIP: images and texts in one space, rows of unit norm."""

    @property
    def fingerprint(self) -> str: ...

    def encode_images(self, images: Sequence[Image.Image]) -> Float32[np.ndarray, "image d"]: ...

    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d"]:
        """One row for every text, an empty one included; of a long text only the beginning is read."""
        ...


@runtime_checkable
class CutsTexts(Protocol):
    """A judge whose text encoders hold so many tokens and no more: of a longer text they read the beginning."""

    def cut_texts(self, texts: Sequence[str]) -> Mapping[str, int]:
        """How many of some texts each of its text encoders cuts; the encoder with its limit, in words, is the key."""
        ...


def n_longer(tokenizer: Any, texts: Sequence[str], limit: int) -> int:
    """How many texts have more than ``limit`` tokens (marks of beginning and end too), by a transformers tokenizer."""
    if not texts:
        return 0
    # Not verbose: it would say on the terminal what is counted here.
    return sum(len(ids) > limit for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"])


class TruthOracle(Protocol):
    """Knows what is in every patch, and whether a text names a concept."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def concepts(self) -> Sequence[str]: ...

    def masks(self, image_set: ImageSet, image_ids: Sequence[str]) -> Bool[np.ndarray, "image concept row col"]: ...

    def judge(self, concept: str, text: str) -> TruthOutcome:
        """RIGHT, PARTLY (the family, another of it, or a long list) or WRONG, as is a text that cannot be parsed."""
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

    def cut_texts(self, texts: Sequence[str]) -> dict[str, int]:
        """As :class:`CutsTexts`, over all judges that read with a text encoder."""
        judges = [one for one in (self.generator, self.segmenter, self.image_text) if isinstance(one, CutsTexts)]
        return {encoder: n for one in judges for encoder, n in one.cut_texts(texts).items()}


# ------------------------------------------------------------------------------------------------ paper-scale judges


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededWeights:
    """A model that a judge needs on this machine."""

    part: str
    """What it is for, e.g. ``segmenter: boxes``."""
    model: str
    """Folder (``assets/...`` and ``shrunken/...`` as in a recipe) or Hub repository id."""
    needed: tuple[str, ...]
    """Globs below the folder, each of which must match a file; alternatives parted by ``|``."""
    patterns: tuple[str, ...]
    """Globs of the files that determine what the model computes: what is fetched, and what the fingerprint is of."""

    @property
    def repository(self) -> str | None:
        """The Hub repository id, or None if a folder is named."""
        is_place = Path(self.model).parts[:1] in (("assets",), ("shrunken",)) or resolve_path(self.model).exists()
        return self.model if not is_place and REPOSITORY_PATTERN.fullmatch(self.model) else None

    def folder(self) -> Path:
        """Where the files lie. Raises SubjectMissing, naming repository, licence page and the command that mends it."""
        if self.repository is not None:
            return cached_repository(self.repository, self.patterns, needed=self.needed)
        folder = resolve_path(self.model)
        if absent := missing_files(folder, self.needed):
            raise SubjectMissing(f"there is no model for {self.part} in {folder}: missing {', '.join(absent)}")
        return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeKind:
    """How a judge is opened: the constant ``JUDGE`` of a module of this package. Opening loads no weights."""

    role: Literal["generator", "segmenter", "image_text"]
    packages: tuple[str, ...]
    """Packages that must be installed besides torch and transformers, as they are imported."""
    weights: Callable[[JudgesSection], Sequence[NeededWeights]]
    open: Callable[[JudgesSection, Runtime], Any]
    """An ImageGenerator, Segmenter or ImageTextEncoder, after its role. Raises SubjectMissing."""
