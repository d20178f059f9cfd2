"""The Feature page in Chromium: overlays, outlines, the larger view, lists, citing, and the columns on small pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from app.components.regions import overlap
from app.feature_page import regions_of
from tests.browser.explorer_page import ExplorerPage

if TYPE_CHECKING:
    from app.launching import Explorer

Open = Callable[..., ExplorerPage]
pytestmark = pytest.mark.browser
ALPHAS = (
    "figure => { const c = figure.querySelector('canvas'); "
    "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
    "return Array.from(d).filter((_, i) => i % 4 === 3); }"
)
MEAN = '.ico-pooled[data-pooling="mean"] figure'


def test_the_page_draws_heatmaps_masks_and_values(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=2")
    shown = page.wait_for_feature(2)
    figure = shown.locator(MEAN).first
    page.page.wait_for_function("document.querySelector('.ico-gallery figure').dataset.painted === 'heat'")
    exemplar = explorer.services.store.exemplars(2)[0]
    active = (exemplar.grid.ravel() > 0).tolist()
    assert [alpha > 0 for alpha in figure.evaluate(ALPHAS)] == active
    shown.get_by_text("Mask", exact=True).click()
    assert [alpha == 0 for alpha in figure.evaluate(ALPHAS)] == active
    page.page.wait_for_url(re.compile("overlay=mask"))
    rows, cols = exemplar.grid.shape
    box = figure.locator(".ico-picture").bounding_box()
    assert box
    for place in (active.index(True), active.index(False)):
        row, col = divmod(place, cols)
        page.page.mouse.move(
            box["x"] + (col + 0.5) * box["width"] / cols, box["y"] + (row + 0.5) * box["height"] / rows
        )
        told = figure.locator(".ico-readout").inner_text()
        assert told.startswith(f"row {row + 1}, column {col + 1}: ")
        if exemplar.grid[row, col] > 0:
            assert float(told.rpartition(" ")[2]) == pytest.approx(exemplar.grid[row, col], rel=1e-2)
        else:
            assert told.endswith("silent")


def test_the_whole_state_of_the_pictures_survives_a_fresh_browser(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=2")
    shown = page.wait_for_feature(2)
    shown.get_by_text("Whole range", exact=True).click()
    shown.get_by_text("Image", exact=True).click()
    shown.locator("[data-outline]").select_option("top_k_masks")
    page.page.wait_for_url(re.compile("outline=top_k_masks"))
    address = page.page.url.removeprefix(explorer.url)
    again = open_page(explorer, address)
    shown = again.wait_for_feature(2)
    bands = shown.locator('.ico-pooled[data-pooling="decile"]')
    bands.wait_for()
    again.wait_for_frame()
    assert bands.locator("figcaption").first.inner_text().startswith("strongest")
    assert shown.locator("[data-outline]").input_value() == "top_k_masks"
    assert shown.locator('[data-overlay="raw"]').is_checked()
    assert set(again.page.url.removeprefix(explorer.url)[1:].split("&")) == set(address[1:].split("&"))


def test_outlines_follow_the_words_and_say_their_iou(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=2&outline=top_k_masks")
    shown = page.wait_for_feature(2)
    exemplar = explorer.services.store.exemplars(2)[0]
    region = regions_of(explorer.services, 2, [exemplar.image_id])[exemplar.image_id]["top_k_masks"]
    figure = shown.locator(MEAN).first
    figure.locator(".ico-regions .edge").wait_for(state="attached")
    path = figure.locator(".ico-regions .edge").get_attribute("d") or ""
    padded = np.pad(region, 1)
    edges = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    assert path.count("M") == edges
    found = overlap(region, exemplar.grid > 0)
    assert found.iou is not None
    told = f"IoU {found.iou:.2f}, n = {found.union} patches in either"
    assert figure.locator(".ico-region-note").inner_text() == told
    shown.locator("[data-outline]").select_option("")
    assert figure.locator(".ico-regions").count() == 0


def test_the_larger_view_is_opened_walked_and_closed_by_keyboard(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=2")
    shown = page.wait_for_feature(2)
    opener = shown.locator(f"{MEAN} [data-enlarge]").first
    opener.focus()
    page.page.keyboard.press("Enter")
    dialog = page.page.get_by_role("dialog")
    dialog.wait_for()
    exemplar = explorer.services.store.exemplars(2)[0]
    row, col = divmod(int(exemplar.grid.argmax()), exemplar.grid.shape[1])
    readout = dialog.locator(".ico-large-readout")
    assert readout.inner_text().startswith(f"row {row + 1}, column {col + 1}: ")
    page.page.keyboard.press("ArrowDown")
    assert readout.inner_text().startswith(f"row {row + 2}, column {col + 1}: ")
    page.page.keyboard.press("Home")
    assert readout.inner_text().startswith(f"row {row + 1}, column {col + 1}: ")
    first = dialog.locator("h2").inner_text()
    dialog.get_by_role("button", name="Next picture").press("Enter")
    assert dialog.locator("h2").inner_text() != first
    page.page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert opener.evaluate("node => node === document.activeElement")


def test_a_tap_in_the_larger_view_reads_a_patch(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=2", width=390, is_mobile=True, has_touch=True)
    shown = page.wait_for_feature(2)
    shown.locator(f"{MEAN} [data-enlarge]").first.tap()
    dialog = page.page.get_by_role("dialog")
    dialog.wait_for()
    box = dialog.locator(".ico-picture").bounding_box()
    assert box
    page.page.touchscreen.tap(box["x"] + box["width"] / 32, box["y"] + box["height"] / 32)
    page.page.wait_for_function(
        "document.querySelector('.ico-large-readout').textContent.startsWith('row 1, column 1:')"
    )


def test_previous_and_next_walk_the_list_of_the_address(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=12&list=12.3.7")
    page.wait_for_feature(12)
    place = page.page.locator(".ico-list-place")
    place.get_by_text("1 of 3 in the list").wait_for()
    for following, told in ((3, "2 of 3"), (7, "3 of 3"), (12, "1 of 3")):
        page.page.locator("#ico-next").click()
        page.wait_for_feature(following)
        place.get_by_text(f"{told} in the list").wait_for()
    page.page.locator("#ico-previous").click()
    page.wait_for_feature(7)
    place.get_by_role("button", name="Leave the list").click()
    page.page.locator("#ico-next").click()
    page.wait_for_feature(8)
    assert "list=" not in page.page.url


def test_the_number_is_empty_until_a_feature_is_open(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer)
    page.tab("Feature")
    page.page.get_by_text("features is open").wait_for()
    page.page.wait_for_function("document.querySelector('#ico-feature input').value === ''")
    number = page.page.get_by_label("Feature number")
    assert number.get_attribute("placeholder") == "number"
    number.fill("2")
    number.press("Enter")
    page.wait_for_feature(2)
    page.page.wait_for_url(re.compile(r"feature=2\b"))
    assert number.input_value() == "2"


def test_a_citation_holds_the_whole_address(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=2")
    shown = page.wait_for_feature(2)
    shown.get_by_text("Cite this feature").click()
    address = f"{explorer.url}?atlas={explorer.services.key}&tab=feature&feature=2"
    for form in shown.locator(".ico-cite pre").all():
        text = form.inner_text()
        assert address in text
        assert explorer.services.store.artifact.manifest.fingerprint in text


@pytest.mark.parametrize(("width", "side_by_side"), [(1440, 5), (1024, 5), (390, 1)])
def test_the_columns_are_readable_and_the_page_stays_put(
    explorer: Explorer, open_page: Open, width: int, side_by_side: int
) -> None:
    page = open_page(explorer, "?tab=feature&feature=2", width=width)
    shown = page.wait_for_feature(2)
    cards = shown.locator(".ico-arms").first.locator(".ico-arm")
    boxes = [box for card in cards.all() if (box := card.bounding_box())]
    assert len(boxes) == 5
    assert len({round(box["y"]) for box in boxes}) == 1, "one row"
    whole = [box for box in boxes if box["x"] >= 0 and box["x"] + box["width"] <= width]
    assert len(whole) == side_by_side
    assert min(box["width"] for box in boxes) >= 170
    assert page.sideways_scroll_px() <= 0
