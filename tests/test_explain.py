"""The explain stage: strengths chosen on the select split, an answer or a reason from every arm for every feature."""

from __future__ import annotations

from importlib import metadata

import pytest

from backend.types import ARMS, Method, Split
from precompute.datasets import open_image_set
from precompute.exemplars import alive_features
from precompute.explaining import arms_by_picture
from precompute.stages.explain import selection_features, strength_grids
from precompute.strengths import Trial, common_strength, own_strengths
from tests.builders_pipeline import planted_recipe, planted_run, planted_subject


def trial(feature: int, strength: float, iou: float | None) -> Trial:
    return Trial(feature=feature, arm="steering", strength=strength, text="red", iou=iou, n_images=3)


def test_common_strength_has_the_best_mean_with_missing_as_no_overlap() -> None:
    lucky = [trial(0, 8.0, 0.9), trial(1, 8.0, None), trial(2, 8.0, None)]
    steady = [trial(feature, 4.0, 0.4) for feature in range(3)]
    assert common_strength(lucky + steady) == 4.0


def test_equal_strengths_go_to_the_smaller_one() -> None:
    assert common_strength([trial(0, 8.0, 0.5), trial(0, 2.0, 0.5), trial(0, 4.0, 0.1)]) == 2.0
    with pytest.raises(ValueError, match="no strength"):
        common_strength([])


def test_own_strength_is_the_features_best_and_else_near_the_common_one() -> None:
    trials = [trial(0, 1.0, 0.1), trial(0, 4.0, 0.3), trial(0, 8.0, None)]
    trials += [trial(1, 1.0, 0.2), trial(1, 4.0, 0.2), trial(1, 8.0, 0.2)]
    trials += [trial(2, 1.0, None), trial(2, 4.0, None), trial(2, 8.0, None)]
    assert own_strengths(trials, fallback=4.0) == {0: 4.0, 1: 4.0, 2: 4.0}
    assert own_strengths(trials, fallback=1.0) == {0: 4.0, 1: 1.0, 2: 1.0}


def test_selection_features_are_a_seeded_choice_of_alive_ones() -> None:
    alive = tuple(range(0, 100, 3))
    chosen = selection_features(alive, 10, seed=1)
    assert chosen == selection_features(alive, 10, seed=1) != selection_features(alive, 10, seed=2)
    assert len(chosen) == 10 and set(chosen) <= set(alive) and chosen == tuple(sorted(chosen))
    assert selection_features(alive[:3], 10, seed=1) == alive[:3]


def test_strengths_may_be_multiples_of_the_residual_norm() -> None:
    recipe = planted_recipe(planted_subject())
    assert strength_grids(recipe, 2.0) == ((2.0, 8.0, 32.0), (2.0, 8.0))
    absolute = planted_recipe(planted_subject(), explain={"strength_unit": "l2"})
    assert strength_grids(absolute, 2.0) == ((1.0, 4.0, 16.0), (1.0, 4.0))


def test_arms_with_the_same_pictures_stand_together() -> None:
    arms = arms_by_picture()
    assert set(arms) == set(ARMS) and len(arms) == len(ARMS)
    variants = [arm.variant for arm in arms]
    assert [one for at, one in enumerate(variants) if at == 0 or variants[at - 1] != one] == list(
        dict.fromkeys(variants)
    )


# ----------------------------------------------------------------------------------------------- the stage itself


@pytest.mark.slow
def test_every_alive_feature_has_a_text_or_a_reason_from_every_arm() -> None:
    run = planted_run()
    rows = run["explain"].table("explanations").to_pylist()
    alive = alive_features(run["harvest"])
    assert sorted((row["feature"], row["arm"]) for row in rows) == sorted((f, arm.key) for f in alive for arm in ARMS)
    assert all((row["text"] is None) != (row["failure"] is None) for row in rows)
    failed = sum(row["failure"] is not None for row in rows)
    assert failed == sum(run["explain"].manifest.failures.values())
    assert len({row["raw_text"] for row in rows if row["arm"] == Method.NO_STEERING.value}) == 1
    read = run["explain"].manifest.notes["images_read"]
    assert read == {"mask_mode": "bidirectional within an image", "transformers": metadata.version("transformers")}


@pytest.mark.slow
def test_strengths_come_from_the_select_split_only() -> None:
    run = planted_run()
    norm = run["harvest"].json("stream")["mean_residual_norm"]
    grid = [pytest.approx(value * norm, rel=1e-4) for value in (1.0, 4.0, 16.0)]
    chosen = run["explain"].json("strengths")
    assert chosen["steering"] in grid
    features = run["explain"].table("selection_features")["feature"].to_pylist()
    assert len(features) == 4 and set(features) <= set(alive_features(run["harvest"]))
    trials = run["explain"].table("selection").to_pylist()
    informed = [row for row in trials if row["arm"] == "steering_informed_top_k_masks"]
    assert {row["feature"] for row in informed} == set(features) and len(informed) == 4 * 2
    for row in run["explain"].table("explanations").to_pylist():
        steered = row["arm"] in {"steering", "random_direction", "permuted_direction"}
        if steered:
            assert row["strength"] in grid
        seen = set(row["image_ids"])
        explain_ids = set(open_image_set(planted_recipe(planted_subject()), Split.EXPLAIN).ids)
        assert seen <= explain_ids and len(seen) <= 3


@pytest.mark.slow
def test_each_feature_gets_the_strength_of_its_best_trial() -> None:
    run = planted_run()
    trials = run["explain"].table("selection").to_pylist()
    used = {row["feature"]: row for row in run["explain"].table("explanations").to_pylist() if row["arm"] == "steering"}
    for feature, row in used.items():
        tried = [one for one in trials if one["feature"] == feature and one["arm"] == "steering"]
        best = max(one["iou"] or 0 for one in tried)
        at = next(one for one in tried if one["strength"] == pytest.approx(row["strength"], rel=1e-5))
        assert (at["iou"] or 0) == best and at["text"] == row["text"]
