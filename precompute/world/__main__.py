"""Rebuild the world: ``python -m precompute.world [sprites|tower|language|clip|corpora|evaluate|all]``.

Uses a GPU if there is one; takes about two hours on two cores. Killed and started again, it goes on from its last
checkpoint. Working files lie in ``--work``; finished models go to the assets folder.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from backend.settings import load_settings
from backend.types import Split
from precompute.recipe import load_recipe
from precompute.world.clip import train_clip
from precompute.world.corpus import CORPUS_SIZES, build_corpus, corpus_path
from precompute.world.evaluate import evaluate_world
from precompute.world.language import train_language
from precompute.world.sprites import build_sheet
from precompute.world.tower import train_tower

Step = Literal["sprites", "corpora", "tower", "language", "clip", "evaluate", "all"]
ORDER: tuple[Step, ...] = ("corpora", "tower", "language", "clip", "evaluate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """Train the world's models and draw its corpora."""

    step: Annotated[Step, tyro.conf.Positional] = "all"
    """What to rebuild; ``all`` is everything but the sprite sheet."""
    work: Path = Path("runs/world-models")
    """Checkpoints and unfinished models."""
    font: Path = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    """Noto Color Emoji, needed for the sprite sheet only."""


def run_step(step: Step, options: Rebuild) -> None:
    """Do one step and move its result into the assets."""
    world = load_settings().world_dir
    if step == "sprites":
        build_sheet(options.font, world / "sprites" / "sheet.webp")
    elif step == "corpora":
        for split in CORPUS_SIZES:
            build_corpus(corpus_path(world / "corpus", Split(split)), split)
    elif step == "tower":
        train_tower(options.work)
    elif step == "language":
        _install(train_language(options.work / "tower.safetensors", options.work), world / "subject")
    elif step == "clip":
        _install(train_clip(options.work), world / "clip")
    elif step == "evaluate":
        evaluate_world(world, layer=load_recipe("world").subject.layer)


def _install(folder: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(folder, target)


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = tyro.cli(Rebuild, description=__doc__)
    for step in ORDER if options.step == "all" else (options.step,):
        logging.info("world: %s", step)
        run_step(step, options)


if __name__ == "__main__":
    main()
