"""Artifacts: fingerprints, the manifest, and opening a folder with every check. docs/artifacts.md is normative.

An artifact is a folder of standard files (Parquet, NumPy, safetensors, WebP, JSON) whose ``manifest.json`` is written
last: a folder without it is unfinished, never half-trusted. Writing lives in backend/artifact_writer.py.
This module knows no stage, no recipe and no tensor library.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import ArtifactDamaged, ArtifactMissing, ArtifactStale

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
CONFIG_NAME = "config.json"
SHARDS_NAME = "shards"
UNFINGERPRINTED = frozenset({"device", "dtype", "workers", "n_workers", "batch_size", "runtime"})
"""Keys that say how a computation ran, not what it computes; ``fingerprint`` leaves them out at every depth."""
_BLOCK_BYTES = 1 << 20


def _plain(value: object) -> object:
    """JSON-ready copy of ``value``; refuses what has no stable text (sets, paths, NaN, arbitrary objects)."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if str(key) not in UNFINGERPRINTED}
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a fingerprint cannot hold NaN or infinity")
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical form in a fingerprint: {value!r}")


def canonical_payload(payload: Mapping[str, object]) -> dict[str, Any]:
    """``payload`` as plain JSON values, without runtime fields: what config.json and the manifest store."""
    plain = _plain(payload)
    assert isinstance(plain, dict)
    return plain


def canonical_json(payload: Mapping[str, object]) -> str:
    """The one text of ``payload``: keys sorted, no blanks, UTF-8, runtime fields left out."""
    plain = canonical_payload(payload)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(payload: Mapping[str, object]) -> str:
    """SHA-256 (hex) of the canonical JSON of ``payload``. Key order and runtime fields do not matter."""
    return hashlib.sha256(canonical_json(payload).encode()).hexdigest()


def bytes_fingerprint(data: bytes) -> str:
    """SHA-256 (hex) of ``data``."""
    return hashlib.sha256(data).hexdigest()


