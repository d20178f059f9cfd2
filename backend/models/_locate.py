"""Where a subject model's files lie: a folder, or a repository in the local Hugging Face cache."""

from __future__ import annotations

import json
from pathlib import Path

from backend.errors import SubjectError, SubjectMissing
from backend.models.base import ModelCard
from backend.weights import REPOSITORY_PATTERN, cached_repository, files_fingerprint, licence_page

NEEDED_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model")


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
    return cached_repository(name, NEEDED_FILES, allow_download=allow_download)


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
    return files_fingerprint(folder, NEEDED_FILES)
