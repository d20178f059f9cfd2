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
    assert "match" in page.page.locator(".ico-map-count").inner_text()
    page.tab("Search")
    first.click()
    page.wait_for_feature(feature)


def test_the_feature_page_draws_heatmaps_masks_and_values(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=2")
    shown = page.wait_for_feature(2)
    figure = shown.locator(".ico-gallery figure").first
    page.page.wait_for_function("document.querySelector('.ico-gallery figure').dataset.painted === 'heat'")
    alphas = (
        "figure => { const c = figure.querySelector('canvas'); "
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
        "return Array.from(d).filter((_, i) => i % 4 === 3); }"
    )
    exemplar = explorer.services.store.exemplars(2)[0]
    active = (exemplar.grid.ravel() > 0).tolist()
    assert [alpha > 0 for alpha in figure.evaluate(alphas)] == active
    shown.get_by_text("Mask", exact=True).click()
    assert [alpha == 0 for alpha in figure.evaluate(alphas)] == active
    row, col = map(int, divmod(active.index(True), exemplar.grid.shape[1]))
    box = figure.locator(".ico-picture").bounding_box()
    assert box
    rows, cols = exemplar.grid.shape
    page.page.mouse.move(box["x"] + (col + 0.5) * box["width"] / cols, box["y"] + (row + 0.5) * box["height"] / rows)
    told = figure.locator(".ico-readout").inner_text()
    assert told.startswith(f"row {row}, col {col}: ")
    assert float(told.rpartition(" ")[2]) == pytest.approx(exemplar.grid[row, col], rel=1e-2)


def test_steering_streams_three_columns(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=2")
    page.wait_for_feature(2).get_by_text("Steer this feature").click()
    page.page.locator("#ico-steer-feature input").wait_for(state="visible")
    page.start_steering()
    status = page.wait_until_answered()
    strength = explorer.services.store.feature(2).recommended_strength
    assert f"add feature 2 at strength {strength:.1f} L2 on all patches of the blank image" in status
    unsteered, steered, random = (page.answer(column) for column in ("unsteered", "steered", "random"))
    assert steered not in (unsteered, random)
    counts = page.page.locator(".ico-answer .ico-n").all_inner_texts()
    assert counts == ["0 patches edited", "16 patches edited", "16 patches edited"]
    page.page.wait_for_url(re.compile("tab=steer&feature=2&strength="))


def test_an_impossible_intervention_is_said_in_words(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=steer&feature=2&operation=ablate")
    page.page.locator(".ico-chosen").wait_for()
    page.start_steering()
    toast = page.page.locator(".toast-body")
    toast.wait_for()
    assert "feature 2" in toast.inner_text()


def test_a_whole_state_survives_copying_the_address(explorer: Explorer, open_page: Open) -> None:
    image = explorer.services.store.exemplars(2, pooling="max")[1].image_id
    query = f"?tab=steer&feature=2&q=crab&operation=set&strength=12.5&image={image}&prompt=what+is+near"
    page = open_page(explorer, query)
    page.page.locator(".ico-chosen").wait_for()
    assert page.page.locator("#ico-strength input[type=number]").input_value() == "12.5"
    assert page.page.locator("#ico-prompt textarea").input_value() == "what is near"
    assert page.page.locator(f'#ico-picker input[value="{image}"]').is_checked()
    assert page.page.get_by_label("Set", exact=True).is_checked()
    page.start_steering()
    assert f"set feature 2 at strength 12.5 L2 on all patches of image {image}" in page.wait_until_answered()
    fields = dict(pair.split("=") for pair in page.page.url.partition("?")[2].split("&"))
    assert fields["strength"] == "12.5"
    assert fields["image"] == image


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
