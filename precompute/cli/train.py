"""``iconoscope train``: only the SAE of a recipe, in one process or, under torchrun, in several."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from backend.errors import RecipeError
from backend.settings import launched_size
from precompute.cli.run import chosen_recipe
from precompute.recipe import Recipe, Runtime


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train the SAE of a recipe, and nothing after it; ``iconoscope run`` goes on from there.

    Several processes share the work when torchrun starts them, one for each GPU:

        torchrun --nproc-per-node 4 -m precompute train RECIPE --out OUT

    Each encodes its own images, the batch is divided among them, and the first one writes. Batches, and so the result
    up to rounding, are those of one process.

    Several recipes on the same subject and images (other layers, d_sae, k, seeds) are trained in one pass of the
    encoder, each with the result that it has alone, into OUT/NAME.
    """

    recipes: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RECIPE...")]
    """Names of shipped recipes (world) or paths of .toml files."""
    out: Path
    """Folder for the results, as for ``iconoscope run``."""
    images: Path | None = None
    """As for ``iconoscope run``: another folder of images."""
    runtime: Annotated[Runtime, tyro.conf.arg(name="")] = field(default_factory=Runtime)
    """How to run; changes no result's fingerprint."""

    def __call__(self) -> int:
        recipes = [chosen_recipe(name, self.images, None) for name in self.recipes]
        names = [recipe.name for recipe in recipes]
        if not recipes or len(set(names)) < len(names):
            raise RecipeError("Give one recipe, or several with different names.")
        if len(recipes) > 1 and launched_size() > 1:
            raise RecipeError("Under torchrun only one recipe is trained at a time: give one, or start without it.")
        try:
            folders = self._train_one(recipes[0]) if len(recipes) == 1 else self._train_all(recipes)
        except KeyboardInterrupt:
            print(f"iconoscope: stopped; checkpoints are kept. Go on with: {self._command}", file=sys.stderr)
            return 130
        for folder in folders:
            print(folder)
        return 0

    @property
    def _command(self) -> str:
        images = "" if self.images is None else f" --images {shlex.quote(str(self.images))}"
        return f"iconoscope train {' '.join(self.recipes)}{images} --out {shlex.quote(str(self.out))}"

    def _train_one(self, recipe: Recipe) -> list[Path]:
        """The artifact's folder; nothing on processes other than the first."""
        from precompute.processes import joined
        from precompute.progress import SilentProgress, choose_progress
        from precompute.runner import run_recipe
        from precompute.shared_training import follow, lead_end
        from precompute.stages.train_sae import TrainSAE

        with joined(self.runtime.device) as (processes, device):
            runtime = replace(self.runtime, device=device)
            if processes.rank > 0:
                follow(recipe, runtime, SilentProgress(), processes)
                return []
            stages = [TrainSAE(processes)]
            done = run_recipe(recipe, self.out, runtime, choose_progress(), stages, self._command)
            lead_end(processes)
        return [done["train_sae"].folder]

    def _train_all(self, recipes: list[Recipe]) -> list[Path]:
        from precompute.progress import LineProgress
        from precompute.runner import run_recipe
        from precompute.shared_encoder import SharedEncoder
        from precompute.stages.train_sae import TrainSAE

        progress = LineProgress()  # live bars of several trainings would overwrite each other
        shared = SharedEncoder(recipes, self.runtime, progress)

        def work(recipe: Recipe) -> Path:
            stages = [TrainSAE(shared=shared)]
            done = run_recipe(recipe, self.out / recipe.name, self.runtime, progress, stages, self._command)
            return done["train_sae"].folder

        return shared.run([partial(work, recipe) for recipe in recipes])
