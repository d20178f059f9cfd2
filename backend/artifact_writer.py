"""Writing artifacts: every file to a temporary name and renamed, shards with a sidecar, the manifest last.

Equal data gives equal bytes: Parquet is written with fixed settings, one chunk layout and no pandas metadata.
A process killed at any moment leaves either the old file, the new file, or a temporary name that is swept later.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backend.artifacts import (
    CONFIG_NAME,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SHARDS_NAME,
    Artifact,
    FileEntry,
    Manifest,
    canonical_payload,
    file_fingerprint,
    file_problem,
    fingerprint,
    read_parquet,
)
from backend.errors import ArtifactDamaged, ArtifactError

TEMPORARY_PREFIX = ".tmp-"
LOG_NAME = "log.jsonl"
PLAN_NAME = "plan.json"
UNLISTED_NAMES = frozenset({MANIFEST_NAME, CONFIG_NAME, LOG_NAME, PLAN_NAME})
"""Files about the run (its inputs are repeated in the manifest): they may differ between two equal artifacts."""
_ROWS_PER_GROUP = 65_536
_FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})


def inputs_of(config: Mapping[str, object], upstream: Mapping[str, str]) -> dict[str, Any]:
    """What determines an artifact besides stage name and version."""
    return {"config": canonical_payload(config), "upstream": dict(sorted(upstream.items()))}


def artifact_fingerprint(stage: str, version: int, inputs: Mapping[str, Any]) -> str:
    """Fingerprint of a stage's output: name, integer version, science config and upstream fingerprints."""
    return fingerprint({"stage": stage, "version": version, "config": inputs["config"], "upstream": inputs["upstream"]})


def parquet_bytes(table: pa.Table) -> bytes:
    """Parquet file contents that depend on the rows and the schema alone, not on chunks or metadata."""
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(None).combine_chunks(),
        buffer,
        version="2.6",
        # A dictionary of activations saves nothing and makes them five times slower to read.
        use_dictionary=_dictionary_columns(table.schema),  # pyright: ignore[reportArgumentType]
        compression="zstd",
        compression_level=6,
        row_group_size=_ROWS_PER_GROUP,
        store_schema=True,
    )
    return buffer.getvalue()


def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """Parquet's names of all columns but lists of halves."""
    halves = pa.list_(pa.float16())
    lists = {field.name for field in schema if pa.types.is_list(field.type)}
    return [
        f"{field.name}.list.element" if field.name in lists else field.name for field in schema if field.type != halves
    ]


