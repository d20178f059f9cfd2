"""Who wrote the best explanation: ties are counted as ties, by the rule of the vote, and never as a method's merit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.ranking import standing
from app.services import Services, open_services
from app.tabs.compare.wins import leaders, wins
from backend.settings import load_settings
from tests.builders_app import build_steerable_atlas, edit_table
from tests.builders_atlas import BagEncoder

TIED = ("top_k_masks", "steering_informed_top_k_masks")


def _plant(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["feature"] in (2, 3) and row["arm"] in TIED and row["value"] is not None:
            row["value"] = 0.99
        if row["feature"] == 7 and row["arm"] == "steering" and row["metric"] == "iou":
            row.update(value=None, n=0, reason="no region")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Services:
    folder = build_steerable_atlas(tmp_path_factory.mktemp("wins") / "atlas", subject=None, n_features=30)
    edit_table(folder, "scores", _plant)
    return open_services(folder, encoder=BagEncoder())


def test_leaders_are_those_of_the_feature_page(planted: Services) -> None:
    arms = [arm.key for arm in planted.store.arms if not arm.is_control]
    table = leaders(planted.store, arms)
    for row, feature in enumerate(planted.store.feature_ids.tolist()):
        found = standing(planted, feature)
        assert {arms[place] for place in np.flatnonzero(table[row])} == set(found.leaders), feature
    assert standing(planted, 7).metrics == ("clip_score", "synthetic_activation"), "one method lacks its IoU"


def test_a_planted_tie_is_nobodys_win(planted: Services) -> None:
    arms = [arm.key for arm in planted.store.arms if not arm.is_control]
    table, found = leaders(planted.store, arms), wins(planted.store)
    rows = np.flatnonzero(np.isin(planted.store.feature_ids, (2, 3)))
    assert [{arms[place] for place in np.flatnonzero(table[row])} for row in rows] == [set(TIED)] * 2
    assert found.n_tied == (table.sum(axis=1) > 1).sum() >= 2
    assert sum(found.alone.values()) == found.n - found.n_tied
    for place, arm in enumerate(arms):
        share = found.among[arm]
        assert share.value == table[:, place].mean()
        assert found.alone[arm] <= round((share.value or 0) * share.n)


def test_the_shipped_atlas_drew_every_best_explanation_from_the_leaders() -> None:
    store = open_services(load_settings().atlas_dir, encoder=BagEncoder(), verify=False).store
    arms = [arm.key for arm in store.arms if not arm.is_control]
    table = leaders(store, arms)
    drawn = [arms.index(key) for key in store.features["best_arm"].to_pylist()]
    assert table[np.arange(len(store)), drawn].all()
    assert 0 < wins(store).n_tied < len(store)


def test_an_atlas_of_failures_has_no_winner(tmp_path: Path) -> None:
    folder = build_steerable_atlas(tmp_path / "atlas", subject=None, n_features=12)

    def fail(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["arm"] not in ("no_steering", "random_direction", "permuted_direction"):
                row.update(text=None, failure="empty answer")

    edit_table(folder, "explanations", fail)
    found = wins(open_services(folder, encoder=BagEncoder()).store)
    assert (found.n, found.n_tied) == (0, 0)
    assert all(share.value is None for share in found.among.values())
