"""A source: pictures in a fixed order, still encoded, with the content hash of each once somebody needs it.

Hashing reads every byte once, so the hashes are kept in the cache folder until a file of the source changes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from backend.errors import ImageUnreadable
from backend.settings import load_settings

CHUNK_BYTES = 1 << 20
HASH_CHARACTERS = 32
"""Hexadecimal digits of SHA-256 that are kept: 128 bits."""
SLOW_S = 2.0
"""A bar is shown, on a terminal, for what takes longer."""


class PictureSource(Protocol):
    """Encoded pictures by place, from 0."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """The images' ids: unique, and the same on every machine that has the same files."""
        ...

    @property
    def identity(self) -> str:
        """Hash over names and sizes: stands for the contents where nobody has read them."""
        ...

    @property
    def state(self) -> str:
        """Hash that also covers where the files lie and when they were changed: the key of what is cached."""
        ...

    def get(self, place: int) -> bytes | Path:
        """The encoded picture, or the file that holds nothing else. Raises ImageUnreadable."""
        ...


def digest(*parts: object) -> str:
    """SHA-256 (hex) of some values written one after the other."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


def cached_table(kind: str, state: str) -> Path:
    """Where a table about a source is kept."""
    return load_settings().cache_dir / "data" / kind / f"{state[:HASH_CHARACTERS]}.parquet"


def keep_table(path: Path, table: pa.Table) -> None:
    """Write a table to the cache: whole or not at all, also if several processes do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=".parquet", dir=path.parent)
    os.close(handle)
    try:
        pq.write_table(table, name, compression="zstd")
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


_remembered: dict[str, tuple[str | None, ...]] = {}


def content_hashes(source: PictureSource) -> tuple[str | None, ...]:
    """The hash of every picture's bytes; None for what cannot be read."""
    if source.state not in _remembered:
        path = cached_table("contents", source.state)
        if not path.is_file():
            found = [_hash(source, place) for place in track(range(len(source.keys)), f"reading {source.name}")]
            keep_table(path, pa.table({"content": pa.array(found, pa.string())}))
        _remembered[source.state] = tuple(pq.read_table(path)["content"].to_pylist())
    return _remembered[source.state]


def track(items: Sequence[int], label: str) -> tqdm[int]:
    """A bar on a terminal for what takes long."""
    return tqdm(items, desc=label, unit=" images", delay=SLOW_S, disable=None)


def _hash(source: PictureSource, place: int) -> str | None:
    try:
        found = source.get(place)
        if isinstance(found, bytes):
            return hashlib.sha256(found).hexdigest()[:HASH_CHARACTERS]
        total = hashlib.sha256()
        with found.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                total.update(chunk)
    except (OSError, ImageUnreadable):
        return None
    return total.hexdigest()[:HASH_CHARACTERS]


def stamp(path: Path) -> tuple[str, int, int]:
    """Absolute place, size in bytes and time of change (ns) of a file."""
    found = path.stat()
    return str(path.resolve()), found.st_size, found.st_mtime_ns
