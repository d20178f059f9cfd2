"""Images by id: the ImageSet protocol, and the choice a recipe makes among the kinds in precompute/data/.

A split is its own set of images: explaining, selecting and scoring never share an image (``require_disjoint``).
This module knows no model and no kind; a kind's module is imported only when a recipe asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import combinations
from typing import TYPE_CHECKING, Protocol

from backend.errors import DataError, RecipeError
from backend.types import Split
from precompute.data import kinds

if TYPE_CHECKING:
    from PIL import Image

    from precompute.recipe import Recipe


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


DATA_MODULES = {kind: f"precompute.data.{kind}" for kind in kinds()}
"""Kind of data to the module whose ``open_image_set(recipe, split)`` builds it."""


def open_image_set(recipe: Recipe, split: Split) -> ImageSet:
    """The images of one split of a recipe. Raises DatasetMissing, or RecipeError for a kind nobody implements."""
    kind = recipe.data.kind
    if kind not in DATA_MODULES:
        raise RecipeError(f"[data] kind = {kind!r} is unknown; choose one of: {', '.join(sorted(DATA_MODULES))}")
    return import_module(DATA_MODULES[kind]).open_image_set(recipe, split)


def require_disjoint(ids: Mapping[Split, Sequence[str]]) -> None:
    """Raise DataError if two splits share an image id: an explanation must never be scored on what it saw."""
    for first, second in combinations(ids, 2):
        shared = set(ids[first]) & set(ids[second])
        if shared:
            raise DataError(
                f"The {first.value} and {second.value} splits share {len(shared)} images, e.g. {min(shared)!r}. "
                "Make the splits disjoint."
            )
