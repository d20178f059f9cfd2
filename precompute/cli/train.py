"""``iconoscope train``: only the SAE of a recipe, in one process or, under torchrun, in several."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from precompute.cli.run import chosen_recipe
from precompute.recipe import Runtime


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train the SAE of a recipe, and nothing after it; ``iconoscope run`` goes on from there.

    Several processes share the work when torchrun starts them, one for each GPU:

        torchrun --nproc-per-node 4 -m precompute train RECIPE --out OUT

    Each encodes its own images, the batch is divided among them, and the first one writes. Batches, and so the result
    up to rounding, are those of one process.
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """Name of a shipped recipe (world) or path of a .toml file."""
    out: Path
    """Folder for the results, as for ``iconoscope run``."""
    images: Path | None = None
    """As for ``iconoscope run``: another folder of images."""
    runtime: Annotated[Runtime, tyro.conf.arg(name="")] = field(default_factory=Runtime)
    """How to run; changes no result's fingerprint."""

    def __call__(self) -> int:
        from precompute.processes import joined
        from precompute.progress import SilentProgress, choose_progress
        from precompute.runner import run_recipe
        from precompute.shared_training import follow, lead_end
        from precompute.stages.train_sae import TrainSAE

        recipe = chosen_recipe(self.recipe, self.images, None)
        images = "" if self.images is None else f" --images {shlex.quote(str(self.images))}"
        command = f"iconoscope train {self.recipe}{images} --out {shlex.quote(str(self.out))}"
        with joined(self.runtime.device) as (processes, device):
            runtime = replace(self.runtime, device=device)
            if processes.rank > 0:
                follow(recipe, runtime, SilentProgress(), processes)
                return 0
            try:
                artifacts = run_recipe(
                    recipe, self.out, runtime, choose_progress(), stages=[TrainSAE(processes)], command=command
                )
            except KeyboardInterrupt:
                print(f"iconoscope: stopped; checkpoints are kept. Go on with: {command}", file=sys.stderr)
                return 130
            lead_end(processes)
        print(artifacts["train_sae"].folder)
        return 0
