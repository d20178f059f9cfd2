"""How strengths were chosen is told from the atlas's own record: who had a choice has an advantage."""

from __future__ import annotations

from typing import Any

import pytest

from backend.artifacts import read_manifest
from backend.settings import load_settings
from backend.strength_choice import strength_choice

CHOSEN = {"steering": 200.0, "steering_informed_top_k_masks": 50.0}
SETTINGS: dict[str, Any] = {
    "strengths": [50, 100, 200, 400],
    "informed_strengths": [25, 50],
    "n_selection_features": 500,
    "per_feature_strength": False,
}


def inputs_with(**changes: Any) -> dict[str, Any]:
    return {"lineage": {"explain": {"config": {"explain": {**SETTINGS, **changes}}}}}


def test_one_strength_for_all_features_is_told_with_what_it_was_chosen_on() -> None:
    told = strength_choice(inputs_with(n_selection_features=1500), CHOSEN)
    assert told is not None
    assert "1,500 features" in told
    assert "best of 4 for all" in told
    assert "Top-k the best of 2" in told


def test_a_choice_for_each_feature_is_told_as_the_advantage_it_is() -> None:
    told = strength_choice(inputs_with(per_feature_strength=True), CHOSEN)
    assert told is not None
    assert "for each feature, the best of its answers at 4 strengths" in told
    assert "controls had the same strength" in told


@pytest.mark.parametrize("inputs", [{}, {"lineage": {}}, {"lineage": {"explain": {"config": {"explain": {}}}}}])
def test_what_was_not_recorded_is_not_told(inputs: dict[str, Any]) -> None:
    assert strength_choice(inputs, CHOSEN) is None


def test_without_a_steered_arm_there_was_no_choice() -> None:
    assert strength_choice(inputs_with(), {}) is None


def test_the_shipped_atlas_tells_its_choice() -> None:
    told = strength_choice(read_manifest(load_settings().atlas_dir).inputs, CHOSEN)
    assert told is not None
    assert "for each feature" in told
