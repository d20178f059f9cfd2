"""``iconoscope copy``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from backend.artifact_writer import copy_artifact
from backend.artifacts import MANIFEST_NAME, Artifact
from backend.settings import resolve_path
from precompute.cli.places import atlas_folder


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Copy an artifact to a new place: exactly the files of its manifest, checked before and after.

    Logs and command lines of the run stay behind, so the copy says nothing about the machine it was made on.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Folder of an artifact, or of a run (then its newest atlas is copied)."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TARGET")]
    """Folder that does not exist yet, or is empty."""

    def __call__(self) -> int:
        place = resolve_path(self.source)
        folder = place if (place / MANIFEST_NAME).is_file() else atlas_folder(place)
        copied = copy_artifact(Artifact.open(folder), self.target)
        size = sum(entry.bytes for entry in copied.manifest.files.values())
        print(f"{copied.manifest.kind} {copied.fingerprint[:12]}: {len(copied.manifest.files)} files, {size} bytes")
        return 0
