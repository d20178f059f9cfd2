"""Which folder a person means: an atlas itself, or a run's output folder whose newest atlas is wanted."""

from __future__ import annotations

import json
from pathlib import Path

from backend.artifacts import MANIFEST_NAME
from backend.errors import ArtifactDamaged, ArtifactMissing
from backend.settings import resolve_path
from precompute.runner import LATEST_NAME


def latest_folders(out_dir: Path) -> dict[str, Path]:
    """Stage to folder from a run's latest.json; empty if ``out_dir`` is no run folder. Raises ArtifactDamaged."""
    path = out_dir / LATEST_NAME
    if not path.is_file():
        return {}
    try:
        return {str(stage): out_dir / str(name) for stage, name in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise ArtifactDamaged(f"{path} is not readable ({error}). Run the recipe again: it is rewritten.") from error


def atlas_folder(path: str | Path) -> Path:
    """The atlas at ``path``, or the newest one of the run folder ``path``. Raises ArtifactMissing."""
    place = resolve_path(path)
    if (place / MANIFEST_NAME).is_file():
        return place
    folders = latest_folders(place)
    if "atlas" in folders:
        return folders["atlas"]
    raise ArtifactMissing(f"There is no atlas at {place}. Make one with: iconoscope run RECIPE --out DIR")
