"""The distinct texts of a run: their embeddings, what sort of thing each names, and where each lies in images.

Many features get the same words, so texts are stored once and features find theirs through the explanations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from backend.atlas_schema import ATLAS_TABLES
from backend.errors import MasksUnknown, UnparsableExplanation
from backend.types import ARMS, PatchGrid
from precompute.judges import Segmenter, TruthOracle

if TYPE_CHECKING:
    from PIL import Image

    from backend.artifacts import Artifact
    from backend.text_encoders import TextEncoder

METHOD_ARMS = frozenset(arm.key for arm in ARMS if not arm.is_control)
_HALF = 2
"""A patch counts as covered if the mask fills at least one part in so many of it."""


def distinct_texts(explain: Artifact) -> list[str]:
    """All different texts of a run, sorted."""
    return sorted({text for text in explain.table("explanations")["text"].to_pylist() if text is not None})


def embed_distinct(
    encoder: TextEncoder, texts: Sequence[str], leading: Sequence[str | None]
) -> Float32[np.ndarray, "text d"]:
    """Unit rows of ``texts`` (distinct).

    Those also in ``leading`` are encoded by themselves, so that the map, which is laid out by them alone, does not
    depend on what else was written: the last digits of an embedding depend on the texts encoded with it.
    """
    first = sorted({text for text in leading if text})
    others = sorted(set(texts) - set(first))
    parts = [encoder.encode(part) for part in (first, others) if part]
    if not parts:
        return np.zeros((0, 1), np.float32)
    place = {text: row for row, text in enumerate([*first, *others])}
    return np.concatenate(parts)[[place[text] for text in texts]].astype(np.float32)


def rows_of(
    embeddings: Float32[np.ndarray, "text d"], texts: Sequence[str], wanted: Sequence[str | None]
) -> Float32[np.ndarray, "wanted d"]:
    """The row of each wanted text; a missing one has a row of zeros, which is near nothing."""
    place = {text: row for row, text in enumerate(texts)}
    empty = np.zeros(embeddings.shape[1], np.float32)
    return np.stack([embeddings[place[text]] if text else empty for text in wanted])


def texts_table(texts: Sequence[str], oracle: TruthOracle | None) -> pa.Table:
    """The atlas table ``texts``; groups are null where nobody can tell."""
    groups = [None if oracle is None else oracle.groups(text) for text in texts]
    rows = {"text": list(texts), "groups": [None if found is None else list(found) for found in groups]}
    return pa.Table.from_pydict(rows, schema=ATLAS_TABLES["texts"])


# ---------------------------------------------------------------------------------------------------------- masks


def images_by_text(explanations: pa.Table, images: Mapping[int, Sequence[str]]) -> dict[str, list[str]]:
    """For every text of a method: the images of the features it was written for, sorted, each once."""
    found: dict[str, set[str]] = {}
    columns = (explanations[name].to_pylist() for name in ("feature", "arm", "text"))
    for feature, arm, text in zip(*columns, strict=True):
        if text is not None and arm in METHOD_ARMS:
            found.setdefault(text, set()).update(images.get(feature, ()))
    return {text: sorted(names) for text, names in sorted(found.items()) if names}


def to_patches(masks: Bool[np.ndarray, "image height width"], grid: PatchGrid) -> Bool[np.ndarray, "image row col"]:
    """Pixel masks pooled to the patch grid: a patch is True if at least half of its pixels are."""
    height, width = masks.shape[1:]
    rows = -(-np.arange(grid.rows) * height // grid.rows)  # first pixel of each patch
    cols = -(-np.arange(grid.cols) * width // grid.cols)
    covered = np.add.reduceat(np.add.reduceat(masks.astype(np.int64), rows, axis=1), cols, axis=2)
    sizes = np.outer(np.diff([*rows, height]), np.diff([*cols, width]))
    return covered * _HALF >= sizes


def text_masks(
    segmenter: Segmenter,
    text: str,
    images: Mapping[str, Image.Image],
    grid: PatchGrid,
    images_per_batch: int,
) -> list[dict[str, object]]:
    """Rows of the atlas table ``text_masks`` for one text; none if it cannot be read or no masks are known."""
    names = list(images)
    rows: list[dict[str, object]] = []
    for start in range(0, len(names), images_per_batch):
        chosen = names[start : start + images_per_batch]
        try:
            masks = segmenter.segment(chosen, [images[name] for name in chosen], text)
        except (UnparsableExplanation, MasksUnknown):
            return []
        patches = np.stack([to_patches(mask[None], grid)[0] for mask in masks])  # images may differ in size
        packed = np.packbits(patches.reshape(len(chosen), -1), axis=1)
        rows += [
            {"text": text, "image_id": name, "mask": mask.tobytes()} for name, mask in zip(chosen, packed, strict=True)
        ]
    return rows
