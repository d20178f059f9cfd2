"""Images generated from explanations, once per distinct text, and every feature's activation on them.

One image set per text serves all metrics: the text's own features (positives) and other features (hard negatives).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from PIL import Image

from backend.errors import UnparsableExplanation
from backend.models.base import VisionTower
from backend.sae import TopKSAE
from precompute.encoding import finite_residuals
from precompute.judges import ImageGenerator
from precompute.sparse_codes import by_feature, pooled_matrix

WEBP_QUALITY = 80
SYNTHETIC_SCHEMA = pa.schema([("text", pa.string()), ("image_index", pa.int32()), ("webp", pa.binary())])


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticImages:
    """The images of some texts; texts that no image could be made of are missing."""

    texts: tuple[str, ...]
    """Text of each image."""
    indices: tuple[int, ...]
    images: tuple[Image.Image, ...]


def text_seed(seed: int, text: str) -> int:
    """Seed of a text's images: the same wherever and whenever the text is drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:4], "big")


def draw(generator: ImageGenerator, texts: Sequence[str], n: int, seed: int) -> SyntheticImages:
    """``n`` images of every text that the generator understands."""
    drawn: list[tuple[str, int, Image.Image]] = []
    for text in texts:
        try:
            images = generator.generate(text, n, text_seed(seed, text))
        except UnparsableExplanation:
            continue
        drawn += [(text, index, image) for index, image in enumerate(images)]
    return SyntheticImages(
        texts=tuple(item[0] for item in drawn),
        indices=tuple(item[1] for item in drawn),
        images=tuple(item[2] for item in drawn),
    )


def pooled_activations(
    subject: VisionTower, sae: TopKSAE, images: Sequence[Image.Image], images_per_batch: int
) -> Float[np.ndarray, "image d_sae"]:
    """Mean-pooled activation of every feature on every image, float32."""
    parts = [np.zeros((0, sae.d_sae), np.float32)]
    for start in range(0, len(images), images_per_batch):
        residuals = finite_residuals(subject, subject.preprocess(images[start : start + images_per_batch]))
        codes = sae.encode(residuals)
        parts.append(pooled_matrix(by_feature(codes.values, codes.indices), residuals.shape[0], sae.d_sae))
    return np.concatenate(parts)


def webp_bytes(image: Image.Image, quality: int = WEBP_QUALITY) -> bytes:
    """The picture as a lossy WebP file."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def synthetic_table(drawn: SyntheticImages) -> pa.Table:
    """synthetic.parquet: one row per image, in the order of the activation matrix."""
    columns = [list(drawn.texts), list(drawn.indices), [webp_bytes(image) for image in drawn.images]]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, SYNTHETIC_SCHEMA, strict=True)],
        schema=SYNTHETIC_SCHEMA,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Rows of the activation matrix and the number of the text each belongs to."""

    rows: Int[np.ndarray, " image"]
    numbers: Int[np.ndarray, " image"]


class SyntheticActivations:
    """Activations on all synthetic images, looked up by text."""

    def __init__(self, texts: Sequence[str], matrix: Float[np.ndarray, "image d_sae"]) -> None:
        self.matrix = matrix
        self._rows: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            self._rows.setdefault(text, []).append(row)
        self._number = {text: number for number, text in enumerate(self._rows)}

    def __contains__(self, text: object) -> bool:
        return text in self._rows

    def of(self, text: str, feature: int) -> Float[np.ndarray, " image"]:
        """Activations of a feature on the images of a text."""
        return self.matrix[self._rows[text], feature]

    def pool(self, texts: Iterable[str]) -> Pool:
        """The images of some texts (those that have any), to draw hard negatives from."""
        rows = [(row, self._number[text]) for text in sorted(set(texts)) if text in self for row in self._rows[text]]
        table = np.array(rows, dtype=np.int64).reshape(-1, 2)
        return Pool(rows=table[:, 0], numbers=table[:, 1])

    def others(
        self, pool: Pool, own: str, feature: int, n: int, rng: np.random.Generator
    ) -> Float[np.ndarray, " image"]:
        """Activations of a feature on up to ``n`` random images of the pool's texts other than its own."""
        rows = pool.rows[pool.numbers != self._number[own]]
        if rows.size > n:
            rows = rng.choice(rows, size=n, replace=False)
        return self.matrix[rows, feature]
