"""The four journeys, and every state of them again: its address in a fresh browser, from a server started anew.

Browse a cluster to a feature; search "depth" to a feature; steer it with controls; compare the methods.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.explorer_page import ExplorerPage
from tests.browser.served import Served, served
from tests.builders_app import build_steerable_atlas

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Open = Callable[..., ExplorerPage]
State = dict[str, Any]
pytestmark = [pytest.mark.browser, pytest.mark.slow]
PATIENCE_S = 45.0
# Text that people see, values that they set; what a clock or a busy machine writes is left out.
STATE = """() => {
  const tab = document.querySelector('[role=tab][aria-selected=true]')?.textContent.trim();
  const seen = (one) => one.getClientRects().length > 0;
  const panel = [...document.querySelectorAll('[role=tabpanel]')].find(seen) ?? document.body;
  const map = window.iconoscopeMap;
  const isMap = tab === 'Map';
  const values = isMap ? [] : [...panel.querySelectorAll('input, textarea, select')]
    .filter((one) => seen(one) && !['file', 'hidden', 'search'].includes(one.type))
    .map((one) => ['radio', 'checkbox'].includes(one.type) ? `${one.value} ${one.checked}` : one.value);
  return {
    tab, values,
    text: isMap ? '' : panel.innerText,
    pictures: isMap ? [] : [...panel.querySelectorAll('img')].map((one) => one.getAttribute('src')),
    map: !isMap || !map ? null : {
      ready: map.ready, selected: map.selected ?? null, hits: [...map.hits], colour: map.colouredBy,
      list: [...map.list], visible: map.visibleCount, count: panel.querySelector('.ico-map-count')?.innerText,
    },
  };
}"""
LOADED = "() => window.iconoscopeMap"
"""The scripts are there, and whatever the page is for."""
BUSY = "() => document.querySelectorAll('.is-streaming').length"


def state_of(page: ExplorerPage) -> State:
    """What a visitor has before them."""
    state: State = page.page.evaluate(STATE)
    text = re.sub(r"\b[\d.,]+\s?(s|ms)\b", "some time", state["text"])
    state["text"] = " ".join(text.split())
    return state


def opened(open_page: Open, server: Served, query: str = "") -> ExplorerPage:
    """A page whose scripts are there and whose address has been read."""
    page = open_page(server, query)
    page.page.wait_for_function(LOADED)
    return page


def fields_of(page: ExplorerPage) -> set[str]:
    """The fields of the address; their order means nothing."""
    return set(page.page.url.partition("?")[2].split("&"))


def settled(page: ExplorerPage) -> State:
    """The state once it stays the same for a second."""
    before, since, end = state_of(page), time.monotonic(), time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        page.page.wait_for_timeout(250)
        now = state_of(page)
        if now != before or page.page.evaluate(BUSY):
            before, since = now, time.monotonic()
        elif time.monotonic() - since > 1.0:
            break
    return before


class Journey:
    """Notes the states that a visitor passes, each with its address."""

    def __init__(self, page: ExplorerPage) -> None:
        self.page = page
        self.passed: list[tuple[str, str, State]] = []

    def note(self, name: str) -> State:
        state = settled(self.page)
        query = self.page.page.url.removeprefix(self.page.explorer.url)
        self.passed.append((name, query, state))
        return state


@pytest.fixture(scope="module")
def atlas(browser: Browser, tiny_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    del browser  # asked for first, so that nothing is built where no browser is
    return build_steerable_atlas(tmp_path_factory.mktemp("journeys") / "atlas", tiny_subject)


@pytest.fixture(scope="module")
def first_server(atlas: Path) -> Iterator[Served]:
    """Where the journeys are made."""
    with served([atlas]) as running:
        yield running


@pytest.fixture(scope="module")
def restarted(atlas: Path, first_server: Served) -> Iterator[Served]:
    """A server started anew, in a process that never saw a journey: it is given nothing but addresses."""
    with served([atlas]) as running:
        assert running.url != first_server.url
        yield running


def leave(page: ExplorerPage) -> None:
    """Close the page once it has loaded everything: a script that is cut off is an error of the page."""
    page.page.wait_for_function(LOADED)
    page.page.context.close()


def require_same_after_restart(restarted: Served, open_page: Open, journey: Journey) -> None:
    """Every state again from its address alone; a fresh context knows nothing, a new server remembers nothing."""
    assert restarted.url != journey.page.explorer.url
    for name, query, wanted in journey.passed:
        fields = set(query.removeprefix("?").split("&"))
        page = open_page(restarted, query)
        end = time.monotonic() + PATIENCE_S
        while (found := (state_of(page), fields_of(page))) != (wanted, fields) and time.monotonic() < end:
            page.page.wait_for_timeout(250)
        differing = {part: (found[0][part], wanted[part]) for part in wanted if found[0][part] != wanted[part]}
        assert not differing, f"{name}: {query}: found and wanted {differing}"
        assert found[1] == fields, name
        leave(page)


def test_browse_a_cluster_to_a_feature(first_server: Served, restarted: Served, open_page: Open) -> None:
    page = opened(open_page, first_server)
    page.wait_for_map()
    journey = Journey(page)
    page.page.get_by_label("Colour by").select_option("verdict")
    page.page.wait_for_function("window.iconoscopeMap.colouredBy === 'verdict'")
    journey.note("coloured")
    head = page.page.locator(".ico-cluster-head").first
    head.click()
    page.page.locator(".ico-cluster-list").first.click()
    page.page.wait_for_function("window.iconoscopeMap.list.length > 0")
    listed = journey.note("a cluster as a list")["map"]["list"]
    assert len(listed) > 3
    link = page.page.locator(f'.ico-cluster a[data-value="{listed[0]}"]').first
    link.click()
    page.wait_for_feature(listed[0])
    assert f"Feature {listed[0]}" in journey.note("its feature")["text"]
    require_same_after_restart(restarted, open_page, journey)


def test_search_depth_to_a_feature(first_server: Served, restarted: Served, open_page: Open) -> None:
    page = opened(open_page, first_server, "?tab=search")
    journey = Journey(page)
    page.search("depth")
    hit = page.page.locator(".ico-hit").first
    hit.wait_for()
    assert "depth" in journey.note("hits of depth")["text"]
    feature = int(hit.get_attribute("data-value") or -1)
    page.page.get_by_role("button", name="Show these on the map").click()
    page.wait_for_tab("Map")
    page.wait_for_map()
    page.page.wait_for_function(f"window.iconoscopeMap.hits.includes({feature})")
    journey.note("hits on the map")
    page.tab("Search")
    hit.locator(".ico-hit-name").click()
    page.wait_for_feature(feature)
    journey.note("a hit opened")
    page.page.locator("article[data-feature]").get_by_text("Mask", exact=True).first.click()
    journey.note("its masks")
    require_same_after_restart(restarted, open_page, journey)


def test_steer_it_live_with_controls(first_server: Served, restarted: Served, open_page: Open) -> None:
    page = opened(open_page, first_server, "?tab=feature&feature=2")
    page.wait_for_feature(2).locator("[data-go='steer']").first.click()
    page.wait_for_tab("Steer")
    page.page.locator("#ico-steer-set input").first.wait_for()
    journey = Journey(page)
    journey.note("a feature to steer")
    page.page.get_by_label("Set", exact=True).first.check(force=True)
    page.page.locator("#ico-prompt textarea").fill("what is near?")
    page.page.locator("#ico-prompt textarea").press("Tab")
    page.page.get_by_label("Sampled", exact=True).check(force=True)
    journey.note("another operation, prompt and sampling")
    page.start_steering()
    page.wait_until_answered()
    answers = {name: page.answer(name) for name in ("unsteered", "steered", "random", "permuted")}
    assert all(page.page.locator(f'[data-column="{name}"]').is_visible() for name in answers)
    assert answers["steered"] != answers["random"]
    query = page.page.url.removeprefix(first_server.url)
    require_same_after_restart(restarted, open_page, journey)
    again = opened(open_page, restarted, query)
    again.page.locator("#ico-steer-set input").first.wait_for()
    again.page.wait_for_function("document.querySelector('#ico-prompt textarea').value === 'what is near?'")
    again.start_steering()
    again.wait_until_answered()
    assert {name: again.answer(name) for name in answers} == answers


def test_compare_the_methods(first_server: Served, restarted: Served, open_page: Open) -> None:
    page = opened(open_page, first_server)
    page.tab("Compare")
    page.page.locator(".ico-compare").first.wait_for()
    journey = Journey(page)
    assert "Steering" in journey.note("tables")["text"]
    for view in ("Two methods", "Contextual bias", "Blind test", "Two atlases"):
        page.page.locator(".ico-views a", has_text=view).click()
        page.page.locator(".ico-views a[aria-current=page]", has_text=view).wait_for()
        journey.note(view)
    require_same_after_restart(restarted, open_page, journey)


def test_inspect_a_picture(first_server: Served, restarted: Served, open_page: Open) -> None:
    page = opened(open_page, first_server, "?tab=inspect&feature=2&inspect=black")
    page.page.locator(".ico-found-list, .ico-empty").first.wait_for()
    journey = Journey(page)
    journey.note("a picture")
    page.page.get_by_label("Strongest first").check(force=True)
    # On a busy machine the list in the old order can stand still for longer than a state takes to count as settled.
    page.page.get_by_text("the strongest on average first").wait_for()
    journey.note("another order")
    require_same_after_restart(restarted, open_page, journey)