def file_fingerprint(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def tree_fingerprint(folder: Path, patterns: Iterable[str] = ("**/*",)) -> str:
    """SHA-256 (hex) over the names and bytes of the files in ``folder`` matching any glob pattern.

    Names are relative and sorted, so neither the place nor the order of listing matters. Files and folders whose name
    starts with a dot are left out. Raises ArtifactMissing if nothing matches.
    """
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    names = [name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts)]
    if not names:
        raise ArtifactMissing(f"No file matches {', '.join(patterns)} in {folder}.")
    return fingerprint({name: file_fingerprint(folder / name) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """What the manifest promises about one file."""

    sha256: str
    bytes: int
    rows: int | None = None
    """Row count of a Parquet table; None for other files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The contents of manifest.json: what made the artifact, what it holds, what failed on the way."""

    schema_version: int
    kind: str
    stage: str
    stage_version: int
    fingerprint: str
    inputs: Mapping[str, Any]
    """``config``, ``upstream`` (stage to fingerprint) and ``lineage`` (the same inputs of every stage above)."""
    files: Mapping[str, FileEntry]
    shards: tuple[str, ...] = ()
    """Shard keys in the order in which their rows are read."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Reason to count: items left out, never silently."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    created_s: float = 0.0
    """Unix time of completion, in seconds. Not part of any comparison."""

    def to_json(self) -> str:
        """Readable JSON text, stable but for ``created_s``."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read and check manifest.json. Raises ArtifactMissing, ArtifactDamaged or ArtifactStale (schema version)."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        what = "an unfinished artifact" if (folder / CONFIG_NAME).is_file() else "no artifact"
        raise ArtifactMissing(f"There is {what} at {folder}: {MANIFEST_NAME} is missing. {rebuild_hint(folder)}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        version = int(raw["schema_version"])
        if version != SCHEMA_VERSION:
            raise ArtifactStale(
                f"{path} has schema version {version}; this code reads version {SCHEMA_VERSION}. {rebuild_hint(folder)}"
            )
        files = {str(name): FileEntry(**entry) for name, entry in raw.pop("files").items()}
        return Manifest(**{**raw, "files": files, "shards": tuple(raw.get("shards", ()))})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactDamaged(f"{path} is not a readable manifest ({error}). {rebuild_hint(folder)}") from error


def rebuild_hint(folder: Path) -> str:
    """The sentence that tells how to rebuild ``folder``: the command stored in config.json, or the general one."""
    command = "iconoscope run RECIPE --out DIR"
    try:
        stored = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        command = str(stored.get("command", command))
    except (OSError, ValueError, AttributeError):
        pass  # the hint is best effort: the file it would come from may be what is damaged
    return f"Rebuild it with: {command}"


class Artifact:
    """A complete, checked artifact folder, read-only. Tables are read when asked for and then kept."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._tables: dict[tuple[str, frozenset[str], bool], pa.Table] = {}

    @classmethod
    def open(cls, folder: str | Path, kind: str | None = None, verify: bool = True) -> Artifact:
        """Open ``folder`` and check it against its manifest.

        ``verify`` compares the SHA-256 of every file; without it only presence and size are compared.
        Raises ArtifactMissing (no manifest), ArtifactStale (schema version or kind), ArtifactDamaged (a file differs).
        """
        place = Path(folder)
        manifest = read_manifest(place)
        if kind is not None and manifest.kind != kind:
            raise ArtifactStale(f"{place} holds a {manifest.kind!r} artifact where {kind!r} was expected.")
        artifact = cls(place, manifest)
        for name in sorted(manifest.files):
            artifact.check_file(name, verify)
        return artifact

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def check_file(self, name: str, verify: bool = True) -> None:
        """Compare one file with the manifest. Raises ArtifactDamaged naming the file and the mending command."""
        problem = file_problem(self.folder / name, self.manifest.files[name], verify)
        if problem:
            raise ArtifactDamaged(f"{self.folder / name} {problem}. {rebuild_hint(self.folder)}")

    def path(self, name: str) -> Path:
        """Path of a file of this artifact. Raises ArtifactDamaged if the manifest does not list it."""
        if name not in self.manifest.files:
            raise ArtifactDamaged(f"{self.folder} holds no file {name!r}. {rebuild_hint(self.folder)}")
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether the manifest lists the file ``name`` or, for a bare table name, the table (whole or in shards)."""
        return name in self.manifest.files or bool(self._table_files(name))

    def table(self, name: str, dictionaries: Iterable[str] = (), *, mapped: bool = False) -> pa.Table:
        """A table by its bare name: one file, or its shards in manifest order. Raises ArtifactDamaged.

        Text columns named in ``dictionaries`` come dictionary-encoded, which saves memory where texts repeat. With
        ``mapped`` the rows lie in a temporary file and not in memory: for what is large and read a few rows at a time.
        """
        key = (name, frozenset(dictionaries), mapped)
        if key not in self._tables:
            read = map_parquet if mapped else read_parquet
            parts = [read(path, key[1]) for path in self._table_paths(name)]
            self._tables[key] = pa.concat_tables(parts).unify_dictionaries()
        return self._tables[key]

    def schema(self, name: str) -> pa.Schema:
        """Columns and types of a table, without its rows. Raises ArtifactDamaged."""
        return read_schema(self._table_paths(name)[0])

    def array(self, name: str) -> np.ndarray:
        """A NumPy array by its bare name, memory-mapped and read-only. Raises ArtifactDamaged."""
        path = self.path(f"{name}.npy")
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ArtifactDamaged(f"{path} is not a NumPy array ({error}). {rebuild_hint(self.folder)}") from error

    def json(self, name: str) -> Any:
        """A JSON document by its bare name. Raises ArtifactDamaged."""
        path = self.path(f"{name}.json")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ArtifactDamaged(f"{path} is not JSON ({error}). {rebuild_hint(self.folder)}") from error

    def _table_paths(self, name: str) -> list[Path]:
        files = self._table_files(name)
        if not files:
            raise ArtifactDamaged(f"{self.folder} holds no table {name!r}. {rebuild_hint(self.folder)}")
        return [self.folder / file for file in files]

    def _table_files(self, name: str) -> list[str]:
        whole = f"{name}.parquet"
        if whole in self.manifest.files:
            return [whole]
        parts = (f"{SHARDS_NAME}/{shard}/{name}.parquet" for shard in self.manifest.shards)
        return [part for part in parts if part in self.manifest.files]


def file_problem(path: Path, entry: FileEntry, verify: bool = True) -> str | None:
    """What is wrong with the file at ``path`` (a clause for a message), or None if it matches ``entry``."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != entry.bytes:
        return f"is damaged: {size} bytes where the manifest says {entry.bytes}"
    if verify and file_fingerprint(path) != entry.sha256:
        return "is damaged: its SHA-256 differs from the manifest's"
    return None


def read_parquet(path: Path, dictionaries: Iterable[str] = ()) -> pa.Table:
    """Read one Parquet file, the named columns dictionary-encoded.

    Raises ArtifactDamaged naming the file and the mending command.
    """
    try:
        file = _parquet_file(path, dictionaries)
        # Group by group: read at once, a long column of lists takes four times its size for a moment.
        parts = [file.read_row_group(group) for group in range(file.num_row_groups)]
        return pa.concat_tables(parts).unify_dictionaries() if parts else file.read()
    except (pa.ArrowException, OSError) as error:
        raise _unreadable_table(path, error) from error


def map_parquet(path: Path, dictionaries: Iterable[str] = ()) -> pa.Table:
    """What :func:`read_parquet` reads, unpacked into a temporary file without a name and mapped into memory: the system
    fetches what is looked at and drops it when memory is short. Where no temporary file can be written, it is read.

    Raises ArtifactDamaged naming the file and the mending command.
    """
    try:
        file = _parquet_file(path, dictionaries)
        with tempfile.TemporaryFile(prefix="iconoscope-") as unpacked:
            with pa.ipc.new_stream(unpacked, file.schema_arrow) as writer:
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))
            unpacked.flush()
            mapping = mmap.mmap(unpacked.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_stream(pa.py_buffer(mapping)).read_all().unify_dictionaries()
    except OSError:  # a full disk most of all; a damaged file is told of by the reader
        return read_parquet(path, dictionaries)
    except pa.ArrowException as error:
        raise _unreadable_table(path, error) from error


def _parquet_file(path: Path, dictionaries: Iterable[str]) -> pq.ParquetFile:
    present = set(dictionaries) and set(pq.read_schema(path).names)
    return pq.ParquetFile(path, read_dictionary=sorted(present.intersection(dictionaries)))


def read_schema(path: Path) -> pa.Schema:
    """The columns of one Parquet file. Raises ArtifactDamaged naming the file and the mending command."""
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable_table(path, error) from error


def _unreadable_table(path: Path, error: Exception) -> ArtifactDamaged:
    folder = path.parents[2] if path.parent.parent.name == SHARDS_NAME else path.parent
    return ArtifactDamaged(f"{path} is not a readable table ({error}). {rebuild_hint(folder)}")
