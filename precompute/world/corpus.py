"""The world's images: shipped corpora for explaining, selecting and scoring, and rendered images for SAE training.

A corpus is one Parquet file: image_id, webp (the picture), spec (JSON of its SceneSpec) and owner_png (the owner of
every pixel, lossless). Training images are drawn from seeds when asked for. The four splits use disjoint seeds.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, UInt8
from PIL import Image

from backend.errors import DatasetMissing, ImageUnreadable
from backend.images import open_image
from backend.settings import resolve_path
from backend.types import Split
from precompute.data_section import limited
from precompute.recipe import Recipe
from precompute.world.concepts import CONCEPTS
from precompute.world.render import GRID, masks_of, patch_owners, render, sprite_sheet_path
from precompute.world.scenes import CORPUS_MIX, SceneSpec, draw_scene

WORLD_VERSION = 1
"""Raised when the same seed would give another picture."""
SPLIT_SEEDS = {Split.TRAIN: 11, Split.EXPLAIN: 12, Split.SELECT: 13, Split.SCORE: 14}
CORPUS_SIZES = {Split.EXPLAIN: 1600, Split.SELECT: 300, Split.SCORE: 1000}
WEBP_QUALITY = 78


def spec_of(split: Split, index: int) -> SceneSpec:
    """The ``index``-th scene of a split; the same on every machine."""
    return draw_scene(np.random.default_rng([SPLIT_SEEDS[split], index]), CORPUS_MIX)


def image_id_of(split: Split, index: int) -> str:
    return f"{split.value}-{index:05d}"


def build_corpus(path: Path, split: Split) -> None:
    """Render a split and write its Parquet file."""
    columns: dict[str, list[object]] = {"image_id": [], "webp": [], "spec": [], "owner_png": []}
    for index in range(CORPUS_SIZES[split]):
        rendered = render(spec_of(split, index))
        picture, owners = io.BytesIO(), io.BytesIO()
        rendered.image.save(picture, "WEBP", quality=WEBP_QUALITY, method=6)
        Image.fromarray(rendered.owners).save(owners, "PNG", optimize=True)
        columns["image_id"].append(image_id_of(split, index))
        columns["webp"].append(picture.getvalue())
        columns["spec"].append(rendered.spec.to_json())
        columns["owner_png"].append(owners.getvalue())
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=256)


class WorldCorpus:
    """One shipped split: pictures, and the exact masks of every concept in them."""

    def __init__(self, path: Path, split: Split, limit: int | None = None) -> None:
        """``limit``: no more images than that, drawn by the hash of their ids; None for all of them."""
        if not path.is_file():
            raise DatasetMissing(
                f"There is no {split.value} corpus at {path}. Restore it with `git checkout -- assets/world/corpus` "
                "or build it with `python -m precompute.world corpora`."
            )
        self.path, self.split, self.name = path, split, "world"
        self._table = pq.read_table(path)
        known: list[str] = self._table["image_id"].to_pylist()
        self._row = {image_id: row for row, image_id in enumerate(known)}
        self.ids: tuple[str, ...] = tuple(known[place] for place in limited(range(len(known)), known, limit))

    @property
    def fingerprint(self) -> str:
        whole = _file_sha256(self.path, self.path.stat().st_mtime_ns)
        if len(self.ids) == len(self._row):
            return whole
        return hashlib.sha256(f"{whole}/{len(self.ids)}".encode()).hexdigest()

    def _cell(self, column: str, image_id: str) -> bytes | str:
        if image_id not in self._row:
            raise ImageUnreadable(f"{image_id} is not in the {self.split.value} corpus {self.path}.")
        return self._table[column][self._row[image_id]].as_py()

    def load(self, image_id: str) -> Image.Image:
        data = self._cell("webp", image_id)
        assert isinstance(data, bytes)
        return open_image(data)

    def spec(self, image_id: str) -> SceneSpec:
        return SceneSpec.from_json(str(self._cell("spec", image_id)))

    def owners(self, image_id: str) -> UInt8[np.ndarray, "height width"]:
        """The owner of every pixel: index into CONCEPTS, or OUTSIDE."""
        data = self._cell("owner_png", image_id)
        assert isinstance(data, bytes)
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture)

    def pixel_masks(self, image_id: str) -> Bool[np.ndarray, "concept height width"]:
        return masks_of(self.spec(image_id), self.owners(image_id))

    def patch_masks(self, image_id: str) -> Bool[np.ndarray, "concept row col"]:
        return masks_of(self.spec(image_id), patch_owners(self.owners(image_id)))


class RenderedImages:
    """The SAE training split: pictures drawn from their seeds whenever they are asked for."""

    def __init__(self, n_images: int) -> None:
        self.name, self.split = "world", Split.TRAIN
        self.ids: Sequence[str] = tuple(image_id_of(Split.TRAIN, index) for index in range(n_images))

    @property
    def fingerprint(self) -> str:
        sheet = sprite_sheet_path()
        named = f"{WORLD_VERSION}/{len(self.ids)}/{_file_sha256(sheet, sheet.stat().st_mtime_ns)}"
        return hashlib.sha256(named.encode()).hexdigest()

    def load(self, image_id: str) -> Image.Image:
        _, _, index = image_id.partition("-")
        return render(spec_of(Split.TRAIN, int(index))).image


@lru_cache(maxsize=16)
def _file_sha256(path: Path, modified_ns: int) -> str:
    """SHA-256 of a file's bytes; ``modified_ns`` keeps the cache honest."""
    del modified_ns
    return hashlib.sha256(path.read_bytes()).hexdigest()


def corpus_path(folder: Path, split: Split) -> Path:
    return folder / f"{split.value}.parquet"


@lru_cache(maxsize=8)
def open_corpus(folder: Path, split: Split, limit: int | None = None) -> WorldCorpus:
    """One of the shipped corpora in ``folder``, or at most ``limit`` images of it."""
    return WorldCorpus(corpus_path(folder, split), split, limit)


def open_image_set(recipe: Recipe, split: Split) -> WorldCorpus | RenderedImages:
    """The images of one split of a world recipe. Called by ``precompute.datasets``."""
    if split is Split.TRAIN:
        return RenderedImages(recipe.data.n_train_images)
    return open_corpus(resolve_path(recipe.data.path), split, recipe.data.limit(split))


def masks_array(corpus: WorldCorpus, image_ids: Sequence[str]) -> Bool[np.ndarray, "image concept row col"]:
    """Patch masks of many images."""
    masks = np.zeros((len(image_ids), len(CONCEPTS), GRID, GRID), bool)
    for slot, image_id in enumerate(image_ids):
        masks[slot] = corpus.patch_masks(image_id)
    return masks
