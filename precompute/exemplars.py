"""Exemplars of a harvest by feature, with their activation grids, and a small cache of the images they name."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from PIL import Image

from backend.artifacts import Artifact
from backend.errors import ImageUnreadable
from backend.types import PatchGrid, Split
from precompute.datasets import ImageSet

CACHED_BYTES = 1 << 30
"""Decoded pictures kept at once: a thousand and more photographs of ImageNet's size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemplar:
    """An image on which a feature is active."""

    image_id: str
    activation_mean: float
    activation_max: float
    grid: Float[np.ndarray, "row col"]
    """float32 activation per patch, 0 where inactive."""


class ExemplarIndex:
    """The exemplars of one split and pooling, best first, looked up by feature."""

    def __init__(self, harvest: Artifact, split: Split, pooling: str, grid: PatchGrid) -> None:
        table = harvest.table("exemplars")
        wanted = (pc.field("split") == split.value) & (pc.field("pooling") == pooling)
        self.table: pa.Table = table.filter(wanted).combine_chunks()
        self._grid = grid
        self._feature = self.table["feature"].to_numpy()
        assert bool((np.diff(self._feature) >= 0).all()), "harvest writes exemplars sorted by feature"
        self._image_ids = self.table["image_id"].to_pylist()
        self._mean = self.table["activation_mean"].to_numpy()
        self._max = self.table["activation_max"].to_numpy()
        patches, values = (self.table[name].combine_chunks() for name in ("patches", "values"))
        lengths = np.diff(patches.offsets.to_numpy())
        self._offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._patches = patches.flatten().to_numpy()
        self._values = values.flatten().to_numpy()

    def of(self, feature: int, n: int | None = None) -> tuple[Exemplar, ...]:
        """Up to ``n`` exemplars of a feature; none if it is active on no image of the split."""
        start, stop = np.searchsorted(self._feature, [feature, feature + 1])
        if n is not None:
            stop = min(stop, start + n)
        return tuple(self._exemplar(row) for row in range(int(start), int(stop)))

    def _exemplar(self, row: int) -> Exemplar:
        grid = np.zeros(self._grid.n_patches, dtype=np.float32)
        within = slice(self._offsets[row], self._offsets[row + 1])
        grid[self._patches[within]] = self._values[within]
        return Exemplar(
            image_id=self._image_ids[row],
            activation_mean=float(self._mean[row]),
            activation_max=float(self._max[row]),
            grid=grid.reshape(self._grid.rows, self._grid.cols),
        )


class ImageCache:
    """The images of one split, the least recently used ones dropped; ``limit`` is in bytes of decoded pixels."""

    def __init__(self, images: ImageSet, limit: int = CACHED_BYTES) -> None:
        self.images = images
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[str, Image.Image] = OrderedDict()

    def __getitem__(self, image_id: str) -> Image.Image:
        """The picture. Raises ImageUnreadable: it was readable when harvested, so somebody has changed the files."""
        if image_id not in self._kept:
            try:
                self._kept[image_id] = self.images.load(image_id)
            except ImageUnreadable as error:
                raise ImageUnreadable(
                    f"{error}. It was readable when it was harvested: put it back and run again to go on, or choose "
                    "another --out to start over without it."
                ) from error
            self._size += _bytes(self._kept[image_id])
            while self._size > self._limit and len(self._kept) > 1:
                self._size -= _bytes(self._kept.popitem(last=False)[1])
        self._kept.move_to_end(image_id)
        return self._kept[image_id]


def _bytes(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())


def grid_of(harvest: Artifact) -> PatchGrid:
    """The patch grid the harvest was made with."""
    grid = harvest.json("stream")["grid"]
    return PatchGrid(rows=int(grid["rows"]), cols=int(grid["cols"]))


def alive_features(harvest: Artifact) -> tuple[int, ...]:
    """Features that fire on the explain split, in ascending order."""
    table = harvest.table("features")
    return tuple(table.filter(table["alive"])["feature"].to_pylist())
