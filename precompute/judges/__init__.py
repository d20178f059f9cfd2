"""The judges of an explanation: protocols (base.py), the paper-scale ones (a module each), and opening a recipe's.

The world's judges live with the world, in precompute/world/judges.py. To add a paper-scale judge, write one module
here with a ``JUDGE``; the recipe then names it by the module's name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from backend.errors import RecipeError
from precompute.judges.base import (
    ImageGenerator,
    ImageTextEncoder,
    JudgeKind,
    Judges,
    NeededWeights,
    Segmenter,
    TruthOracle,
)

if TYPE_CHECKING:
    from precompute.judges.paper import MissingJudge
    from precompute.recipe import Recipe, Runtime

JUDGE_MODULES = {"world": "precompute.world.judges", "paper": "precompute.judges.paper"}
"""Kind of judges to the module whose ``open_judges(recipe, runtime)`` builds them; heavy imports happen there."""


def open_judges(recipe: Recipe, runtime: Runtime | None = None) -> Judges:
    """The judges a recipe asks for; models are loaded when they are first used.

    Args:
        runtime: device, precision and batch sizes; without it judges that are only asked for their fingerprints.

    Raises:
        RecipeError: a kind or a judge nobody implements.
        SubjectMissing: weights are missing; names all that are, with repositories and licence pages.
        DependencyMissing: packages are not installed; names all that are not.
    """
    kind = recipe.judges.kind
    if kind not in JUDGE_MODULES:
        raise RecipeError(f"[judges] kind = {kind!r} is unknown; choose one of: {', '.join(sorted(JUDGE_MODULES))}")
    return import_module(JUDGE_MODULES[kind]).open_judges(recipe, runtime)


def missing_judges(recipe: Recipe) -> list[MissingJudge]:
    """What the recipe's judges need and this machine lacks: weights and packages, all at once; empty if nothing.

    Raises RecipeError for a judge nobody implements.
    """
    from precompute.judges.paper import missing_judges as missing_of_paper

    return missing_of_paper(recipe)


__all__ = [
    "JUDGE_MODULES",
    "ImageGenerator",
    "ImageTextEncoder",
    "JudgeKind",
    "Judges",
    "NeededWeights",
    "Segmenter",
    "TruthOracle",
    "missing_judges",
    "open_judges",
]
