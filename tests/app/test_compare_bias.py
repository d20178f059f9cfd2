"""Compare, contextual bias: a planted crab that steering calls sand is found, counted and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.services import Services, open_services
from app.tabs.compare.bias import chosen_cell, groups, page
from tests.builders_app import build_steerable_atlas, edit_table
from tests.builders_atlas import BagEncoder

BIASED = (2, 16)
"""Features of the planted crab; steering says "desert sand" for them."""


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Services:
    folder: Path = build_steerable_atlas(tmp_path_factory.mktemp("bias") / "atlas", subject=None, n_features=30)

    def say_sand(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["feature"] in BIASED and row["arm"] == "steering":
                row["text"] = row["raw_text"] = "desert sand"
                row["truth_outcome"] = "wrong"

    def draw_sand(rows: list[dict[str, Any]]) -> None:
        crab = [dict(row) for row in rows if row["text"] == "a red crab" and row["image_id"] == "explain-02-00"]
        mask = np.zeros((16, 16), bool)
        mask[:, :8] = True
        rows += [{**row, "text": "desert sand", "mask": np.packbits(mask).tobytes()} for row in crab]

    edit_table(folder, "explanations", say_sand)
    edit_table(folder, "text_masks", draw_sand)
    return open_services(folder, encoder=BagEncoder())


def test_features_are_counted_by_what_their_texts_name(biased: Services) -> None:
    store = biased.store
    found = groups(store)
    assert set(BIASED) <= set(found.differing)
    assert set(found.differing) == {
        feature for (first, second), features in found.cells.items() if first != second for feature in features
    }
    assert found.cells["animal", "background"] == BIASED
    assert found.n_known + found.n_unknown == len(store)
    for (first, second), features in found.cells.items():
        for feature in features:
            said = {one.arm.key: one.text or "" for one in store.explanations(feature)}
            assert first in (store.text_groups(said["top_k_masks"]) or ())
            assert second in (store.text_groups(said["steering"]) or ())
    counted = {feature for features in found.cells.values() for feature in features}
    assert len(counted) == found.n_known


def test_the_view_shows_both_texts_both_regions_and_their_counts(biased: Services) -> None:
    html = page(biased, "animal~background")
    assert "Top-k names animal, steering names background" in html
    assert html.count('class="ico-bias-card"') == len(BIASED)
    assert "desert sand" in html
    first = html[html.index('data-feature="2"') :]
    for role in ("correlational", "causal", "both"):
        assert f'data-region="{role}"' in first
    record = biased.store.exemplars(2)[0]
    named = biased.store.text_mask(dict_of(biased, 2)["top_k_masks"], record.image_id)
    assert named is not None
    fires = record.grid > 0
    assert f"<td>{int(named.sum())}</td><td>{int((named & fires).sum())}</td>" in first
    assert f"<td>128</td><td>{int(fires[:, :8].sum())}</td>" in first
    assert f"<td>256</td><td>{int(fires.sum())}</td>" in first


def dict_of(services: Services, feature: int) -> dict[str, str]:
    return {one.arm.key: one.text or "" for one in services.store.explanations(feature)}


def test_counts_have_their_interval_and_say_what_is_not_known(biased: Services) -> None:
    html = page(biased)
    found = groups(biased.store)
    assert f"{len(found.differing)} of {found.n_known} features name different sorts of thing" in html
    assert f"For {found.n_unknown} more, what one of the two texts names is not known" in html
    assert "All features where they differ" in html


def test_a_difference_is_not_told_without_its_control_and_who_is_right(biased: Services) -> None:
    store = biased.store
    html = page(biased)
    reading = html[html.index("ico-reading") :].split("</p>")[0]
    verdicts = {
        feature: {one.arm.key: one.truth_outcome.value for one in store.explanations(feature)}
        for feature in groups(store).differing
    }
    known = [said for said in verdicts.values() if said["steering"] != "undecidable"]
    right = {arm: sum(said[arm] == "right" for said in known) for arm in ("top_k_masks", "steering")}
    assert len(known) >= len(BIASED) and right["top_k_masks"] > right["steering"]
    assert f"Top-k (masks) is right for {right['top_k_masks']} of {len(known)} (" in reading
    assert f"and Steering for {right['steering']} of {len(known)} (" in reading
    control = groups(store, "permuted_direction")
    assert f"knows nothing of the feature, {len(control.differing)} of {control.n_known} (" in reading
    assert control.differing != groups(store).differing


def test_an_atlas_without_truth_or_control_says_neither(tmp_path: Path) -> None:
    folder = build_steerable_atlas(tmp_path / "atlas", subject=None, n_features=15)

    def forget(rows: list[dict[str, Any]]) -> None:
        rows[:] = [row for row in rows if row["arm"] != "permuted_direction"]
        for row in rows:
            row["truth_outcome"] = "undecidable"

    edit_table(folder, "explanations", forget)
    html = page(open_services(folder, encoder=BagEncoder()))
    assert "name different sorts of thing" in html
    assert "Which of the two errs" not in html
    assert "in place of Steering" not in html


def test_the_list_can_be_walked_on_the_feature_page(biased: Services) -> None:
    html = page(biased, "animal~background")
    assert 'data-set="list=' in html
    ids = html.split('data-set="list=')[1].split('"')[0].split(".")
    assert {int(one) for one in ids} == set(BIASED)


@pytest.mark.parametrize("text", ["", "animal", "animal~no-such", "<script>~x", "~", "a~b~c"])
def test_a_cell_that_does_not_exist_shows_all(biased: Services, text: str) -> None:
    assert chosen_cell(groups(biased.store), text) is None
    assert "All features where they differ" in page(biased, text)


def test_a_region_that_is_not_stored_is_said(biased: Services) -> None:
    cards = page(biased).split('class="ico-bias-card"')[1:]
    told = [card for card in cards if "were not stored" in card]
    shown = [card for card in cards if 'data-region="causal"' in card]
    assert len(told) + len(shown) == len(cards)
    assert told, "the words of one planted feature have no stored region"
    assert len(shown) == len(BIASED)


def test_an_atlas_without_groups_says_so(tmp_path: Path) -> None:
    folder = build_steerable_atlas(tmp_path / "atlas", subject=None, n_features=15)

    def forget(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["groups"] = None

    edit_table(folder, "texts", forget)
    html = page(open_services(folder, encoder=BagEncoder()))
    assert "does not say what sorts of thing its texts name" in html
    assert "<table" not in html
