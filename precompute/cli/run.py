"""``iconoscope run`` and ``iconoscope status``."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from backend.listening import require_address
from precompute.cli.places import sae_folder
from precompute.cli.serve import HOST, PORT, serve_afresh
from precompute.engines import EngineOptions, open_engine
from precompute.own_images import with_images
from precompute.progress import choose_progress
from precompute.recipe import Recipe, Runtime, load_recipe
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
    images: Path | None = None
    """Folder with your own pictures, nested as you like, to be explained instead of the recipe's images."""
    sae: Path | None = None
    """Take this SAE instead of training one: an atlas, a run's folder, or what `iconoscope sae import` wrote."""
    runtime: Annotated[Runtime, tyro.conf.arg(name="")] = field(default_factory=Runtime)
    """How to run; changes no result's fingerprint."""
    engine: Annotated[EngineOptions, tyro.conf.arg(name="")] = field(default_factory=EngineOptions)
    """Where the shards are computed; changes no result's fingerprint."""
    serve: bool = False
    """Open the explorer on the result when it is finished, or if it is there already."""
    port: int = PORT
    """With --serve: TCP port to listen on."""
    host: str = HOST
    """With --serve: address to listen on; 0.0.0.0 lets other machines in."""

    def __call__(self) -> int:
        if self.serve:
            require_address(self.host, self.port)  # told now, not after hours of computing
        recipe = chosen_recipe(self.recipe, self.images, self.sae)
        given = {"--images": self.images, "--sae": self.sae}
        options = "".join(f" {name} {shlex.quote(str(path))}" for name, path in given.items() if path is not None)
        command = f"iconoscope run {self.recipe}{options} --out {shlex.quote(str(self.out))}"
        try:
            with open_engine(self.engine, self.runtime) as engine:
                artifacts = run_recipe(
                    recipe, self.out, self.runtime, choose_progress(), command=command, engine=engine
                )
        except KeyboardInterrupt:
            again = f"{command}{self._serving()}"
            print(f"iconoscope: stopped; finished shards are kept. Go on with: {again}", file=sys.stderr)
            return 130
        atlas = artifacts["atlas"].folder
        print(atlas)
        if self.serve:
            serve_afresh(atlas, self.host, self.port)
        return 0

    def _serving(self) -> str:
        """The options that open the explorer, as they were given."""
        if not self.serve:
            return ""
        given = {"--port": (self.port, PORT), "--host": (self.host, HOST)}
        changed = (f" {name} {shlex.quote(str(value))}" for name, (value, default) in given.items() if value != default)
        return " --serve" + "".join(changed)


@dataclass(frozen=True, kw_only=True)
class Status:
    """Say for every stage of a recipe what is done, how many shards are, or which field made it stale."""

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """Name of a shipped recipe (world) or path of a .toml file."""
    out: Path
    """Folder given to ``iconoscope run``."""
    images: Path | None = None
    """As given to ``iconoscope run``."""
    sae: Path | None = None
    """As given to ``iconoscope run``."""
    verify: bool = False
    """Compare checksums too, not only presence and sizes."""
    json: bool = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        found = status(chosen_recipe(self.recipe, self.images, self.sae), self.out, verify=self.verify)
        if self.json:
            print_json([{**asdict(item), "folder": str(item.folder), "sentence": item.sentence} for item in found])
        else:
            Console().print(status_table(found))
        return 0


def chosen_recipe(name: str, images: Path | None, sae: Path | None) -> Recipe:
    """The recipe, over another folder of images or with an SAE that is there already, where asked for."""
    recipe = load_recipe(name)
    if sae is not None:
        from precompute.given_sae import with_sae  # loads torch

        recipe = with_sae(recipe, sae_folder(sae))
    return recipe if images is None else with_images(recipe, images)


def status_table(found: tuple[StageStatus, ...]) -> Table:
    """The stages as a table for a terminal."""
    table = Table("stage", "fingerprint", "state", box=None, pad_edge=False)
    for item in found:
        table.add_row(item.stage, item.fingerprint[:12], item.sentence)
    return table


def print_json(value: object) -> None:
    """Strict, readable JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
