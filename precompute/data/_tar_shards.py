"""Pictures in tar shards, read at random through a table of where each one's bytes lie.

The table is made once, from the headers alone, and kept in the cache folder until a shard changes.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import DataError, DatasetMissing, ImageTooLarge, ImageUnreadable
from backend.images import MAX_BYTES
from precompute.data._sources import cached_table, digest, keep_table, stamp, track
from precompute.data.folder import IMAGE_SUFFIXES

INDEX_SCHEMA = pa.schema([("shard", pa.int32()), ("member", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])


class TarSource:
    """All pictures of some shards, in the order of the shards and of the members in them."""

    def __init__(self, name: str, shards: Sequence[Path], called: Sequence[str] | None = None) -> None:
        """Open shards; ``called`` is what ids call each of them, different names: by default those of the files."""
        self.name = name
        self._shards = tuple(shards)
        self._files: dict[int, int] = {}
        self._lock = Lock()
        called = called or [shard.stem for shard in shards]
        self.state = digest(*(part for shard in shards for part in stamp(shard)))
        index = self._index()
        columns = (index[column].to_pylist() for column in ("shard", "offset", "size"))
        self._places: list[tuple[int, int, int]] = list(zip(*columns, strict=True))
        pairs = zip(self._places, index["member"].to_pylist(), strict=True)
        self.keys = tuple(f"{called[shard]}/{member}" for (shard, _, _), member in pairs)
        if len(set(self.keys)) < len(self.keys):
            twice = next(key for key, n in Counter(self.keys).items() if n > 1)
            raise DataError(
                f"The shards {name} hold two pictures called {twice!r}, and ids are made of it: rename one."
            )
        self.identity = digest(*self.keys, *(size for _, _, size in self._places))
        if not self.keys:
            raise DatasetMissing(
                f"The shards {name} hold no picture: a member's name must end in one of "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}."
            )

    def _index(self) -> pa.Table:
        path = cached_table("tar", self.state)
        if not path.is_file():
            tables = [_index_of(self._shards[at], at) for at in track(range(len(self._shards)), "indexing shards")]
            keep_table(path, pa.concat_tables(tables))
        return pq.read_table(path)

    def get(self, place: int) -> bytes:
        shard, offset, size = self._places[place]
        if size > MAX_BYTES:
            raise ImageTooLarge(f"{self.keys[place]} is larger than {MAX_BYTES / 2**20:.0f} MiB")
        data = os.pread(self._file(shard), size, offset)
        if len(data) < size:
            raise ImageUnreadable(
                f"{self.keys[place]} is cut short: {self._shards[shard]} ends within it. Fetch that shard again."
            )
        return data

    def _file(self, shard: int) -> int:
        """A descriptor that stays open: pread needs no position, so threads may share it."""
        with self._lock:
            if shard not in self._files:
                self._files[shard] = os.open(self._shards[shard], os.O_RDONLY)
            return self._files[shard]

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            os.close(file)


def _index_of(path: Path, shard: int) -> pa.Table:
    """Where the pictures of one shard lie. What follows a place at which it is cut off is lost; the rest is kept.

    Raises DataError if it is no plain tar file.
    """
    rows: list[dict[str, object]] = []
    try:
        with tarfile.open(path, "r:") as archive:
            try:
                for member in archive:
                    picture = member.isreg() and Path(member.name).suffix.lower() in IMAGE_SUFFIXES
                    if picture and not Path(member.name).name.startswith("."):
                        offset, size = member.offset_data, member.size
                        rows.append({"shard": shard, "member": member.name, "offset": offset, "size": size})
            except tarfile.ReadError:
                if not rows:
                    raise
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as a tar file ({error}). Shards must not be compressed (no .tar.gz), so that "
            "single pictures can be read; fetch it again if it should be."
        ) from error
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)
