"""Pictures of a synthetic atlas: shared thumbnails, exemplars with their grids, masks of texts, generated images."""

from __future__ import annotations

import io
from functools import cached_property

import numpy as np
import pyarrow as pa
from jaxtyping import Int64
from PIL import Image, ImageDraw

from backend.types import ARMS
from benchmarks.synthetic_tables import METHODS, SIDE, Plan, chosen, lists, numbers, table

IMAGE_PX = 64
BLOCKS = (
    ("explain", "decile", 5),
    ("explain", "max", 4),
    ("explain", "mean", 6),
    ("score", "mean", 4),
    ("score", "silent", 4),
)
"""Split, pooling and number of the exemplars of every feature, in the order of the table."""
N_IMAGES = {"explain": 300, "score": 200}
N_SYNTHETIC = 64
"""Texts with a generated image."""
_N_PATTERNS = 128
_MASKED = {"explain": 6, "score": 4}


def image_ids(split: str) -> list[str]:
    """Names of the shared pictures of a split."""
    return [f"{split}-{index:04d}" for index in range(N_IMAGES[split])]


def images_of_topic(topic: Int64[np.ndarray, " row"], split: str, rank: Int64[np.ndarray, " row"]) -> np.ndarray:
    """Which picture of a split stands at a rank for a topic; ranks differ in their pictures."""
    return (topic * 7 + rank * 13) % N_IMAGES[split]


class Exemplars:
    """The exemplars of all features: a few patterns, scaled by each feature's maximum and the rank."""

    def __init__(self, made: Plan) -> None:
        self._plan = made
        rows, cols = np.mgrid[:SIDE, :SIDE]
        centres = made.rng("patterns").uniform(0, SIDE, (_N_PATTERNS, 2))
        away = (rows[None] - centres[:, :1, None]) ** 2 + (cols[None] - centres[:, 1:, None]) ** 2
        patterns = np.exp(-away / 4).round(2).reshape(_N_PATTERNS, -1)
        self.patterns = (patterns / patterns.max(axis=1, keepdims=True)).astype(np.float16)

    @cached_property
    def _layout(self) -> dict[str, np.ndarray]:
        """Split, pooling, rank and share of the maximum of one feature's rows."""
        counts = [n for _, _, n in BLOCKS]
        block = np.repeat(np.arange(len(BLOCKS)), counts)
        rank = np.concatenate([np.arange(n) for n in counts])
        silent = np.array([pooling == "silent" for _, pooling, _ in BLOCKS])[block]
        return {"block": block, "rank": rank, "share": np.where(silent, 0, 1 - 0.08 * rank)}

    def table(self) -> pa.Table:
        made, layout = self._plan, self._layout
        per_feature = len(layout["block"])
        block, rank = np.tile(layout["block"], made.n), np.tile(layout["rank"], made.n)
        topic = np.repeat(made.topic, per_feature)
        in_score = np.array([split == "score" for split, _, _ in BLOCKS])[block]
        shift = np.array([{"silent": 61, "decile": 31}.get(pooling, 0) for _, pooling, _ in BLOCKS])[block]
        image = np.where(
            in_score,
            N_IMAGES["explain"] + images_of_topic(topic, "score", rank + shift),
            images_of_topic(topic, "explain", rank + shift),
        )
        peak = (np.repeat(made.maximum, per_feature) * np.tile(layout["share"], made.n)).astype(np.float16)
        grids = self.patterns[(topic + rank) % _N_PATTERNS] * peak[:, None]
        columns: dict[str, pa.Array | np.ndarray] = {
            "feature": np.repeat(made.features, per_feature),
            "split": chosen([split for split, _, _ in BLOCKS], block),
            "pooling": chosen([pooling for _, pooling, _ in BLOCKS], block),
            "rank": rank,
            "image_id": chosen([*image_ids("explain"), *image_ids("score")], image),
            "activation_mean": numbers(grids.mean(axis=1, dtype=np.float32)),
            "activation_max": numbers(grids.max(axis=1)),
            "grid": lists(grids, pa.float16()),
        }
        return table("exemplars", columns)

    def text_masks(self) -> pa.Table:
        """Masks of all method texts on the pictures of their topic."""
        made = self._plan
        n_texts = len(made.codes.topic)
        per_text = sum(_MASKED.values())
        text = np.repeat(np.arange(n_texts), per_text)
        rank = np.tile(np.concatenate([np.arange(n) for n in _MASKED.values()]), n_texts)
        in_score = np.tile(np.repeat([False, True], list(_MASKED.values())), n_texts)
        topic = made.codes.topic[text]
        image = np.where(
            in_score,
            N_IMAGES["explain"] + images_of_topic(topic, "score", rank),
            images_of_topic(topic, "explain", rank),
        )
        masks = np.packbits(self.patterns > 0.4, axis=1)
        values = pa.array([mask.tobytes() for mask in masks], pa.binary())
        columns: dict[str, pa.Array | np.ndarray] = {
            "text": chosen(made.texts, text),
            "image_id": chosen([*image_ids("explain"), *image_ids("score")], image),
            "mask": values.take(pa.array((topic + rank) % _N_PATTERNS)),
        }
        return table("text_masks", columns)


def drawing(index: int, rng: np.random.Generator) -> bytes:
    """A small picture: a plain ground with three coloured shapes."""
    red, green, blue = (int(value) for value in rng.integers(130, 240, 3))
    image = Image.new("RGB", (IMAGE_PX, IMAGE_PX), (red, green, blue))
    pen = ImageDraw.Draw(image)
    for shape in range(3):
        left, top = (int(value) for value in rng.integers(0, IMAGE_PX - 16, 2))
        fill = "#" + "".join(f"{int(value):02x}" for value in rng.integers(0, 255, 3))
        draw = pen.ellipse if (index + shape) % 2 else pen.rectangle
        draw((left, top, left + 16 + 8 * shape, top + 16), fill=fill)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=60)
    return buffer.getvalue()


def images_table(made: Plan) -> pa.Table:
    """The shared pictures."""
    rng = made.rng("images")
    names = [(split, name) for split in N_IMAGES for name in image_ids(split)]
    size = np.full(len(names), IMAGE_PX)
    columns: dict[str, pa.Array | np.ndarray] = {
        "image_id": pa.array([name for _, name in names]),
        "split": pa.array([split for split, _ in names]),
        "webp": pa.array([drawing(index, rng) for index in range(len(names))], pa.binary()),
        "width": size,
        "height": size,
    }
    return table("images", columns)


def synthetic_tables(made: Plan) -> tuple[pa.Table, pa.Table]:
    """One generated image for a few texts, and the activation of their features on it."""
    rng = made.rng("synthetic")
    few = min(N_SYNTHETIC, len(made.texts))
    feature, arm = np.nonzero((made.text[:, METHODS] >= 0) & (made.text[:, METHODS] < few))
    text = made.text[feature, arm]
    images: dict[str, pa.Array | np.ndarray] = {
        "text": pa.array(made.texts[:few]),
        "image_index": np.zeros(few),
        "webp": pa.array([drawing(index, rng) for index in range(few)], pa.binary()),
    }
    activations: dict[str, pa.Array | np.ndarray] = {
        "feature": made.features[feature],
        "arm": chosen([arm.key for arm in ARMS], arm),
        "text": chosen(made.texts, text),
        "image_index": np.zeros(len(text)),
        "activation": numbers(rng.uniform(0, made.maximum[feature])),
    }
    return table("synthetic", images), table("synthetic_activations", activations)
