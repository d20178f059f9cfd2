"""Pictures in the rows of a dataset: Parquet files as the hub holds them, and folders that save_to_disk wrote."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import DataError, DatasetMissing, ImageUnreadable
from precompute.data._sources import digest, stamp

KEPT_GROUPS = 6
"""Row groups of a Parquet file that stay decompressed: about 10 MB each in ImageNet."""
_NUMBERED = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]+)?")


def row_keys(split: str, n_rows: int) -> tuple[str, ...]:
    """Ids of the rows of a split: their numbers, which stay as long as the dataset does."""
    return tuple(f"{split}/{row:08d}" for row in range(n_rows))


def split_of_file(path: Path) -> str:
    """The split a Parquet file belongs to, by its name: ``train-00000-of-00294``, ``train``, or ``train/0000``."""
    numbered = _NUMBERED.fullmatch(path.stem)
    if numbered:
        return numbered["split"]
    return path.parent.name if path.stem.isdigit() else path.stem


def parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files below a folder by split, sorted.

    A dataset may have several configurations, a folder each. A split that only one of them has goes by its own name; of
    one that several have each is ``<folder>/<split>``.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        split = split_of_file(path)
        place = path.parent.parent if split == path.parent.name and path.stem.isdigit() else path.parent
        found.setdefault(split, {}).setdefault(place.relative_to(folder).as_posix(), []).append(path)
    return {
        split if len(places) == 1 else f"{place}/{split}".removeprefix("./"): files
        for split, places in found.items()
        for place, files in places.items()
    }


def require_whole(split: str, files: Sequence[Path], mend: str) -> None:
    """Raise DatasetMissing if files of a numbered set are missing, as after an interrupted download."""
    numbers = [_NUMBERED.fullmatch(path.stem) for path in files]
    known = {int(found["number"]) for found in numbers if found}
    total = max((int(found["total"]) for found in numbers if found), default=0)
    missing = sorted(set(range(total)) - known)
    if missing:
        raise DatasetMissing(
            f"{len(missing)} of {total} files of the split {split!r} are missing in {files[0].parent}, e.g. number "
            f"{missing[0]}: the download was interrupted. {mend}"
        )


class ParquetSource:
    """The pictures in one column of some Parquet files, row by row."""

    def __init__(self, split: str, files: Sequence[Path], column: str) -> None:
        self.name = f"{files[0].parent} ({split})"
        self._files = list(files)
        try:
            opened = [pq.ParquetFile(path) for path in files]
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"A Parquet file of {self.name} cannot be read ({error}). Fetch it again.") from error
        self._leaf = _leaf(opened[0].schema_arrow, column, self.name)
        groups = [
            (at, group, one.metadata.row_group(group).num_rows)
            for at, one in enumerate(opened)
            for group in range(one.metadata.num_row_groups)
        ]
        self._groups = [(at, group) for at, group, _ in groups]
        self._starts = list(accumulate((n for _, _, n in groups), initial=0))
        self._kept: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = Lock()
        self.keys = row_keys(split, self._starts[-1])
        stamps = [stamp(path) for path in files]
        names = [path.name for path in files]
        self.identity = digest(column, len(self.keys), *names, *(size for _, size, _ in stamps))
        self.state = digest(column, *(part for found in stamps for part in found))

    def get(self, place: int) -> bytes:
        number = bisect_right(self._starts, place) - 1
        value = self._group(number)[place - self._starts[number]].as_py()
        if not value:
            raise ImageUnreadable(f"row {place} of {self.name} holds no picture")
        return bytes(value)

    def _group(self, number: int) -> pa.ChunkedArray:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        at, group = self._groups[number]
        try:
            table = pq.ParquetFile(self._files[at]).read_row_group(group, columns=[self._leaf])
        except (pa.ArrowException, OSError) as error:
            raise ImageUnreadable(f"{self._files[at]} is damaged ({error}): fetch it again") from error
        column = table.column(0)
        values = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks]) if "." in self._leaf else column
        with self._lock:
            self._kept[number] = values
            while len(self._kept) > KEPT_GROUPS:
                self._kept.popitem(last=False)
        return values


def _leaf(schema: pa.Schema, column: str, name: str) -> str:
    """What to read: the column, or its bytes if it is a struct as the hub has them. Raises DataError."""
    if column not in schema.names:
        raise DataError(
            f"{name} has no column {column!r}; there are: {', '.join(schema.names)}. Set image_column under [data]."
        )
    kind = schema.field(column).type
    if pa.types.is_struct(kind) and any(kind.field(at).name == "bytes" for at in range(kind.num_fields)):
        return f"{column}.bytes"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column
    raise DataError(
        f"The column {column!r} of {name} holds {kind}, not encoded pictures. Set image_column under [data]."
    )


class DiskSource:
    """The pictures in one column of a ``datasets.Dataset`` that is open from disk."""

    def __init__(self, folder: Path, split: str, rows: Any, column: str) -> None:
        from datasets import Image

        self.name = f"{folder} ({split})"
        if column not in rows.column_names:
            raise DataError(
                f"{self.name} has no column {column!r}; there are: {', '.join(rows.column_names)}. "
                "Set image_column under [data]."
            )
        self._column, self._folder = column, folder
        self._rows = rows.select_columns([column])
        if isinstance(rows.features[column], Image):
            self._rows = self._rows.cast_column(column, Image(decode=False))
        self.keys = row_keys(split, len(rows))
        self.identity = digest(column, len(rows), rows._fingerprint)
        self.state = digest(folder.resolve(), self.identity)

    def get(self, place: int) -> bytes | Path:
        return encoded(self._rows[place][self._column], f"row {place} of {self.name}", self._folder)


def encoded(value: object, what: str, folder: Path | None) -> bytes | Path:
    """The picture in a cell: bytes, or ``{"bytes", "path"}`` with one of them.

    A dataset may name files of its own folder and no others: it may be a stranger's, and an atlas shows what it read.
    ``folder`` is None for a dataset that is elsewhere. Raises ImageUnreadable.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value:
        raise ImageUnreadable(f"{what} holds no picture")
    path = Path(value) if folder is None else (folder / value).resolve()
    if folder is None or not path.is_relative_to(folder.resolve()):
        raise ImageUnreadable(f"{what} names the file {value!r}, which is not one of the dataset's own")
    return path
