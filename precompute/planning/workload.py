"""How often a recipe does each unit of work. Counts follow from the recipe; what only a run can tell is assumed."""

from __future__ import annotations

from dataclasses import dataclass

from backend.types import Method
from precompute.arms import possible_arms
from precompute.recipe import Recipe

ALIVE_SHARE = 0.95
"""Assumed share of features that fire at all (arXiv 2603.22593 reports 7,690 of 8,192)."""
DISTINCT_SHARE = 0.9
"""Assumed share of different texts among all explanations of an open vocabulary."""
TEXTS_PER_CONCEPT, WORLD_TEXTS_PER_FEATURE = 2, 3
"""Assumed number of ways in which a subject of the world names a concept, and of different texts about one feature."""
MASKED_EXEMPLARS = 13
"""Exemplars per feature in which the atlas looks for each text: 8 explained ones and 5 scored ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSizes:
    """Images per split."""

    train: int
    explain: int
    select: int
    score: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Units of work of a whole run; see UnitCosts for each unit."""

    train_images: int
    """Images encoded for training; an image that is met again in a later epoch is encoded again, unless all fit."""
    held_out_images: int
    train_steps: int
    harvest_images: int
    n_alive: int
    selection_rows_blank: int
    selection_rows_shown: int
    blank_rows: int
    shown_rows: int
    shown_pictures: int
    selection_regions: int
    n_texts: int
    synthetic_images: int
    scored_pictures: int
    scored_regions: int
    truth_images: int
    truth_features: int
    atlas_regions: int
    thumbnails: int


def workload(
    recipe: Recipe, sizes: SplitSizes, *, patches_per_image: int, n_concepts: int | None, held_out: int
) -> Workload:
    """Counts of a run.

    Args:
        recipe: what to run.
        sizes: images per split.
        patches_per_image: tokens of one image at the hook point.
        n_concepts: concepts of a closed vocabulary, or None where explanations are free text.
        held_out: training images that only measure quality.
    """
    sae, explain, score = recipe.sae, recipe.explain, recipe.score
    arms = possible_arms(recipe)
    alive = round(ALIVE_SHARE * sae.d_sae)
    steered = sum(arm.method is Method.STEERING for arm in arms)
    informed = sum(arm.method is Method.STEERING_INFORMED_TOP_K for arm in arms)
    controls = sum(arm.is_control for arm in arms) - 1  # NO_STEERING is the same for all features: one answer
    selecting = min(explain.n_selection_features, alive) if steered else 0
    own = steered * alive * (len(explain.strengths) if explain.per_feature_strength else 1)
    said = len(arms) - 1
    if n_concepts:
        n_texts, per_feature = min(alive * said, TEXTS_PER_CONCEPT * n_concepts), min(said, WORLD_TEXTS_PER_FEATURE)
    else:
        n_texts, per_feature = round(DISTINCT_SHARE * alive * said), said
    trials = selecting * (len(explain.strengths) + informed * len(explain.informed_strengths))
    trials += own if explain.per_feature_strength else 0
    return Workload(
        train_images=_training_images(recipe, sizes.train - held_out, patches_per_image) if sae.path is None else 0,
        held_out_images=held_out,
        train_steps=max(1, sae.n_tokens // sae.batch_tokens) if sae.path is None else 0,
        harvest_images=sizes.explain + sizes.select + sizes.score,
        n_alive=alive,
        selection_rows_blank=selecting * len(explain.strengths),
        selection_rows_shown=selecting * informed * len(explain.informed_strengths),
        blank_rows=own + alive * controls,
        shown_rows=alive * sum(arm.variant is not None for arm in arms),
        shown_pictures=2 * (alive + selecting) * explain.n_images,
        selection_regions=trials * explain.n_images,
        n_texts=n_texts,
        synthetic_images=n_texts * score.n_synthetic,
        scored_pictures=alive * score.n_images,
        scored_regions=alive * per_feature * score.n_images,
        truth_images=sizes.score if n_concepts else 0,
        truth_features=sae.d_sae if n_concepts else 0,
        atlas_regions=alive * per_feature * MASKED_EXEMPLARS,
        thumbnails=min(sizes.explain + sizes.score, alive * 2 * recipe.atlas.n_exemplars),
    )


def _training_images(recipe: Recipe, n_images: int, patches_per_image: int) -> int:
    """As TokenStream does it: everything is kept if it fits into the buffer, else each block is encoded anew."""
    if n_images * patches_per_image <= recipe.sae.buffer_tokens:
        return n_images
    return -(-recipe.sae.n_tokens // patches_per_image)
