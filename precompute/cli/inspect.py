"""``iconoscope inspect``: what a folder holds, in numbers with their n and interval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from backend.artifacts import MANIFEST_NAME, Artifact, read_manifest
from backend.errors import ArtifactMissing
from backend.feature_store import ATLAS_KIND, FeatureStore
from backend.settings import resolve_path
from precompute.cli.atlas_report import atlas_report, print_atlas
from precompute.cli.places import latest_folders
from precompute.cli.run import print_json
from precompute.cli.stage_report import print_stage, stage_report
from precompute.cli.world_report import EVALUATION_NAME, print_world, world_report


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show what an artifact holds: an atlas, the output of any stage, a run folder, or the world (assets/world).

    Every score comes with its n and 95 % interval.
    """

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PATH")]
    """Folder to look into."""
    json: bool = False
    """Print JSON instead of tables."""

    def __call__(self) -> int:
        place = resolve_path(self.path)
        if (place / MANIFEST_NAME).is_file():
            self._artifact(place)
        elif (place / EVALUATION_NAME).is_file():
            found = world_report(place)
            print_json(found) if self.json else print_world(found, Console())
        elif folders := latest_folders(place):
            for folder in folders.values() if not self.json else [folders.get(ATLAS_KIND, place)]:
                self._artifact(folder)
        else:
            read_manifest(place)  # says what is missing: nothing at all, or only the end of a run
            raise ArtifactMissing(f"There is nothing to inspect at {place}.")
        return 0

    def _artifact(self, folder: Path) -> None:
        artifact = Artifact.open(folder)
        if artifact.manifest.kind == ATLAS_KIND:
            report = atlas_report(FeatureStore(artifact))
            print_json(report) if self.json else print_atlas(report, Console())
        else:
            report = stage_report(artifact)
            print_json(report) if self.json else print_stage(report, Console())
