"""The explorer in Chromium: browse, search, read, steer; hostile words stay words; it works small and without WebGL."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.explorer_page import ExplorerPage

if TYPE_CHECKING:
    from app.launching import Explorer

Open = Callable[..., ExplorerPage]
pytestmark = pytest.mark.browser
TABS = ("map", "search", "feature", "steer", "compare", "about")


def test_search_finds_opens_and_lights_the_map(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=search")
    page.search("red crab")
    first = page.page.locator(".ico-hit").first
    first.wait_for()
    assert "crab" in first.inner_text()
    assert "says it" in first.inner_text()
    feature = int(first.get_attribute("data-value") or -1)
    page.page.wait_for_url(re.compile("q=red\\+crab"))
    page.page.get_by_role("button", name="Show these on the map").click()
    page.wait_for_tab("Map")
    page.wait_for_map()
    page.page.wait_for_function(f"window.iconoscopeMap.hits.includes({feature})")
    assert "features for “red crab”" in page.page.locator(".ico-map-count").inner_text()
    page.tab("Search")
    first.click()
    page.wait_for_feature(feature)


def test_compare_and_about_show_methods_controls_and_provenance(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=compare")
    table = page.page.locator(".ico-compare")
    table.wait_for()
    for arm in explorer.services.store.arms:
        assert arm.label in table.inner_text()
    page.tab("About")
    page.page.get_by_text(explorer.services.store.artifact.manifest.fingerprint).wait_for()


@pytest.mark.parametrize("tab", TABS)
def test_no_tab_scrolls_sideways_on_a_phone(explorer: Explorer, open_page: Open, tab: str) -> None:
    page = open_page(explorer, f"?tab={tab}&feature=2&q=crab", width=390, is_mobile=True, has_touch=True)
    page.page.wait_for_timeout(1500)
    assert page.sideways_scroll_px() <= 0
    for name in TABS:
        assert page.page.get_by_role("tab", name=name.capitalize(), exact=True).count() == 1


def test_a_hostile_address_is_told_as_text(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=%3Cimg%20src%3Dx%20onerror%3Dwindow.__ran%3D1%3E")
    toast = page.page.locator(".toast-body").first
    toast.wait_for()
    assert "<img src=x" in toast.inner_text()
    assert toast.locator("img").count() == 0
    assert page.page.evaluate("window.__ran") is None
