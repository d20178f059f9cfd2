"""Files of a model on this machine: a folder, or a repository in the local Hugging Face cache, and their hashes.

Nothing is fetched unless it is asked for. A hash of gigabytes is computed once: the name of a file in the Hugging Face
cache already is its SHA-256, and that of any other large file is kept in the cache folder under the file's path, size
and time of change.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from backend.errors import SubjectMissing
from backend.settings import load_settings

REPOSITORY_PATTERN = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SHARD_INDEX = "*.safetensors.index.json"
REMEMBERED_BYTES = 1 << 28
"""Files at least as large as this (256 MiB, some tenths of a second) have their hash kept."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def licence_page(repository_id: str) -> str:
    """Page on which the licence of a repository is read and accepted."""
    return f"https://huggingface.co/{repository_id}"


def missing_files(folder: Path, needed: Iterable[str]) -> list[str]:
    """What is not in ``folder``: patterns (alternatives parted by ``|``) no file matches, and shards of an index.

    Raises SubjectMissing for an index that cannot be used.
    """
    absent = [pattern for pattern in needed if not any(any(folder.glob(one)) for one in pattern.split("|"))]
    for index in sorted(folder.rglob(SHARD_INDEX)):
        absent += [f"{name} ({index.name})" for name in _shards(index) if not (index.parent / name).is_file()]
    return absent


def _shards(index: Path) -> list[str]:
    """Files of weights that an index names, relative to it. Raises SubjectMissing unless all of them lie beside it."""
    problem = None
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in shards if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
        problem = f"it names {outside[0]!r}, which is outside of the model's folder" if outside else None
    except (OSError, ValueError) as error:
        problem, shards = f"it cannot be read as JSON: {error}", []
    except (KeyError, TypeError, AttributeError):
        problem, shards = "it has no weight_map of weights to files", []
    if problem is not None:
        raise SubjectMissing(
            f"{index} does not say in which files the weights lie: {problem}. Fetch the model again "
            "(`hf download --force-download` and its repository), or write it again with save_pretrained."
        )
    return shards


def cached_repository(
    repository_id: str,
    patterns: Sequence[str],
    *,
    needed: Sequence[str] = ("config.json",),
    allow_download: bool = False,
) -> Path:
    """Folder of a Hub repository in the local cache.

    Args:
        patterns: files to fetch, as globs.
        needed: globs (alternatives parted by ``|``) each of which must match a file.
        allow_download: fetch what is not in the cache.

    Raises:
        SubjectMissing: the repository is not in the cache, incomplete, gated or does not exist; says what mends it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    page = licence_page(repository_id)
    try:
        folder = Path(
            snapshot_download(repository_id, allow_patterns=list(patterns), local_files_only=not allow_download)
        )
    except GatedRepoError as error:
        raise SubjectMissing(
            f"{repository_id} is gated: accept its licence at {page}, log in with `hf auth login`, then try again"
        ) from error
    except LocalEntryNotFoundError as error:
        raise SubjectMissing(
            f"{repository_id} is not on this machine: accept its licence at {page} and fetch it with "
            f"`hf download {repository_id}`"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise SubjectMissing(f"{repository_id} could not be fetched, see {page}: {error}") from error
    if absent := missing_files(folder, needed):
        raise SubjectMissing(
            f"{repository_id} is only partly on this machine: run `hf download {repository_id}` "
            f"(missing: {', '.join(absent)})"
        )
    return folder


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, without reading them again where the hash is known already."""
    real = path.resolve()
    if real.parent.name == "blobs" and _SHA256.fullmatch(real.name):
        return real.name
    state = real.stat()
    if state.st_size < REMEMBERED_BYTES:
        return _computed_hash(real)
    place = hashlib.sha256(f"{real}\0{state.st_size}\0{state.st_mtime_ns}".encode()).hexdigest()
    remembered = load_settings().cache_dir / "hashes" / place
    try:
        known = remembered.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        known = ""
    if _SHA256.fullmatch(known):
        return known
    computed = _computed_hash(real)
    _remember(remembered, computed)
    return computed


def _computed_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remember(place: Path, computed: str) -> None:
    """Best effort: a cache folder that cannot be written costs time, not the run."""
    partial = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(computed, encoding="utf-8")
        partial.replace(place)
    except OSError:
        return


def files_fingerprint(folder: Path, patterns: Iterable[str]) -> str:
    """SHA-256 (hex) over the relative names and contents of the files that match any pattern; not over the place."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in found):
        digest.update(f"{name}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()
