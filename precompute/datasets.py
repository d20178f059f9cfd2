"""Images by content id: the ImageSet protocol, a folder of pictures, and the choice a recipe makes.

A split is its own set of images: explaining, selecting and scoring never share an image (``require_disjoint``).
This module knows no model; the world's corpora are imported only when a recipe asks for them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from backend.errors import DataError, DatasetMissing, ImageUnreadable, RecipeError
from backend.images import open_image
from backend.settings import resolve_path
from backend.types import Split

if TYPE_CHECKING:
    from PIL import Image

    from precompute.recipe import Recipe

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


class ImageSet(Protocol):
    """One split of a dataset. The order of ``ids`` is fixed: it breaks ties between equal activations."""

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> Split: ...

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def fingerprint(self) -> str: ...

    def load(self, image_id: str) -> Image.Image:
        """The picture as RGB. Raises ImageUnreadable."""
        ...


class ImageFolder:
    """All pictures below ``<folder>/<split>``; an id is the path relative to it, sorted."""

    def __init__(self, folder: Path, split: Split, *, limit: int | None = None) -> None:
        self.folder = folder / split.value
        if not self.folder.is_dir():
            raise DatasetMissing(
                f"There are no {split.value} images at {self.folder}. Put pictures there or change [data] path."
            )
        paths = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        self._sizes = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in paths[:limit]}
        if not self._sizes:
            raise DatasetMissing(f"The folder {self.folder} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))}).")
        self.name = folder.name
        self.split = split
        self.ids: tuple[str, ...] = tuple(self._sizes)

    @property
    def fingerprint(self) -> str:
        """Over names and sizes in bytes: hashing the contents of a large dataset on every start would take hours."""
        return hashlib.sha256(json.dumps(self._sizes, sort_keys=True).encode()).hexdigest()

    def load(self, image_id: str) -> Image.Image:
        if image_id not in self._sizes:
            raise ImageUnreadable(f"{image_id} is not in {self.folder}.")
        return open_image(self.folder / image_id)


DATA_MODULES = {"world": "precompute.world.corpus"}
"""Kind of data to the module whose ``open_image_set(recipe, split)`` builds it."""


def open_image_set(recipe: Recipe, split: Split) -> ImageSet:
    """The images of one split of a recipe. Raises DatasetMissing, or RecipeError for a kind nobody implements."""
    data = recipe.data
    if data.kind == "folder":
        limit = data.n_train_images if split is Split.TRAIN else None
        return ImageFolder(resolve_path(data.path), split, limit=limit)
    if data.kind not in DATA_MODULES:
        known = ", ".join(sorted([*DATA_MODULES, "folder"]))
        raise RecipeError(f"[data] kind = {data.kind!r} is unknown; choose one of: {known}")
    return import_module(DATA_MODULES[data.kind]).open_image_set(recipe, split)


def require_disjoint(ids: Mapping[Split, Sequence[str]]) -> None:
    """Raise DataError if two splits share an image id: an explanation must never be scored on what it saw."""
    for first, second in combinations(ids, 2):
        shared = set(ids[first]) & set(ids[second])
        if shared:
            raise DataError(
                f"The {first.value} and {second.value} splits share {len(shared)} images, e.g. {min(shared)!r}. "
                "Make the splits disjoint."
            )
