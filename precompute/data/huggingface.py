"""Kind ``huggingface``: image datasets of the hub, from this machine or, if the recipe allows it, fetched.

``[data] path`` is a repository id (``ILSVRC/imagenet-1k``) that is in the local cache, a folder with its Parquet files,
or one that ``datasets`` wrote with save_to_disk. [data.sources] says which split of the dataset each of our splits
reads; those that read the same one divide it by rule. An id is ``<split>/<row>``. Where several configurations of a
dataset have a split of the same name, it is written ``<configuration>/<split>``: they are never mixed.

Nothing is fetched unless [data] download = true, and HF_HUB_OFFLINE is respected even then. With streaming = true only
as many pictures as the limits ask for are fetched, and kept.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import DatasetMissing, DependencyMissing, RecipeError
from backend.settings import resolve_path
from backend.types import Split
from precompute.data._division import DividedImages, open_division
from precompute.data._rows import DiskSource, ParquetSource, parquet_splits, require_whole
from precompute.data._sources import PictureSource
from precompute.data._streaming import fetched, n_wanted
from precompute.data_section import DataSection

if TYPE_CHECKING:
    from precompute.recipe import Recipe

REPOSITORY_PATTERN = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SAVED_NAMES = ("dataset_dict.json", "state.json")
"""What save_to_disk leaves in a folder."""


def page_of(repository: str) -> str:
    """Page on which a dataset's licence is read and accepted."""
    return f"https://huggingface.co/datasets/{repository}"


def open_image_set(recipe: Recipe, split: Split) -> DividedImages:
    """Called by ``precompute.datasets``."""
    return open_dataset(recipe.data, split)


@lru_cache(maxsize=8)
def open_dataset(section: DataSection, split: Split) -> DividedImages:
    """One split. Raises DatasetMissing, DataError, RecipeError or DependencyMissing."""
    if section.streaming:
        sources = _named_sources(section, ())
        return open_division(section.path, section, split, lambda name: _streamed(section, name), sources)
    folder = _folder(section)
    if any((folder / name).is_file() for name in SAVED_NAMES):
        saved = _load_from_disk(folder)
        sources = _named_sources(section, list(saved))
        return open_division(
            section.path, section, split, lambda name: _disk_source(section, folder, saved, name), sources
        )
    files = parquet_splits(folder)
    if not files:
        raise DatasetMissing(
            f"{folder} holds neither Parquet files nor what save_to_disk writes. For pictures in a folder use [data] "
            'kind = "folder", for tar shards kind = "webdataset".'
        )
    sources = _named_sources(section, list(files))
    return open_division(section.path, section, split, lambda name: _parquet_source(section, files, name), sources)


def _named_sources(section: DataSection, there: list[str] | tuple[()]) -> dict[Split, str]:
    """The dataset's split for each of ours. A dataset with a single split is divided by rule."""
    if section.sources is not None:
        return {split: section.sources.of(split) for split in Split}
    if len(there) == 1:
        return dict.fromkeys(Split, there[0])
    told = f" It has: {', '.join(sorted(there))}." if there else ""
    raise RecipeError(
        f"[data.sources] must say which splits of {section.path} are for train, explain, select and score.{told}"
    )


def _require_split(section: DataSection, name: str, there: list[str]) -> None:
    if name not in there:
        raise DatasetMissing(
            f"{section.path} has no split {name!r} here; there are: {', '.join(sorted(there))}. Fetch it, or change "
            "[data.sources]."
        )


def _parquet_source(section: DataSection, files: dict[str, list[Path]], name: str) -> PictureSource:
    _require_split(section, name, list(files))
    fetch = f"Fetch it again with `hf download {section.path} --repo-type dataset`."
    known = REPOSITORY_PATTERN.fullmatch(section.path) is not None
    require_whole(name, files[name], fetch if known else "Fetch the missing ones.")
    return ParquetSource(name, files[name], section.image_column)


def _disk_source(section: DataSection, folder: Path, saved: dict[str, Any], name: str) -> PictureSource:
    _require_split(section, name, list(saved))
    return DiskSource(folder, name, saved[name], section.image_column)


def _load_from_disk(folder: Path) -> dict[str, Any]:
    datasets = _library()
    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DatasetMissing(f"The dataset saved in {folder} cannot be read ({error}). Save it again.") from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {str(found.split or "all"): found}


def _streamed(section: DataSection, name: str) -> PictureSource:
    return fetched(section, name, lambda: _iterable(section, name), n_wanted(section, name))


def _iterable(section: DataSection, name: str) -> Any:
    """The dataset's split, row by row from the network or from a folder. Raises DatasetMissing or DependencyMissing."""
    datasets = _library()
    place = resolve_path(section.path)
    if not place.is_dir() and not section.download:
        raise DatasetMissing(
            f"{section.path} would be fetched from the network ({page_of(section.path)}): set download = true under "
            "[data] to allow it, or give the folder of a local copy."
        )
    configuration, _, split = name.rpartition("/")
    source, options = section.path, {"name": configuration or None}
    if place.is_dir():
        if files := parquet_splits(place):
            _require_split(section, name, list(files))
        source, options = str(place / configuration), {}
    try:
        return datasets.load_dataset(source, split=split, streaming=True, **options).decode(False)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DatasetMissing(_unreachable(section.path, error)) from error


def _folder(section: DataSection) -> Path:
    """The folder with the dataset's files: the path itself, or the repository's in the local cache."""
    place = resolve_path(section.path)
    if place.is_dir():
        return place
    if not REPOSITORY_PATTERN.fullmatch(section.path):
        raise DatasetMissing(
            f"There is no dataset at {place}: give a folder or a repository id such as ILSVRC/imagenet-1k."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    names = sorted({section.sources.of(split) for split in Split}) if section.sources else ["*"]
    patterns = [f"*{name}{end}" for name in names for end in ("-*.parquet", ".parquet", "/*.parquet")]
    try:
        return Path(
            snapshot_download(
                section.path, repo_type="dataset", local_files_only=not section.download, allow_patterns=patterns
            )
        )
    except LocalEntryNotFoundError as error:
        raise DatasetMissing(
            f"{section.path} is not on this machine: accept its licence at {page_of(section.path)} and fetch it with "
            f"`hf download {section.path} --repo-type dataset`, or set download = true under [data]."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise DatasetMissing(_unreachable(section.path, error)) from error


def _unreachable(repository: str, error: Exception) -> str:
    """Why a dataset cannot be had: gated, unknown, or the connection broke."""
    chain = [error, error.__cause__, error.__context__]
    if any(type(one).__name__ == "GatedRepoError" for one in chain) or "gated" in str(error).lower():
        return (
            f"{repository} is gated: accept its licence at {page_of(repository)}, log in with `hf auth login`, then "
            "run again."
        )
    return (
        f"{repository} could not be fetched, see {page_of(repository)} ({type(error).__name__}: {error}). What arrived "
        "is kept: run again to go on."
    )


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            f'The package datasets cannot be imported ({error}). Install it: pip install "iconoscope[paper]"'
        ) from error
    return datasets
