"""Where a subject model's files lie: a folder, or a repository in the local Hugging Face cache."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from backend.errors import SubjectError, SubjectMissing
from backend.models.base import ModelCard

REPOSITORY_PATTERN = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
NEEDED_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model")
CHUNK_BYTES = 1 << 22


def locate(path_or_repository: str | Path, *, allow_download: bool = False) -> Path:
    """Folder holding config.json and the weights.

    Args:
        path_or_repository: a folder, or a Hub repository id such as ``google/gemma-3-4b-it``.
        allow_download: fetch a repository that is not in the local cache. Off by default: nothing is fetched unasked.

    Raises:
        SubjectMissing: no such folder, or the repository is not in the cache, does not exist or is gated.
    """
    folder = Path(path_or_repository)
    if (folder / "config.json").is_file():
        return folder
    name = str(path_or_repository)
    if folder.exists() or not REPOSITORY_PATTERN.fullmatch(name):
        raise SubjectMissing(
            f"no subject model at {name!r}: the folder must hold config.json, the weights (*.safetensors), "
            "the tokenizer and the processor, as save_pretrained writes them"
        )
    return _cached_repository(name, allow_download)


def _cached_repository(repository_id: str, allow_download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    page = licence_page(repository_id)
    try:
        folder = snapshot_download(
            repository_id, allow_patterns=list(NEEDED_FILES), local_files_only=not allow_download
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
    if not (Path(folder) / "config.json").is_file():
        raise SubjectMissing(f"{repository_id} is only partly on this machine: run `hf download {repository_id}`")
    return Path(folder)


def licence_page(repository_id: str) -> str:
    """Page on which the licence of a repository is read and accepted."""
    return f"https://huggingface.co/{repository_id}"


def read_model_type(folder: Path) -> str:
    """The ``model_type`` of config.json, which names the adapter.

    Raises:
        SubjectError: config.json is not readable JSON or names no model type.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SubjectError(f"cannot read {folder / 'config.json'}: {error}") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(model_type, str):
        raise SubjectError(f"{folder / 'config.json'} names no model_type")
    return model_type


def card_for(path_or_repository: str | Path, family: str) -> ModelCard:
    """The card of a model: repository and licence page if it was named by repository, the folder's name otherwise."""
    name = str(path_or_repository)
    if Path(path_or_repository).is_dir():
        return ModelCard(name=Path(name).resolve().name, family=family, repository_id=None, licence_url=None)
    return ModelCard(name=name, family=family, repository_id=name, licence_url=licence_page(name))


def model_fingerprint(folder: Path) -> str:
    """SHA-256 (hex) over the names and contents of the files that determine what the model computes."""
    digest = hashlib.sha256()
    files = sorted({path for pattern in NEEDED_FILES for path in folder.glob(pattern)}, key=lambda path: path.name)
    for path in files:
        content = hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                content.update(chunk)
        digest.update(f"{path.name}\0{content.hexdigest()}\n".encode())
    return digest.hexdigest()
