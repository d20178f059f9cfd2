"""Which arms a recipe can have, and why it lacks the others.

An arm that steers needs a model that answers and whose vision tower is the one the features were found in. Where
another model explains the features (``[explainer]`` with ``steers = false``), only the arms that look at pictures are
possible. An absent arm has no rows in any table and no entry among totals: nothing was tried, so nothing failed. The
atlas says why it is absent.
"""

from __future__ import annotations

from backend.types import ARMS, Arm, Method
from precompute.recipe import Recipe

LOOKING = frozenset({Method.TOP_K, Method.NO_STEERING})
"""Methods that show a model pictures and change nothing inside it."""
ANOTHER_TOWER = (
    "the model that explains these features has another vision tower than the one they were found in, so their "
    "directions mean nothing in it and it cannot be steered along them"
)


def possible_arms(recipe: Recipe) -> tuple[Arm, ...]:
    """The arms of a recipe, in the order of all tables."""
    absent = absent_arms(recipe)
    return tuple(arm for arm in ARMS if arm.key not in absent)


def absent_arms(recipe: Recipe) -> dict[str, str]:
    """Key of every other arm, and the reason why it is absent; empty where all are possible."""
    if recipe.explainer is None or recipe.explainer.steers:
        return {}
    return {arm.key: ANOTHER_TOWER for arm in ARMS if arm.method not in LOOKING}
