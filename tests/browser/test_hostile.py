"""Hostile strings in a real browser: nothing they say runs, and people read them as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from app.components.markup import visible
from tests.browser.explorer_page import ExplorerPage
from tests.hostile import HOSTILE, LANGUAGES, MARKUP, SCHEMES, TEMPLATES, WRITING

if TYPE_CHECKING:
    from app.launching import Explorer

Open = Callable[..., ExplorerPage]
pytestmark = [pytest.mark.browser, pytest.mark.slow]
RAN = "window.__ran ?? window.parent.__ran ?? null"
# What Gradio or a page around it could be made to do, if a text were ever taken for code.
TRIPWIRES = """() => {
  for (const name of ['alert', 'confirm', 'prompt']) window[name] = () => { window.__ran = name; };
}"""


def lines(text: str) -> str:
    """As an HTML parser reads the ends of lines."""
    return visible(text).replace("\r\n", "\n").replace("\r", "\n")


def require_harmless(page: ExplorerPage) -> None:
    assert page.page.evaluate(RAN) is None
    assert page.page.locator("iframe, object, embed, [onerror], [onload], [onmouseover], [onfocus]").count() == 0
    assert page.page.locator("base[href*='elsewhere'], meta[http-equiv='refresh']").count() == 0


def test_every_explanation_label_and_name_is_shown_literally(hostile_explorer: Explorer, open_page: Open) -> None:
    store = hostile_explorer.services.store
    page = open_page(hostile_explorer)
    page.page.evaluate(TRIPWIRES)
    page.wait_for_map()
    labels = page.page.locator(".ico-map-label").all_text_contents()
    assert labels
    for place, feature in enumerate(store.feature_ids.tolist()):
        page.page.evaluate("id => window.iconoscope.go('feature', String(id))", feature)
        shown = page.wait_for_feature(feature)
        text = shown.locator(".is-large").first.text_content() or ""
        assert text == lines(HOSTILE[place]), f"feature {feature}"
        require_harmless(page)
    for tab in ("Map", "Search", "Steer", "Compare", "About"):
        page.tab(tab)
        require_harmless(page)
    assert page.sideways_scroll_px() <= 0


def test_the_card_on_the_map_shows_them_literally(hostile_explorer: Explorer, open_page: Open) -> None:
    page = open_page(hostile_explorer)
    page.wait_for_map()
    ids = hostile_explorer.services.store.feature_ids.tolist()
    for feature in page.isolated_features(4):
        at = page.map(f"pixelOf({feature})")
        page.page.mouse.move(at["x"] + 1, at["y"])
        page.page.mouse.move(at["x"], at["y"])
        card = page.page.locator(".ico-map-card")
        card.wait_for(state="visible")
        wanted = " ".join(HOSTILE[ids.index(feature)][:40].split())
        page.page.wait_for_function(
            "wanted => document.querySelector('.ico-map-card')?.textContent.replace(/\\s+/g, ' ').includes(wanted)",
            arg=wanted,
        )
        require_harmless(page)


def test_framed_pages_show_them_literally(hostile_explorer: Explorer, open_page: Open) -> None:
    page = open_page(hostile_explorer)
    services = hostile_explorer.services
    for place, feature in enumerate(services.store.feature_ids.tolist()):
        page.page.goto(f"{hostile_explorer.url}iconoscope/embed/{services.key}/{feature}?n=1")
        text = page.page.locator(".is-large").text_content() or ""
        assert text == lines(HOSTILE[place])
        require_harmless(page)


def test_queries_are_words_and_nothing_else(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=search")
    page.page.evaluate(TRIPWIRES)
    for text in (*TEMPLATES, *MARKUP, *SCHEMES, *LANGUAGES, *WRITING):
        page.search(text[:900])
        page.page.wait_for_timeout(60)
        require_harmless(page)
    page.search("crab")
    page.page.locator(".ico-hit").first.wait_for()
    require_harmless(page)


@pytest.mark.parametrize("text", [MARKUP[3], TEMPLATES[5], SCHEMES[3], WRITING[0], LANGUAGES[0]])
def test_addresses_are_words_and_nothing_else(explorer: Explorer, open_page: Open, text: str) -> None:
    names = ["tab", "atlas", "feature", "q", "colour", "image", "prompt", "strength", "list"]
    fields: dict[str, str] = dict.fromkeys(names, text)
    page = open_page(explorer, "?" + urlencode(fields))
    page.page.locator(".toast-body").first.wait_for()
    require_harmless(page)
    assert page.page.locator(".toast-body img, .toast-body script, .toast-body a").count() == 0
    for name in ("Map", "Search", "Feature", "Steer"):
        page.tab(name)
        require_harmless(page)


def test_prompts_are_words_and_nothing_else(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=steer&feature=2")
    page.page.evaluate(TRIPWIRES)
    box = page.page.locator("#ico-prompt textarea")
    for text in (TEMPLATES[5], MARKUP[16], WRITING[9]):
        box.fill(text)
        assert box.input_value() == text.replace("\r\n", "\n")
        page.start_steering()
        page.wait_until_answered()
        require_harmless(page)
