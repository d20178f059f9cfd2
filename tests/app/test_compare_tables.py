"""Compare, tables and views: every arm with intervals, who is among the best, and the switch between views."""

from __future__ import annotations

import re

import pytest

from app.bundle import STATIC_DIR
from app.catalogue import Catalogue
from app.map_columns import ARM_COLOURS, on_dark
from app.services import Services, open_services
from app.tabs import compare
from app.tabs.compare import tables, view_switch
from app.tabs.compare.wins import wins
from app.url_fields import Choice
from app.url_state import FIELDS
from backend.settings import load_settings
from backend.types import ARM_BY_KEY
from tests.builders_atlas import BagEncoder


def test_every_arm_has_intervals_failures_and_controls_stand_apart(services: Services) -> None:
    html = tables.page(services)
    for arm in services.store.arms:
        assert html.count(arm.label) >= 2
    assert html.count('<tr class="is-control"') == 3
    assert "empty answer" in html
    assert html.count('class="ico-interval"') == 8 * 5
    assert html.index("Controls: the same procedure") > html.index("Steering-informed Top-k (heatmaps)")
    assert "paired Wilcoxon" in html
    assert "Shares and tests take features as independent" in html


def test_an_atlas_scored_before_features_were_resampled_together_says_so(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "resample features with the same best explanation together" in tables.page(services)
    monkeypatch.delitem(services.store.summary, "n_best_texts")
    html = tables.page(services)
    assert "Intervals and tests take features as independent" in html
    assert "distinct ones" not in html


def test_the_dots_of_a_column_share_one_axis(services: Services) -> None:
    html = tables.page(services)
    table = html[html.index('class="ico-table ico-compare"') : html.index("What the scores mean")]
    entries = services.store.summary["arms"]
    metrics = [name for name in services.metric_cards if any(one.get(name) for one in entries.values())]
    for column, name in enumerate(metrics):
        drawn: dict[float, float] = {}
        for arm in services.store.arms:
            row = table[table.index(f'data-arm="{arm.key}"><th') :]
            cell = row[: row.index("</tr>")].split("<td")[3 + column]
            value: float | None = (entries[arm.key].get(name) or {}).get("value")
            dot = re.search(r'class="dot"', cell)
            assert bool(dot) == (value is not None)
            if dot and value is not None:
                drawn[value] = float(re.findall(r'cx="([\d.]+)%"', cell)[0])
        places = [drawn[value] for value in sorted(drawn)]
        assert places == sorted(places) and 0 <= places[0] <= places[-1] <= 100


def test_a_method_has_the_same_colour_everywhere() -> None:
    css = (STATIC_DIR / "tokens.css").read_text("utf-8")
    for key, colour in ARM_COLOURS.items():
        token = re.search(rf'\[data-arm="{key}"\] {{ --ico-arm: var\((--[\w-]+)\)', css)
        assert token
        light, dark = re.findall(rf"{token[1]}: (#\w+);", css)
        assert [light.upper(), dark.upper()] == [colour, *on_dark([colour])]


def test_the_reading_line_names_the_best_method_and_the_controls(services: Services) -> None:
    html = tables.page(services)
    assert "is right most often" in html
    assert "The controls, which know nothing of the feature" in html


def test_a_test_says_that_it_is_one_sided_and_what_its_effect_is(services: Services) -> None:
    html = tables.page(services)
    section = html[html.index("<h2>Tests</h2>") :]
    assert "Each is one-sided and asks whether the first is above the second" in section
    assert {one["test"] for one in services.store.summary["tests"]} <= set(tables.TEST_NAMES) == set(tables.EFFECTS)
    for told in tables.EFFECTS.values():
        assert told in section
    for one in services.store.summary["tests"]:
        first, second = (ARM_BY_KEY[one[side]].label for side in ("a", "b"))
        assert f"{first} above {second}" in section


def test_the_choice_of_strengths_is_told_where_it_was_recorded(services: Services) -> None:
    assert "of the select split" not in tables.page(services), "the planted atlas has no lineage"
    shipped = open_services(load_settings().atlas_dir, encoder=BagEncoder(), verify=False)
    assert "Steering had, for each feature, the best of its answers at 4 strengths" in tables.page(shipped)


def test_the_bars_show_who_is_among_the_best_and_who_alone(services: Services) -> None:
    html = tables.page(services)
    found = wins(services.store)
    bars = html[html.index('class="ico-wins"') :]
    shared = [float(one) for one in re.findall(r'class="ico-fill is-shared" style="width:([\d.]+)%', bars)]
    alone = [float(one) for one in re.findall(r'class="ico-fill" style="width:([\d.]+)%', bars)]
    assert sorted(shared) == pytest.approx(sorted(100 * (one.value or 0) for one in found.among.values()), abs=0.01)
    assert sum(alone) == pytest.approx(100 * (found.n - found.n_tied) / found.n, abs=0.05)
    assert bars.count(f"of {len(services.store)}; alone") == 5
    assert f"For {found.n_tied} of {found.n} features several methods are" in html


@pytest.mark.parametrize("view", compare.VIEWS)
def test_every_view_can_be_chosen_and_is_an_address_of_its_own(services: Services, view: str) -> None:
    field = FIELDS["compare"]
    assert isinstance(field, Choice)
    assert field.parse(view) == view
    switch = view_switch(view)
    assert switch.count("aria-current") == 1
    assert f'data-value="{view}"' in switch
    tab = compare.CompareTab(switch="switch", page="page", scatter="scatter")  # type: ignore[arg-type]
    shown = compare.show(Catalogue([services]), services, tab, view, "")
    assert shown["scatter"] == {"shown": view == "scatter"}
    assert "<h2" in shown["page"]
