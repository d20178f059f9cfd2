"""Everybody can use it: axe-core finds nothing serious, a keyboard and a phone are enough, pictures have words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from app.tabs import TABS
from tests.browser.explorer_page import ExplorerPage

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from app.launching import Explorer

Open = Callable[..., ExplorerPage]
pytestmark = [pytest.mark.browser, pytest.mark.slow]
SERIOUS = {"serious", "critical"}
CONTENT = {
    "map": "canvas",
    "search": ".ico-hit",
    "feature": "article[data-feature]",
    "steer": "#ico-steer-set input",
    "inspect": ".ico-found-list",
    "compare": ".ico-compare",
    "about": ".ico-about",
}
"""What stands on a tab once it is filled."""
MOST_STOPS = 150
"""Presses of Tab after which a control counts as out of reach."""
# A picture in a button that has a name of its own is said by that name.
WITHOUT_WORDS = """() => [...document.images]
  .filter(one => one.getClientRects().length && !one.alt.trim())
  .filter(one => !one.closest('[aria-hidden="true"], button[aria-label], a[aria-label]'))
  .map(one => one.outerHTML.slice(0, 200))"""
FOCUS = """() => {
  const one = document.activeElement, style = getComputedStyle(one);
  const ringed = [one, one.parentElement, one.closest('label'), one.nextElementSibling].filter(Boolean).some((each) => {
    const s = getComputedStyle(each);
    return (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0) || s.boxShadow !== 'none';
  });
  return { tag: one.tagName, id: one.id, text: (one.textContent || one.value || '').trim().slice(0, 40), ringed };
}"""


def full(explorer: Explorer, open_page: Open, tab: str, **more: Any) -> ExplorerPage:
    """A tab with all its contents."""
    image = explorer.services.store.exemplars(2, pooling="max")[0].image_id
    page = open_page(explorer, f"?tab={tab}&feature=2&q=crab&inspect={image}", **more)
    page.wait_for_map() if tab == "map" else page.page.locator(CONTENT[tab]).first.wait_for(state="visible")
    page.page.wait_for_timeout(600)
    return page


def problems(page: Page) -> list[str]:
    """What axe-core finds serious or critical, one line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{one['impact']} {one['id']}: {one['help']}: {node['target']} {node['html'][:160]} | {node['failureSummary']}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"][:4]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("tab", TABS)
def test_axe_finds_nothing_serious(explorer: Explorer, open_page: Open, tab: str, theme: str) -> None:
    pytest.importorskip("axe_playwright_python", reason="no axe-core: pip install axe-playwright-python")
    page = full(explorer, open_page, tab, color_scheme=theme)
    page.page.evaluate("theme => document.body.classList.toggle('dark', theme === 'dark')", theme)
    page.page.wait_for_timeout(300)
    assert problems(page.page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_a_steered_answer(explorer: Explorer, open_page: Open, theme: str) -> None:
    pytest.importorskip("axe_playwright_python", reason="no axe-core: pip install axe-playwright-python")
    page = full(explorer, open_page, "steer", color_scheme=theme)
    page.page.evaluate("theme => document.body.classList.toggle('dark', theme === 'dark')", theme)
    page.start_steering()
    page.wait_until_answered()
    assert problems(page.page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_the_framed_page(explorer: Explorer, open_page: Open, theme: str) -> None:
    pytest.importorskip("axe_playwright_python", reason="no axe-core: pip install axe-playwright-python")
    page = open_page(explorer)
    page.page.goto(f"{explorer.url}iconoscope/embed/{explorer.services.key}/2?theme={theme}")
    page.page.locator(".ico-arm").first.wait_for()
    assert problems(page.page) == []


@pytest.mark.parametrize("tab", TABS)
def test_every_picture_has_words(explorer: Explorer, open_page: Open, tab: str) -> None:
    page = full(explorer, open_page, tab)
    assert page.page.evaluate(WITHOUT_WORDS) == []


@pytest.mark.parametrize("tab", TABS)
def test_a_phone_is_wide_enough(explorer: Explorer, open_page: Open, tab: str) -> None:
    page = full(explorer, open_page, tab, width=390, is_mobile=True, has_touch=True)
    assert page.sideways_scroll_px() <= 0


# a keyboard is enough --------------------------------------------------------------------------------------------


def tab_to(page: Page, is_there: str) -> None:
    """Press Tab until ``is_there`` (JavaScript over ``e``, the focused element) holds; focus must be seen there."""
    stops = []
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        if page.evaluate(f"() => {{ const e = document.activeElement; return Boolean({is_there}); }}"):
            focus = page.evaluate(FOCUS)
            assert focus["ringed"], f"nobody sees that this has the focus: {focus}"
            return
        stops.append(page.evaluate(FOCUS)["text"])
    raise AssertionError(f"{is_there} is not reached by Tab; stops: {stops}")


def test_from_page_load_to_a_steered_answer_without_a_mouse(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer)
    page.wait_for_map()
    keyboard = page.page.keyboard
    tab_to(page.page, "e.getAttribute('role') === 'tab' && e.textContent.trim() === 'Search'")
    keyboard.press("Enter")
    page.wait_for_tab("Search")
    tab_to(page.page, "e.closest('#ico-query') && e.matches('input, textarea')")
    keyboard.type("red crab")
    keyboard.press("Enter")
    page.page.locator(".ico-hit").first.wait_for()
    tab_to(page.page, "e.matches('.ico-hit-name')")
    keyboard.press("Enter")
    page.wait_for_tab("Feature")
    article = page.page.locator("article[data-feature]")
    article.wait_for()
    tab_to(page.page, "e.dataset.go === 'steer' && e.closest('article')")
    keyboard.press("Enter")
    page.wait_for_tab("Steer")
    page.page.locator("#ico-steer-set input").first.wait_for()
    tab_to(page.page, "e.id === 'ico-start' || e.closest('#ico-start')")
    keyboard.press("Enter")
    assert "Done in" in page.wait_until_answered()
    assert page.answer("steered") != page.answer("random")


def test_the_map_is_walked_with_arrow_keys(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer)
    page.wait_for_map()
    tab_to(page.page, "e.matches('.ico-map-surface, .ico-map canvas')")
    for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
        page.page.keyboard.press(key)
    page.page.locator(".ico-map-card").wait_for(state="visible")
    page.page.keyboard.press("Enter")
    page.wait_for_tab("Feature")
    page.page.locator("article[data-feature]").wait_for()


def test_a_picture_is_inspected_without_a_mouse(explorer: Explorer, open_page: Open) -> None:
    image = explorer.services.store.exemplars(2, pooling="max")[0].image_id
    page = open_page(explorer, f"?tab=inspect&feature=2&inspect={image}")
    page.page.locator(".ico-found-list").wait_for()
    tab_to(page.page, "e.closest('#ico-inspect-patches') && e.matches('[tabindex=\"0\"], button, input')")
    for key in ("ArrowRight", "ArrowDown", "Space"):
        page.page.keyboard.press(key)
    page.page.wait_for_function("window.iconoscope.getField('spot') !== ''")


def test_motion_stops_for_those_who_ask(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=steer&feature=2", reduced_motion="reduce")
    page.page.locator("#ico-steer-set input").first.wait_for()
    page.start_steering()
    page.wait_until_answered()
    moving = page.page.evaluate(
        "() => document.getAnimations().filter(one => one.playState === 'running'"
        " && one.effect.target?.closest('[class*=\"ico-\"]')).length"
    )
    assert moving == 0
