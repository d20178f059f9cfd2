"""Kind ``folder``: pictures in a folder, with any nesting.

With the subfolders ``explain``, ``select`` and ``score`` (and ``train``) each split has its own. Any other folder is
one source that all splits divide by rule; so is any folder if the recipe has [data.sources] that say so (``"."`` is the
folder itself) or [data.shares]. An id is the path relative to the folder, not to the subfolder: those may share names.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import DatasetMissing
from backend.settings import resolve_path
from backend.types import Split
from precompute.data._division import DividedImages, open_division
from precompute.data._sources import digest
from precompute.data_section import DataSection

if TYPE_CHECKING:
    from precompute.recipe import Recipe

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
WHOLE = "."
LONGEST_ID = 160
"""Characters of a relative path that is used as an id; a longer one is shortened and its hash put before it."""


class FolderSource:
    """All pictures below a folder, sorted by their relative path. Hidden files and folders are left out."""

    def __init__(self, folder: Path, what: str, within: str = WHOLE) -> None:
        """``what`` they are for, for messages; ``within``: the folder's own path, put before the ids."""
        if not folder.is_dir():
            raise DatasetMissing(
                f"There is no folder with the {what} images at {folder}. Put pictures there or change [data] path."
            )
        self.name = str(folder)
        named = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if _is_picture(path, folder)}
        if not named:
            raise DatasetMissing(f"The folder {folder} holds no picture ({', '.join(sorted(IMAGE_SUFFIXES))}).")
        self._paths = [named[name] for name in sorted(named)]
        self.keys = tuple(_id((Path(within) / name).as_posix()) for name in sorted(named))
        stats = [(found.st_size, found.st_mtime_ns) for found in (path.stat() for path in self._paths)]
        self.identity = digest(*self.keys, *(size for size, _ in stats))
        self.state = digest(folder.resolve(), *self.keys, *(number for stat in stats for number in stat))

    def get(self, place: int) -> Path:
        return self._paths[place]


def _is_picture(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file()


def _id(name: str) -> str:
    return name if len(name) <= LONGEST_ID else f"{digest(name)[:16]}-{name[-(LONGEST_ID - 17) :]}"


def sources_of(section: DataSection, folder: Path) -> dict[Split, str]:
    """The subfolder of each split; ``"."`` for all if the folder is to be divided by rule."""
    if section.sources is not None:
        return {split: section.sources.of(split) for split in Split}
    if section.shares is None and has_split_folders(folder):
        return {split: split.value for split in Split}
    return dict.fromkeys(Split, WHOLE)


def has_split_folders(folder: Path) -> bool:
    """Whether a folder is laid out by split: ``explain``, ``select`` and ``score`` are all there."""
    return all((folder / split.value).is_dir() for split in (Split.EXPLAIN, Split.SELECT, Split.SCORE))


@lru_cache(maxsize=8)
def open_folder(section: DataSection, split: Split) -> DividedImages:
    """One split of a folder; the folder is listed once per process. Raises DatasetMissing or DataError."""
    folder = resolve_path(section.path)
    sources = sources_of(section, folder)
    return open_division(
        folder.name, section, split, lambda name: FolderSource(folder / name, _purpose(sources, name), name), sources
    )


def _purpose(sources: dict[Split, str], name: str) -> str:
    return " and ".join(split.value for split in Split if sources[split] == name)


def open_image_set(recipe: Recipe, split: Split) -> DividedImages:
    """Called by ``precompute.datasets``."""
    return open_folder(recipe.data, split)
