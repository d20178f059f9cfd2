"""Search in Chromium: by words as they are typed, by likeness, by picture; every way survives copying the address."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlparse

import pytest

from tests.browser.explorer_page import ExplorerPage

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from app.launching import Explorer

Open = Callable[..., ExplorerPage]
pytestmark = pytest.mark.browser


def fields(page: ExplorerPage) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(urlparse(page.page.url).query).items()}


def hits(page: ExplorerPage) -> list[int]:
    return page.page.locator(".ico-hit").evaluate_all("cards => cards.map(card => Number(card.dataset.value))")


def results(page: ExplorerPage) -> str:
    return page.page.locator("#ico-results").inner_text()


def wait_for_title(page: ExplorerPage, words: str) -> None:
    page.page.locator(".ico-search-title", has_text=words).wait_for()


def query_box(page: ExplorerPage) -> Locator:
    return page.page.locator("#ico-query input, #ico-query textarea").first


def test_words_are_searched_while_they_are_typed_and_marked(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=search")
    page.page.locator(".ico-examples").wait_for()
    query_box(page).press_sequentially("red crab", delay=40)
    wait_for_title(page, "red crab")
    assert query_box(page).input_value() == "red crab", "typing is never overwritten"
    first = page.page.locator(".ico-hit").first
    assert {word.lower() for word in first.locator("mark").all_inner_texts()} >= {"red", "crab"}
    assert "says it" in first.inner_text() and "written by" in first.inner_text()
    assert f"of {len(explorer.services.store)} features" in results(page)
    page.page.wait_for_url(re.compile(r"q=red\+crab"))


def test_enter_asks_at_once_and_a_card_opens_its_feature(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=search")
    page.type_query("zebra")
    query_box(page).press("Enter")
    wait_for_title(page, "zebra")
    feature = hits(page)[0]
    page.page.locator(".ico-hit-name").first.focus()
    page.page.keyboard.press("Enter")
    page.wait_for_feature(feature)


def test_one_method_alone_is_searched_and_the_address_says_so(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=search&q=zebra&arm=steering")
    wait_for_title(page, "zebra")
    assert "the words of Steering only" in results(page)
    assert all("written by Steering" in text for text in page.page.locator(".ico-hit").all_inner_texts())
    page.page.locator("#ico-search-arm input").click()
    page.page.get_by_role("option", name="All methods").click()
    page.page.get_by_text("what every method said").first.wait_for()
    page.page.wait_for_function("!location.search.includes('arm=')")


@pytest.mark.parametrize("kind", ["meaning", "direction", "coactivation"])
def test_more_like_this_is_found_lit_and_kept_in_the_address(explorer: Explorer, open_page: Open, kind: str) -> None:
    page = open_page(explorer, "?tab=search&q=crab")
    wait_for_title(page, "crab")
    feature = hits(page)[0]
    page.page.locator(f'.ico-hit [data-value="{kind}:{feature}"]').click()
    wait_for_title(page, f"Like feature {feature}")
    found = hits(page)
    assert found == [hit.feature for hit in explorer.services.search.like(feature, kind, 24)]
    page.page.wait_for_function(f"iconoscope.getField('like') === '{kind}:{feature}' && !iconoscope.getField('q')")
    again = open_page(explorer, "?" + urlparse(page.page.url).query)
    wait_for_title(again, f"Like feature {feature}")
    assert hits(again) == found
    again.page.get_by_role("button", name="Show these on the map").click()
    again.wait_for_tab("Map")
    again.wait_for_map()
    again.page.wait_for_function(f"{found[0]} in Object.fromEntries(iconoscopeMap.hits.map(one => [one, 1]))")


def test_a_picture_finds_what_fires_on_it_and_survives_the_address(explorer: Explorer, open_page: Open) -> None:
    image = explorer.services.store.exemplars(2)[0].image_id
    page = open_page(explorer, f"?tab=search&qimage={image}")
    wait_for_title(page, "What fires on")
    assert "fires on" in page.page.locator(".ico-hit").first.inner_text()
    assert "patches" in results(page)
    assert fields(page)["qimage"] == image
    page.search("crab")
    wait_for_title(page, "crab")
    page.page.wait_for_function("!location.search.includes('qimage')")


def test_the_chooser_asks_the_model(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=search")
    page.page.get_by_text("Search by a picture").click()
    page.page.locator("#ico-search-image").get_by_text("Black", exact=True).click()
    page.page.locator(".ico-search-title, .ico-empty", has_text="black").first.wait_for()
    page.page.wait_for_function("iconoscope.getField('qimage') === 'black'")
    page.search("crab")
    wait_for_title(page, "crab")
    page.page.wait_for_function("!document.querySelector('#ico-search-image input:checked')")


def test_a_page_that_opens_searches_for_nothing_by_itself(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=search")
    page.page.locator(".ico-examples").wait_for()
    page.page.wait_for_timeout(1500)
    assert "qimage" not in fields(page) and not hits(page)


def test_a_query_without_words_and_one_without_hits_are_told(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=search")
    page.type_query("?!")
    query_box(page).press("Enter")
    page.page.locator(".ico-notice", has_text="holds no words").wait_for()
    page.search("qwertzuiop <img src=x onerror=alert(1)>")
    page.page.get_by_text("is near to").wait_for()
    assert "<img src=x onerror=alert(1)>" in results(page)


@pytest.mark.parametrize("query", ["", "&q=crab", "&like=direction:2"])
def test_nothing_scrolls_sideways_on_a_phone(explorer: Explorer, open_page: Open, query: str) -> None:
    page = open_page(explorer, f"?tab=search{query}", width=390, is_mobile=True, has_touch=True)
    page.page.locator(".ico-searched").wait_for()
    page.page.wait_for_timeout(500)
    assert page.sideways_scroll_px() <= 0