def write_file(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` through a temporary name, synced to disk before the rename."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success sync it and rename it to ``path``, on any failure remove it.

    Raises ArtifactError if the disk is full: nothing that was finished before is lost.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise_if_disk_full(error, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def raise_if_disk_full(error: OSError, path: Path) -> None:
    """Turn the system's "no space left" (or a used-up quota) into an ArtifactError that says how to go on."""
    if error.errno in _FULL_DISK:
        raise ArtifactError(
            f"The disk is full: {path} could not be written. Nothing finished is lost; free some space and run "
            "the same command again to go on from here."
        ) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ArtifactWriter:
    """Fills one artifact folder. File names are relative, with ``/``; ``shard`` puts a file into that shard."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        version: int,
        config: Mapping[str, object],
        upstream: Mapping[str, str],
        *,
        lineage: Mapping[str, Any] | None = None,
        command: str | None = None,
    ) -> None:
        """``config`` is the science config, ``upstream`` maps stage to fingerprint, ``command`` is what rebuilds it."""
        self.folder = folder
        self.kind = kind
        self.version = version
        self.command = command
        self.inputs = {**inputs_of(config, upstream), "lineage": dict(lineage or {})}
        self.fingerprint = artifact_fingerprint(kind, version, self.inputs)
        description = {"stage": kind, "stage_version": version, "fingerprint": self.fingerprint, "inputs": self.inputs}
        if command:
            description["command"] = command
        text = json.dumps(description, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        path = folder / CONFIG_NAME
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_file(path, text.encode())

    # writing ---------------------------------------------------------------------------------------------------

    def path(self, name: str, shard: str | None = None) -> Path:
        """Where the file ``name`` (of ``shard``) is or will be."""
        return self.folder / name if shard is None else self.folder / SHARDS_NAME / shard / name

    def write_bytes(self, name: str, data: bytes, shard: str | None = None) -> None:
        """Write a file with exactly these bytes; ``name`` includes the suffix."""
        write_file(self.path(name, shard), data)

    def write_json(self, name: str, value: object, shard: str | None = None) -> None:
        """Write ``<name>.json``. NaN is refused: a missing number is null with a reason."""
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        self.write_bytes(f"{name}.json", text.encode(), shard)

    def write_table(self, name: str, table: pa.Table, shard: str | None = None) -> None:
        """Write ``<name>.parquet``, deterministically."""
        self.write_bytes(f"{name}.parquet", parquet_bytes(table), shard)

    def write_array(self, name: str, array: np.ndarray, shard: str | None = None) -> None:
        """Write ``<name>.npy`` in C order. Object arrays are refused."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        self.write_bytes(f"{name}.npy", buffer.getvalue(), shard)

    def write_with(self, name: str, write: Callable[[Path], object], shard: str | None = None) -> None:
        """Let ``write(path)`` of another library (faiss, safetensors) fill the file through a temporary name."""
        with replacing(self.path(name, shard)) as temporary:
            write(temporary)

    def write_tree(self, name: str, write: Callable[[Path], object], shard: str | None = None) -> None:
        """Let ``write(folder)`` fill a temporary folder, then move its files to the folder ``name`` one by one."""
        target = self.path(name, shard)
        temporary = target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{target.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            write(temporary)
            for path in sorted(item for item in temporary.rglob("*") if item.is_file()):
                write_file(target / path.relative_to(temporary), path.read_bytes())
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    # reading back ------------------------------------------------------------------------------------------------

    def has(self, name: str, shard: str | None = None) -> bool:
        """Whether the file ``name`` (with suffix) is there."""
        return self.path(name, shard).is_file()

    def read_table(self, name: str, shard: str | None = None) -> pa.Table:
        """A table written before: of one shard, or whole. Raises ArtifactDamaged."""
        return read_parquet(self.path(f"{name}.parquet", shard))

    def read_shards(self, name: str, shards: list[str]) -> pa.Table:
        """The table ``name`` of several shards in the given order. Raises ArtifactDamaged."""
        return pa.concat_tables([self.read_table(name, shard) for shard in shards])

    # shards ------------------------------------------------------------------------------------------------------

    def finish_shard(self, key: str) -> None:
        """Write the sidecar that makes a shard count as done: checksum, size and rows of each of its files."""
        folder = self.folder / SHARDS_NAME / key
        folder.mkdir(parents=True, exist_ok=True)
        entries = {name: asdict(entry) for name, entry in _entries(folder).items()}
        write_file(self._sidecar(key), (json.dumps({"files": entries}, indent=1, sort_keys=True) + "\n").encode())

    def shard_state(self, key: str, verify: bool = True) -> str:
        """``done``, ``retired`` (done, its files given up), ``damaged`` or ``absent``."""
        sidecar = self._sidecar(key)
        if not sidecar.is_file():
            return "absent"
        try:
            stored = json.loads(sidecar.read_text(encoding="utf-8"))
            if stored.get("retired"):
                return "retired"
            entries = {name: FileEntry(**entry) for name, entry in stored["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return "damaged"
        folder = self.folder / SHARDS_NAME / key
        sound = all(file_problem(folder / name, entry, verify) is None for name, entry in entries.items())
        return "done" if sound else "damaged"

    def drop_shard(self, key: str) -> None:
        """Remove a shard; the sidecar goes first, so a kill in between cannot leave a shard that looks done.

        A sidecar that a killed writer had begun goes too: it lies beside the shard's folder.
        """
        sidecar = self._sidecar(key)
        sidecar.unlink(missing_ok=True)
        begun = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}\d+-{re.escape(sidecar.name)}")
        sweep(path for path in sidecar.parent.glob(f"{TEMPORARY_PREFIX}*") if begun.fullmatch(path.name))
        shutil.rmtree(self.folder / SHARDS_NAME / key, ignore_errors=True)

    def retire_shard(self, key: str) -> None:
        """Give up the files of a finished shard that a later shard has replaced (e.g. an old checkpoint)."""
        write_file(self._sidecar(key), b'{"files": {}, "retired": true}\n')
        shutil.rmtree(self.folder / SHARDS_NAME / key, ignore_errors=True)

    def _sidecar(self, key: str) -> Path:
        return self.folder / SHARDS_NAME / f"{key}.json"

    # completion ----------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Remove temporary names that a killed process left behind."""
        sweep(self.folder.rglob(f"{TEMPORARY_PREFIX}*"))

    def commit(self, extra: Mapping[str, Any] | None = None, shards: tuple[str, ...] = ()) -> Artifact:
        """Write manifest.json over everything now in the folder and return the opened artifact.

        ``extra`` may hold ``failures`` (reason to count) and ``notes``; ``shards`` are the shard keys to keep listed.
        """
        given = dict(extra or {})
        kept = tuple(shards)
        files = {
            name: entry
            for name, entry in _entries(self.folder).items()
            if name not in UNLISTED_NAMES and _is_kept(name, kept)
        }
        failures = {str(reason): int(count) for reason, count in sorted(dict(given.pop("failures", {})).items())}
        notes = canonical_payload({**dict(given.pop("notes", {})), **given})
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            kind=self.kind,
            stage=self.kind,
            stage_version=self.version,
            fingerprint=self.fingerprint,
            inputs=self.inputs,
            files=files,
            shards=kept,
            failures=failures,
            notes=notes,
            created_s=round(time.time(), 3),
        )
        write_file(self.folder / MANIFEST_NAME, manifest.to_json().encode())
        return Artifact.open(self.folder, self.kind, verify=False)


def sweep(leftovers: Iterable[Path]) -> None:
    """Remove temporary files and folders. Only for who holds the lock: another writer's would go too."""
    for path in sorted(leftovers):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def copy_artifact(artifact: Artifact, target: Path) -> Artifact:
    """Copy the files that the manifest lists, and the manifest last; what is about the run stays behind.

    ``target`` must not exist or be empty. Raises ArtifactError if it holds anything, ArtifactDamaged if a copy differs.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArtifactError(f"{target} exists and is not an empty folder. Remove it or choose another place.")
    for name in [*sorted(artifact.manifest.files), MANIFEST_NAME]:
        write_file(target / name, (artifact.folder / name).read_bytes())
    return Artifact.open(target, artifact.manifest.kind)


def _is_kept(name: str, shards: tuple[str, ...]) -> bool:
    if not name.startswith(f"{SHARDS_NAME}/"):
        return True
    return name.split("/")[1].removesuffix(".json") in shards


def _entries(folder: Path) -> dict[str, FileEntry]:
    """Checksum, size and (for Parquet) row count of every finished file in ``folder``."""
    entries: dict[str, FileEntry] = {}
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in name.split("/")):
            continue
        entries[name] = FileEntry(sha256=file_fingerprint(path), bytes=path.stat().st_size, rows=_rows(path))
    return entries


def _rows(path: Path) -> int | None:
    if path.suffix != ".parquet":
        return None
    try:
        return int(pq.ParquetFile(path).metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise ArtifactDamaged(f"{path} is not a readable table ({error}).") from error
