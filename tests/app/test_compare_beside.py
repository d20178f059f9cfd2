"""Compare, two atlases: facts of both, and a difference only where two intervals do not meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.catalogue import Catalogue, open_catalogue
from app.services import Services
from app.tabs.compare.beside import key_facts, page, parted
from app.tabs.compare.wins import wins
from tests.builders_app import build_steerable_atlas, edit_json
from tests.builders_atlas import BagEncoder


def entry(low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": 0.0, "low": low, "high": high}


@pytest.mark.parametrize(
    ("first", "second", "which"),
    [
        (entry(0.5, 0.6), entry(0.1, 0.2), 1),
        (entry(0.1, 0.2), entry(0.5, 0.6), -1),
        (entry(0.1, 0.5), entry(0.5, 0.6), 0),
        (entry(0.1, 0.9), entry(0.5, 0.6), 0),
        (entry(None, None), entry(0.5, 0.6), None),
        (None, entry(0.5, 0.6), None),
    ],
)
def test_differences_are_told_only_where_intervals_do_not_meet(first: Any, second: Any, which: int | None) -> None:
    assert parted(first, second) == which


def test_one_atlas_says_how_to_serve_two(services: Services) -> None:
    assert "iconoscope serve ATLAS OTHER_ATLAS" in page(Catalogue([services]), services)


@pytest.fixture(scope="module")
def catalogue(planted_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    other = build_steerable_atlas(tmp_path_factory.mktemp("other") / "atlas", subject=None, n_features=25)

    def better(summary: dict[str, Any]) -> None:
        summary["arms"]["steering"]["iou"] = {"value": 0.99, "low": 0.98, "high": 1.0, "n": 25}

    edit_json(other, "summary.json", better)
    return open_catalogue([planted_atlas, other], encoder=BagEncoder())


def test_facts_and_scores_of_both_stand_side_by_side(catalogue: Catalogue) -> None:
    first, second = catalogue
    html = page(catalogue, first, second.key)
    assert first.version in html
    assert second.version in html
    for name in key_facts(first):
        assert name in html
    assert f"higher in {second.key}" in html, "the planted difference"
    assert "intervals meet" in html
    steering = html[html.index('scope="rowgroup">Iou') :].split("</tr>")[1]
    assert "0.99" in steering
    assert f"higher in {second.key}" in steering


def test_an_unknown_second_atlas_becomes_the_next_one(catalogue: Catalogue) -> None:
    first, second = catalogue
    assert page(catalogue, first, "<b>") == page(catalogue, first, second.key)
    assert f'<th scope="col">{first.key}</th>' in page(catalogue, second, "")


def test_best_explanations_of_both_are_counted_with_their_ties(catalogue: Catalogue) -> None:
    first, second = catalogue
    html = page(catalogue, first, second.key)
    table = html[html.index("Share of features where a method is among the best") :]
    for services in (first, second):
        found = wins(services.store)
        assert found.n == len(services.store)
        for share in found.among.values():
            assert f"{round((share.value or 0) * share.n)} of {share.n}" in table
