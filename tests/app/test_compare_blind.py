"""Compare, blind test: reproducible rounds, fair sides, honest pictures, and no word of the methods before the pick."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.services import Services, open_services
from app.tabs.compare.blind import METRIC, SIDES, draw, page, parse_round, picked
from tests.builders_app import build_steerable_atlas, edit_table
from tests.builders_atlas import BagEncoder

N_ROUNDS = 150


def rounds(services: Services) -> list:
    found = [draw(services, 5, number) for number in range(N_ROUNDS)]
    assert all(found)
    return found


def test_a_seed_and_a_round_always_give_the_same_question(services: Services) -> None:
    assert page(services, "7-3") == page(services, "7-3")
    first, again = draw(services, 7, 3), draw(services, 7, 3)
    assert first is not None
    assert again is not None
    assert (first.feature, first.sides) == (again.feature, again.sides)
    assert len({page(services, f"7-{number}") for number in range(20)}) > 10
    assert page(services, "7-3") != page(services, "8-3")


def test_nothing_tells_the_methods_before_the_pick(services: Services) -> None:
    for number in range(30):
        html = page(services, f"3-{number}")
        asked = draw(services, 3, number)
        assert asked is not None
        for arm in services.store.arms:
            assert arm.key not in html
            assert f">{arm.label}" not in html
        for word in ("data-arm", "data-better", "data-picked", "data-label", "auroc", "AUROC", "truth", "ico-badge"):
            assert word not in html
        assert f"feature={asked.feature}" not in html
        assert f"eature {asked.feature}" not in html
        assert "data-grid" not in html, "heat would point at the answer"


def test_the_pick_reveals_methods_truth_and_auroc_with_n(services: Services) -> None:
    asked = draw(services, 3, 0)
    assert asked is not None
    html = picked(services, "3-0-b")
    for one in asked.sides:
        assert one.arm.label in html
        score = next(row for row in services.store.scores(asked.feature)[one.arm] if row.metric == METRIC)
        if score.value is not None:
            assert f"{score.value:.3f}" in html
    assert html.count("truth: ") == 2
    assert 'data-picked="b"' in html
    assert f'data-arm-a="{asked.sides[0].arm.key}"' in html
    assert html.count("your pick") == 1
    assert html.index("your pick") > html.index(asked.sides[0].arm.label)
    assert f"feature={asked.feature}" in html


def test_the_better_side_is_that_of_the_higher_score(services: Services) -> None:
    for asked in rounds(services)[:40]:
        values = []
        for one in asked.sides:
            scores = services.store.scores(asked.feature)[one.arm]
            values.append(next(row.value for row in scores if row.metric == METRIC))
        html = picked(services, f"{asked.key}-a")
        if None in values:
            assert 'data-better="unknown"' in html
        else:
            assert f'data-better="{SIDES[int(values[1] > values[0])]}"' in html


def test_sides_are_fair_and_some_are_controls(services: Services) -> None:
    found = rounds(services)
    with_control = [one for one in found if any(side.arm.is_control for side in one.sides)]
    assert 0.1 < len(with_control) / N_ROUNDS < 0.4
    assert not any(all(side.arm.is_control for side in one.sides) for one in found)
    left = sum(one.sides[0].arm.is_control for one in with_control)
    assert 0.2 < left / len(with_control) < 0.8
    assert all(one.sides[0].text != one.sides[1].text for one in found)


def test_the_pictures_are_held_out_and_do_what_their_heading_says(services: Services) -> None:
    for asked in rounds(services)[:40]:
        assert asked.fires
        assert asked.silent
        assert all(one.split == "score" and one.grid.max() > 0 for one in asked.fires)
        assert all(one.split == "score" and one.grid.max() == 0 for one in asked.silent)
        shown_to_methods = {name for side in asked.sides for name in side.image_ids}
        assert not shown_to_methods & {one.image_id for one in (*asked.fires, *asked.silent)}


@pytest.mark.parametrize("text", ["", "x", "1", "-1-1", "1-1-1", "9" * 400 + "-1", "<b>", "٣-١"])
def test_an_address_that_cannot_be_understood_is_the_first_round(services: Services, text: str) -> None:
    assert parse_round(text) == (1, 1)
    assert page(services, text) == page(services, "1-1")
    assert "ico-blind" in picked(services, text)


def test_an_atlas_without_silent_pictures_says_why_there_is_no_test(tmp_path: Path) -> None:
    folder = build_steerable_atlas(tmp_path / "atlas", subject=None, n_features=15)

    def forget(rows: list[dict]) -> None:
        rows[:] = [row for row in rows if row["pooling"] != "silent"]

    edit_table(folder, "exemplars", forget)
    html = page(open_services(folder, encoder=BagEncoder()))
    assert "This atlas has no feature with two different explanations" in html
