"""Compare, tables and views: every arm with intervals, win shares that add up, and the switch between views."""

from __future__ import annotations

import re

import pytest

from app.bundle import STATIC_DIR
from app.catalogue import Catalogue
from app.map_columns import ARM_COLOURS, on_dark
from app.services import Services
from app.tabs import compare
from app.tabs.compare import tables, view_switch
from app.url_fields import Choice
from app.url_state import FIELDS


def test_every_arm_has_intervals_failures_and_controls_stand_apart(services: Services) -> None:
    html = tables.page(services)
    for arm in services.store.arms:
        assert html.count(arm.label) >= 2
    assert html.count('<tr class="is-control"') == 3
    assert "empty answer" in html
    assert html.count('class="ico-interval"') == 8 * 5
    assert html.index("Controls: the same procedure") > html.index("Steering-informed Top-k (heatmaps)")
    assert "paired Wilcoxon" in html


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
            value = (entries[arm.key].get(name) or {}).get("value")
            dot = re.search(r'class="dot"', cell)
            assert bool(dot) == (value is not None)
            if value is not None:
                drawn[float(value)] = float(re.findall(r'cx="([\d.]+)%"', cell)[0])
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


def test_win_shares_are_bars_of_the_methods_with_interval_and_n(services: Services) -> None:
    html = tables.page(services)
    bars = html[html.index('class="ico-wins"') :]
    widths = [float(one) for one in re.findall(r'class="ico-fill" style="width:([\d.]+)%', bars)]
    assert len(widths) == 5
    assert sum(widths) == pytest.approx(100, abs=0.1)
    assert bars.count(f"of {len(services.store)}</span>") == 5


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
