"""``iconoscope run`` and ``iconoscope status``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from precompute.engines import EngineOptions, open_engine
from precompute.progress import choose_progress
from precompute.recipe import Runtime, load_recipe
from precompute.runner import run_recipe
from precompute.status import StageStatus, status


@dataclass(frozen=True, kw_only=True)
class Run:
    """Compute every stage of a recipe, from SAE training to the atlas.

    Finished stages and shards are kept: a run that was stopped or killed goes on where it was, and a second run of the
    same recipe does nothing.
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """Name of a shipped recipe (world) or path of a .toml file."""
    out: Path
    """Folder for the results, one subfolder per stage."""
    runtime: Annotated[Runtime, tyro.conf.arg(name="")] = field(default_factory=Runtime)
    """How to run; changes no result's fingerprint."""
    engine: Annotated[EngineOptions, tyro.conf.arg(name="")] = field(default_factory=EngineOptions)
    """Where the shards are computed; changes no result's fingerprint."""

    def __call__(self) -> int:
        recipe = load_recipe(self.recipe)
        command = f"iconoscope run {self.recipe} --out {self.out}"
        try:
            with open_engine(self.engine, self.runtime) as engine:
                artifacts = run_recipe(
                    recipe, self.out, self.runtime, choose_progress(), command=command, engine=engine
                )
        except KeyboardInterrupt:
            print(f"iconoscope: stopped; finished shards are kept. Go on with: {command}", file=sys.stderr)
            return 130
        print(artifacts["atlas"].folder)
        return 0


@dataclass(frozen=True, kw_only=True)
class Status:
    """Say for every stage of a recipe what is done, how many shards are, or which field made it stale."""

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """Name of a shipped recipe (world) or path of a .toml file."""
    out: Path
    """Folder given to ``iconoscope run``."""
    verify: bool = False
    """Compare checksums too, not only presence and sizes."""
    json: bool = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        found = status(load_recipe(self.recipe), self.out, verify=self.verify)
        if self.json:
            print_json([{**asdict(item), "folder": str(item.folder), "sentence": item.sentence} for item in found])
        else:
            Console().print(status_table(found))
        return 0


def status_table(found: tuple[StageStatus, ...]) -> Table:
    """The stages as a table for a terminal."""
    table = Table("stage", "fingerprint", "state", box=None, pad_edge=False)
    for item in found:
        table.add_row(item.stage, item.fingerprint[:12], item.sentence)
    return table


def print_json(value: object) -> None:
    """Strict, readable JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
