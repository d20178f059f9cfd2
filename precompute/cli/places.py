"""Which folder a person means: an artifact itself, or a run's output folder whose newest artifact is wanted."""

from __future__ import annotations

import json
from pathlib import Path

from backend.artifacts import MANIFEST_NAME, Artifact
from backend.errors import ArtifactDamaged, ArtifactMissing
from backend.settings import resolve_path
from precompute.runner import LATEST_NAME

SAE_DIR = "sae"
"""Where an artifact that holds an SAE keeps it."""
SAE_CONFIG_NAME = "cfg.json"
"""As ``backend.sae.CONFIG_NAME``, which this module does not import: torch takes seconds."""


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


def sae_folder(path: str | Path) -> Path:
    """The folder with the SAE of an atlas, of a train_sae artifact, of a run (its newest), or ``path`` itself.

    Raises ArtifactMissing if there is none, ArtifactDamaged if the SAE's files differ from their manifest.
    """
    place = resolve_path(path)
    if (place / SAE_CONFIG_NAME).is_file():
        return place
    if not (place / MANIFEST_NAME).is_file():
        latest = latest_folders(place)
        place = next((latest[stage] for stage in ("train_sae", "atlas") if stage in latest), place)
    if (place / SAE_DIR / SAE_CONFIG_NAME).is_file():
        artifact = Artifact.open(place, verify=False)
        for name in artifact.manifest.files:
            if name.startswith(f"{SAE_DIR}/"):
                artifact.check_file(name)
        return place / SAE_DIR
    raise ArtifactMissing(
        f"There is no SAE at {place}: give an atlas, a run's folder, or a folder with {SAE_CONFIG_NAME}. "
        "Train one with: iconoscope run RECIPE --out DIR"
    )
