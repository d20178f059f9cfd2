"""The shipped atlas: current with the shipped recipe and code, and what the README says of it is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.artifacts import Artifact
from backend.atlas import FeatureAtlas
from backend.settings import load_settings
from backend.types import ARMS
from precompute.recipe import load_recipe
from precompute.status import require_current
from precompute.world.concepts import CONCEPT_BY_ID
from precompute.world.parser import groups_of

ATLAS = load_settings().atlas_dir


@pytest.fixture(scope="module")
def atlas() -> FeatureAtlas:
    return FeatureAtlas.open(ATLAS)


@pytest.fixture(scope="module")
def arms() -> dict[str, Any]:
    return json.loads((ATLAS / "summary.json").read_text(encoding="utf-8"))["arms"]


def test_fingerprints_match_the_shipped_recipe_and_code() -> None:
    require_current(Artifact.open(ATLAS, kind="atlas"), load_recipe("world"))


def test_sae_and_coverage(atlas: FeatureAtlas) -> None:
    sae, coverage = atlas.store.meta["sae"], atlas.store.meta["concept_coverage"]
    assert sae["d_sae"] >= 1024
    assert sae["alive"] / sae["d_sae"] >= 0.6
    assert sae["explained_variance"] >= 0.85
    assert coverage["all"]["value"] >= 0.9
    assert coverage["by_kind"]["object"]["value"] >= 0.9


def test_every_arm_reports_every_score_with_an_interval(arms: dict[str, Any]) -> None:
    assert set(arms) == {arm.key for arm in ARMS}
    for entry in arms.values():
        for metric in ("iou", "clip_score", "synthetic_activation", "auroc_pooled", "auroc_per_feature"):
            score = entry[metric]
            assert score["value"] is None or score["low"] <= score["value"] <= score["high"], (metric, score)
            assert (score["value"] is None) == (score["n"] == 0)


def test_methods_are_right_far_above_chance_and_controls_are_not(arms: dict[str, Any]) -> None:
    right = {key: entry["truth"]["right"]["value"] for key, entry in arms.items()}
    assert right["steering"] >= 0.45
    assert right["top_k_masks"] >= 0.7
    assert right["steering_informed_top_k_masks"] >= 0.7
    assert right["steering_informed_top_k_heatmaps"] >= 0.7
    assert right["no_steering"] == 0
    for control in ("random_direction", "permuted_direction"):
        chance = arms[control]["truth_chance"]
        assert chance["low"] <= right[control] <= chance["high"]
    assert (
        arms["steering_informed_top_k_masks"]["auroc_per_feature"]["low"]
        > arms["steering"]["auroc_per_feature"]["value"]
    )


@pytest.mark.parametrize("query", ["depth", "perspective", "animal", "vehicle", "stripes"])
def test_search_finds_features_whose_truth_is_in_the_group(atlas: FeatureAtlas, query: str) -> None:
    hits = atlas.search.query(query, 5)
    truths = [atlas.store.feature(hit.feature).truth_concept for hit in hits]
    known = [truth for truth in truths if truth in CONCEPT_BY_ID]
    assert len(known) >= 3
    assert sum(query in groups_of(truth) for truth in known) >= 3
