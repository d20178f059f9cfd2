"""The map in Chromium: lists of features from a lasso, a cluster or an address; everything by keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.explorer_page import ExplorerPage
from tests.browser.test_map import SURFACE, ready, width_of

if TYPE_CHECKING:
    from app.launching import Explorer

Open = Callable[..., ExplorerPage]
pytestmark = pytest.mark.browser


def lasso_around(page: ExplorerPage, left: float, top: float, right: float, bottom: float) -> None:
    page.page.get_by_role("button", name=re.compile("^Lasso")).click()
    mouse = page.page.mouse
    mouse.move(left, top)
    mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 1)):
        mouse.move(x, y, steps=4)
    mouse.up()


# searching -------------------------------------------------------------------------------------------------------


def test_the_map_is_searched_where_it_stands(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    box = page.page.get_by_role("searchbox", name="Search for a concept on the map")
    box.fill("red crab")
    box.press("Enter")
    panel = page.page.locator(".ico-map-hits")
    panel.locator("a").first.wait_for()
    hits = page.map("hits")
    assert panel.locator("a").count() == len(hits) > 1
    assert panel.locator("a").first.get_attribute("data-value") == str(hits[0]), "best first"
    assert (explorer.services.store.feature(hits[0]).best_text or "") in panel.locator("a").first.inner_text()
    page.page.wait_for_url(re.compile("q=red\\+crab"))
    again = ready(open_page, explorer, page.page.url.removeprefix(explorer.url))
    again.page.locator(".ico-map-hits a").first.wait_for()
    assert again.page.get_by_role("searchbox").input_value() == "red crab"
    again.page.get_by_role("button", name="Clear search").click()
    panel = again.page.locator(".ico-map-hits")
    panel.wait_for(state="hidden")
    assert again.map("hits") == []


def test_a_search_without_hits_is_told_on_the_map(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    box = page.page.get_by_role("searchbox")
    box.fill("qwertzuiop <b>")
    box.press("Enter")
    page.page.get_by_text("No feature fits “qwertzuiop <b>”.").wait_for()


# lists -----------------------------------------------------------------------------------------------------------


def test_a_lasso_makes_a_list_that_lives_in_the_address(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    places = page.places_on_map()
    box = page.page.locator(SURFACE).bounding_box()
    assert box
    left, top = box["x"] + 4, box["y"] + 4
    right, bottom = box["x"] + box["width"] * 0.55, box["y"] + box["height"] - 8
    expected = sorted(one for one, at in places.items() if left < at["x"] < right and top < at["y"] < bottom)
    assert 2 < len(expected) < len(places)
    lasso_around(page, left, top, right, bottom)
    panel = page.page.locator(".ico-map-list")
    panel.locator("a").first.wait_for()
    assert page.map("list") == expected
    assert f"n = {len(expected)}" in panel.inner_text().replace("\N{NO-BREAK SPACE}", " ")
    first = panel.locator("a").first
    assert (explorer.services.store.feature(expected[0]).best_text or "") in first.inner_text()
    page.page.wait_for_url(re.compile("list="))
    again = ready(open_page, explorer, page.page.url.removeprefix(explorer.url))
    assert again.map("list") == expected
    again.page.locator(".ico-map-list a").first.click()
    again.wait_for_feature(expected[0])


def test_a_list_is_downloaded_and_cleared(explorer: Explorer, open_page: Open) -> None:
    ids = explorer.services.store.feature_ids.tolist()[3:6]
    page = ready(open_page, explorer, f"?list={'.'.join(map(str, ids))}.99999999")
    panel = page.page.locator(".ico-map-list")
    panel.locator("a").first.wait_for()
    assert page.map("list") == ids, "a feature that does not exist is left out"
    with page.page.expect_download() as started:
        panel.get_by_role("button", name="Download the list as JSON").click()
    document = json.loads(started.value.path().read_text(encoding="utf-8"))
    assert document["n"] == 3
    assert [one["feature"] for one in document["features"]] == ids
    with page.page.expect_download() as started:
        panel.get_by_role("button", name="Download the list as CSV").click()
    lines = started.value.path().read_text(encoding="utf-8").splitlines()
    assert lines[0] == "feature,cluster,explanation"
    assert len(lines) == 4
    panel.get_by_role("button", name="Clear the list").click()
    panel.wait_for(state="hidden")
    page.page.wait_for_function("!location.search.includes('list=')")


def test_csv_quotes_what_could_break_or_run(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    rows = [
        {"feature": 1, "cluster": 'a "b", c', "text": "=HYPERLINK(1)"},
        {"feature": -2, "cluster": None, "text": "x"},
    ]
    text = page.page.evaluate("rows => iconoscopeMapList.csv(rows)", rows)
    assert text == 'feature,cluster,explanation\r\n1,"a ""b"", c",\'=HYPERLINK(1)\r\n-2,,x\r\n'


# keyboard --------------------------------------------------------------------------------------------------------


def test_arrow_keys_move_zoom_and_open(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    surface = page.page.locator(SURFACE)
    assert surface.get_attribute("role") == "application"
    surface.focus()
    keyboard = page.page.keyboard
    keyboard.press("ArrowRight")
    first = page.map("cursor")
    assert first is not None
    keyboard.press("ArrowRight")
    second = page.map("cursor")
    assert second != first
    assert page.map(f"pixelOf({second})")["x"] > page.map(f"pixelOf({first})")["x"]
    page.page.wait_for_function(
        "id => document.querySelector('.ico-map-live').textContent.startsWith(`Feature ${id}:`)", arg=second
    )
    width = width_of(page)
    keyboard.press("+")
    assert width_of(page) < width
    keyboard.press("0")
    assert width_of(page) == pytest.approx(width)
    keyboard.press("Escape")
    assert page.map("cursor") is None
    keyboard.press("ArrowLeft")
    chosen = page.map("cursor")
    keyboard.press("Enter")
    page.wait_for_feature(chosen)


def test_the_tree_of_clusters_is_walked_with_the_keyboard(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    tree = page.page.get_by_role("tree", name="Clusters of features")
    assert tree.locator('[tabindex="0"]').count() == 1
    head = tree.locator(".ico-cluster-head").first
    head.focus()
    page.page.keyboard.press("ArrowRight")
    assert head.get_attribute("aria-expanded") == "true"
    tree.locator("a").first.wait_for()
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Enter")
    cluster = int(tree.locator(".ico-cluster").first.get_attribute("data-cluster") or -1)
    members = [
        one
        for one in explorer.services.store.feature_ids.tolist()
        if explorer.services.store.feature(one).cluster == cluster
    ]
    page.page.wait_for_function("n => window.iconoscopeMap.list.length === n", arg=len(members))
    page.page.keyboard.press("ArrowDown")
    feature = int(page.page.evaluate("document.activeElement.dataset.value"))
    assert feature in members
    page.page.keyboard.press("Enter")
    page.wait_for_feature(feature)
