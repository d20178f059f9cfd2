"""``iconoscope serve`` and ``iconoscope demo``: the one place where the command line opens the explorer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from backend.artifacts import Artifact
from backend.errors import DependencyMissing
from backend.settings import load_settings, require_dir
from precompute.cli.places import atlas_folder
from precompute.recipe import load_recipe
from precompute.status import require_current

DEMO_RECIPE = "world"


def open_explorer(atlases: Sequence[Path], host: str, port: int) -> None:
    """Serve the explorer until it is stopped. Raises DependencyMissing if its packages are absent."""
    try:
        from app import launch
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            f"The explorer cannot be imported ({error}). Install the project with its packages: pip install -e ."
        ) from error
    explorer = launch(atlases, host, port, block=False)
    print(f"The explorer answers at {explorer.url} (Ctrl-C stops it).", file=sys.stderr, flush=True)
    explorer.wait()


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Open the explorer on one atlas or several."""

    atlas: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="ATLAS")]
    """Folders of atlases, or of runs; the first one opens, the page leads to the others."""
    port: int = 7860
    """TCP port to listen on."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""

    def __call__(self) -> int:
        open_explorer([atlas_folder(one) for one in self.atlas], self.host, self.port)
        return 0


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Open the explorer on the atlas that ships with the project, after checking that it fits recipe and code."""

    port: int = 7860
    """TCP port to listen on."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""

    def __call__(self) -> int:
        settings = load_settings()
        mend = f"Make it with: iconoscope run {DEMO_RECIPE} --out DIR"
        folder = require_dir(settings.atlas_dir, "The demo atlas", mend)
        artifact = Artifact.open(folder, "atlas")
        require_current(artifact, load_recipe(DEMO_RECIPE))
        print(f"Demo atlas {artifact.fingerprint[:12]}: fingerprints match, nothing to recompute.", file=sys.stderr)
        open_explorer([folder], self.host, self.port)
        return 0
