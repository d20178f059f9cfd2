"""Fetching the first pictures of a dataset, and no more, into tar shards of the cache folder.

A shard appears when it is whole, so an interrupted download goes on after the last whole one.
"""

from __future__ import annotations

import io
import math
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from backend.errors import DataError, DatasetMissing, ImageUnreadable, RecipeError
from backend.settings import load_settings, resolve_path
from backend.types import Split
from precompute.data._rows import encoded
from precompute.data._sources import HASH_CHARACTERS, digest
from precompute.data._tar_shards import TarSource
from precompute.data_section import DataSection, SharesSection

PER_SHARD = 1000
MARGIN = 1.1
"""Dividing by rule gives each split its share only roughly."""
END_NAME = "end"
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"BM": ".bmp", b"GI": ".gif"}


def n_wanted(section: DataSection, name: str) -> int:
    """How many pictures of a source are fetched so that every split that reads it reaches its limit.

    Raises RecipeError if one of them has no limit.
    """
    assert section.sources is not None, "streaming names its sources"
    together = [split for split in Split if section.sources.of(split) == name]
    shares = section.shares or SharesSection()
    total = sum(shares.of(split) for split in together)
    counts = [0.0]
    for split in together:
        limit = section.limit(split)
        if limit is None:
            raise RecipeError(f"[data] streaming = true needs n_{split.value}_images: how many pictures to fetch.")
        if len(together) == 1:
            counts.append(limit)
        elif shares.of(split) > 0:
            counts.append(MARGIN * limit * total / shares.of(split))
    return math.ceil(max(counts) / PER_SHARD) * PER_SHARD


def fetched(section: DataSection, name: str, open_rows: Callable[[], Any], n: int) -> TarSource:
    """The first ``n`` pictures of a dataset; those that are here already are not fetched again.

    Args:
        section: path and column.
        name: split of the dataset.
        open_rows: gives the iterable dataset; not called if all are here.
        n: pictures wanted, a multiple of PER_SHARD.

    Raises:
        DatasetMissing: the connection breaks; and as ``open_rows``.
        DataError: the column is not there.
    """
    place = resolve_path(section.path)
    where = place.resolve() if place.is_dir() else section.path
    key = digest(where, name, section.image_column)[:HASH_CHARACTERS]
    folder = load_settings().cache_dir / "data" / "streamed" / key
    folder.mkdir(parents=True, exist_ok=True)
    rows: Any = None
    for number in range(math.ceil(n / PER_SHARD)):
        shard = folder / f"images-{number:05d}.tar"
        if shard.is_file() or (folder / END_NAME).is_file():
            continue
        rows = open_rows() if rows is None else rows
        if _fetch_shard(section, name, rows, number, shard) < PER_SHARD:
            (folder / END_NAME).touch()
    shards = sorted(folder.glob("images-*.tar"))[: math.ceil(n / PER_SHARD)]
    return TarSource(f"{section.path} ({name})", shards)


def _fetch_shard(section: DataSection, name: str, rows: Any, number: int, shard: Path) -> int:
    """Write one shard; returns its number of rows."""
    partial = shard.with_suffix(f".partial-{os.getpid()}")
    count = 0
    try:
        with tarfile.open(partial, "w") as archive:
            for picture in _pictures(rows.skip(number * PER_SHARD), section):
                _add(archive, number * PER_SHARD + count, picture)
                count += 1
        if count:
            os.replace(partial, shard)
    except DataError:
        raise
    except Exception as error:  # the libraries below raise whatever the network gives them
        raise DatasetMissing(
            f"Fetching {section.path} ({name}) stopped after {number * PER_SHARD + count} pictures "
            f"({type(error).__name__}: {error}). {number * PER_SHARD} of them are kept: run again to go on."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def _pictures(rows: Iterable[Any], section: DataSection) -> Iterator[bytes]:
    """Encoded pictures of the next rows; what cannot be read is empty: it keeps its place and is counted later."""
    place = resolve_path(section.path)
    folder = place if place.is_dir() else None
    for row in islice(rows, PER_SHARD):
        if section.image_column not in row:
            raise DataError(
                f"{section.path} has no column {section.image_column!r}; there are: {', '.join(row)}. "
                "Set image_column under [data]."
            )
        try:
            found = encoded(row[section.image_column], f"a row of {section.path}", folder)
        except ImageUnreadable:
            found = b""
        yield found if isinstance(found, bytes) else found.read_bytes()


def _add(archive: tarfile.TarFile, row: int, data: bytes) -> None:
    member = tarfile.TarInfo(f"{row:08d}{_SUFFIXES.get(data[:2], '.jpg')}")
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
