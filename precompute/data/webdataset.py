"""Kind ``webdataset``: pictures in local tar shards, as WebDataset lays them out.

``[data] path`` is their folder; [data.sources] gives each split a pattern like ``"test-*.tar"``. Left out, all shards
are one source that the splits divide by rule. Labels and other members are passed over.

An id is ``<shard>/<member>``. A shard goes by its file's name or, where two pictures could then have one id, by its
path in the folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import DatasetMissing
from backend.settings import resolve_path
from backend.types import Split
from precompute.data._division import HASHED, DividedImages, open_division
from precompute.data._tar_shards import TarSource
from precompute.data_section import DataSection

if TYPE_CHECKING:
    from precompute.recipe import Recipe

ALL_SHARDS = "**/*.tar"


def _open_shards(folder: Path, pattern: str, *, by_path: bool = False) -> TarSource:
    shards = sorted(path for path in folder.glob(pattern) if path.is_file()) if folder.is_dir() else []
    if not shards:
        raise DatasetMissing(
            f"There are no shards {pattern} in {folder}. Put them there, or change [data] path or [data.sources]."
        )
    names = [shard.stem for shard in shards]
    if by_path or len(set(names)) < len(names):
        names = [shard.relative_to(folder).with_suffix("").as_posix() for shard in shards]
    return TarSource(f"{folder / pattern}", shards, names)


def _share_ids(folder: Path, patterns: Iterable[str]) -> bool:
    """Whether shards of different sources would give two pictures the same id."""
    keys = [key for pattern in patterns for key in _open_shards(folder, pattern).keys]
    return len(set(keys)) < len(keys)


@lru_cache(maxsize=8)
def open_shards(section: DataSection, split: Split) -> DividedImages:
    """One split of a folder of shards. Raises DatasetMissing or DataError."""
    folder = resolve_path(section.path)
    sources = {one: section.sources.of(one) if section.sources else ALL_SHARDS for one in Split}
    together = {sources[one] for one in HASHED}
    by_path = sources[split] in together and len(together) > 1 and _share_ids(folder, together)
    open_source = partial(_open_shards, folder, by_path=by_path)
    return open_division(folder.name, section, split, open_source, sources)


def open_image_set(recipe: Recipe, split: Split) -> DividedImages:
    """Called by ``precompute.datasets``."""
    return open_shards(recipe.data, split)
