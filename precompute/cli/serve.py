"""``iconoscope serve`` and ``iconoscope demo``: the one place where the command line opens the explorer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import tyro

from backend.artifacts import Artifact
from backend.errors import DependencyMissing
from backend.listening import LOOPBACK
from backend.settings import load_settings, require_dir
from backend.types import Quantization
from precompute.cli.places import atlas_folder
from precompute.recipe import load_recipe
from precompute.status import require_current

DEMO_RECIPE = "world"
HOST, PORT = LOOPBACK, 7860
"""Where the explorer listens unless told otherwise."""


def open_explorer(
    atlases: Sequence[Path],
    host: str,
    port: int,
    *,
    subject: str | None = None,
    quantize: Quantization | None = None,
    devices: Sequence[str] = (),
) -> None:
    """Serve the explorer until it is stopped. Arguments and errors as for ``app.launch``."""
    try:
        from app import launch
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            f"The explorer cannot be imported ({error}). Install the project with its packages: pip install -e ."
        ) from error
    explorer = launch(atlases, host, port, block=False, subject=subject, quantize=quantize, devices=devices, tell=tell)
    print(f"The explorer answers at {explorer.url} (Ctrl-C stops it).", file=sys.stderr, flush=True)
    explorer.wait()


def serve_afresh(atlas: Path, host: str, port: int) -> NoReturn:
    """Let ``iconoscope serve`` take the place of this process: what a run has loaded is gone from memory then.

    Threads are also counted anew, which torch does not do once it is loaded (app/resources.py).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    program = [sys.executable, "-m", "precompute", "serve", str(atlas.resolve()), "--host", host, "--port", str(port)]
    os.execv(sys.executable, program)


def tell(line: str) -> None:
    """Print one line of what happens before the explorer answers."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Open the explorer on one atlas or several.

    Example: iconoscope serve RUN --subject google/gemma-3-27b-it --quantize int4
    """

    atlas: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="ATLAS")]
    """Folders of atlases, or of runs; the first one opens, the page leads to the others."""
    port: int = PORT
    """TCP port to listen on."""
    host: str = HOST
    """Address to listen on; 0.0.0.0 lets other machines in."""

    subject: str | None = None
    """Folder or repository of another model that answers live; it must have the vision tower of the atlas's subject."""
    quantize: Quantization | None = None
    """Load the language model in 8 or 4 bits (bitsandbytes); the vision tower stays as it is."""
    devices: tuple[str, ...] = ()
    """Devices that each hold one replica, e.g. cuda:0 cuda:1; default: every GPU, else the CPU."""

    def __call__(self) -> int:
        atlases = [atlas_folder(one) for one in self.atlas]
        options = {"subject": self.subject, "quantize": self.quantize, "devices": self.devices}
        open_explorer(atlases, self.host, self.port, **options)
        return 0


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Open the explorer on the atlas that ships with the project, after checking that it fits recipe and code."""

    port: int = PORT
    """TCP port to listen on."""
    host: str = HOST
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
