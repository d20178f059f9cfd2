"""Kind ``webdataset``: pictures in local tar shards, as WebDataset lays them out.

``[data] path`` is their folder; [data.sources] gives each split a pattern like ``"test-*.tar"``. Left out, all shards
are one source that the splits divide by rule. An id is ``<shard>/<member>``. Labels and other members are passed over.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import DatasetMissing
from backend.settings import resolve_path
from backend.types import Split
from precompute.data._division import DividedImages, open_division
from precompute.data._tar_shards import TarSource
from precompute.data_section import DataSection

if TYPE_CHECKING:
    from precompute.recipe import Recipe

ALL_SHARDS = "**/*.tar"


def _open_shards(folder: Path, pattern: str) -> TarSource:
    shards = sorted(path for path in folder.glob(pattern) if path.is_file()) if folder.is_dir() else []
    if not shards:
        raise DatasetMissing(
            f"There are no shards {pattern} in {folder}. Put them there, or change [data] path or [data.sources]."
        )
    return TarSource(f"{folder / pattern}", shards)


@lru_cache(maxsize=8)
def open_shards(section: DataSection, split: Split) -> DividedImages:
    """One split of a folder of shards. Raises DatasetMissing or DataError."""
    folder = resolve_path(section.path)
    sources = {one: section.sources.of(one) if section.sources else ALL_SHARDS for one in Split}
    return open_division(folder.name, section, split, lambda pattern: _open_shards(folder, pattern), sources)


def open_image_set(recipe: Recipe, split: Split) -> DividedImages:
    """Called by ``precompute.datasets``."""
    return open_shards(recipe.data, split)
