"""Compare in Chromium: each view by click and by address, the plot and its lists, the blind test and its score."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from app.tabs.compare import VIEWS
from app.tabs.compare.blind import draw
from tests.browser.explorer_page import ExplorerPage
from tests.builders_app import build_steerable_atlas
from tests.builders_atlas import BagEncoder

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from app.launching import Explorer

Open = Callable[..., ExplorerPage]
pytestmark = pytest.mark.browser
LONELIEST_POINT = """() => {
  const plot = document.querySelector('.ico-paired-plot');
  const box = plot.getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout;
  const points = plot.data.flatMap((trace) => [...trace.x].map((x, i) => ({
    x: box.left + xaxis._offset + xaxis.l2p(x), y: box.top + yaxis._offset + yaxis.l2p(trace.y[i]),
    feature: trace.customdata[i],
  })));
  const room = (one) => Math.min(...points.filter((p) => p !== one).map((p) => Math.hypot(p.x - one.x, p.y - one.y)));
  return points.reduce((best, one) => (room(one) > room(best) ? one : best));
}"""


@pytest.fixture(scope="module")
def two_atlases(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    from app.launching import start

    del browser
    folders = [
        build_steerable_atlas(tmp_path_factory.mktemp(f"of-{n}") / "atlas", None, n_features=n) for n in (20, 30)
    ]
    running = start(folders, "127.0.0.1", None, block=False, warm=False, encoder=BagEncoder())
    yield running
    running.close()


def test_the_views_are_chosen_by_click_and_kept_in_the_address(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=compare")
    views = page.page.get_by_role("navigation", name="What to compare")
    for view, label in [*VIEWS.items()][1:]:
        views.get_by_role("link", name=label).click()
        page.page.wait_for_url(re.compile(f"compare={view}"))
        views.locator(f'[data-value="{view}"][aria-current="page"]').wait_for()
        again = open_page(explorer, page.page.url.removeprefix(explorer.url))
        again.page.locator(f'.ico-views [data-value="{view}"][aria-current="page"]').wait_for()
    views.get_by_role("link", name="Tables").click()
    page.page.locator(".ico-compare").first.wait_for()
    assert "compare=" not in page.page.url


def test_the_plot_shows_every_pair_and_a_click_opens_the_feature(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=compare&compare=scatter&up=top_k_heatmaps")
    page.page.locator(".ico-paired[data-drawn*='top_k_masks/top_k_heatmaps/iou']").wait_for()
    shown = "document.querySelector('.ico-paired-plot').data.flatMap((trace) => [...trace.customdata])"
    known = {
        one
        for one in explorer.services.store.feature_ids.tolist()
        if not any(record.failure for record in explorer.services.store.explanations(one))
    }
    assert set(page.page.evaluate(shown)) == known
    page.page.locator('[data-paired="metric"]').select_option("clip_score")
    page.page.wait_for_url(re.compile("metric=clip_score"))
    page.page.locator(".ico-paired[data-drawn$='clip_score']").wait_for()
    place = page.page.evaluate(LONELIEST_POINT)
    page.page.mouse.move(place["x"] - 3, place["y"])
    page.page.mouse.move(place["x"], place["y"])
    page.page.locator(".ico-paired-card").get_by_text(f"Feature {place['feature']}", exact=True).wait_for()
    page.page.mouse.click(place["x"], place["y"])
    page.wait_for_tab("Feature")
    page.wait_for_feature(place["feature"])


def test_without_webgl_the_plot_and_the_lists_still_answer(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=compare&compare=scatter&webgl=off")
    page.page.locator(".ico-paired[data-drawn]").wait_for()
    assert page.page.evaluate("document.querySelector('.ico-paired-plot').data[0].type") == "scatter"
    link = page.page.locator(".ico-paired-row").first
    feature = int(link.get_attribute("data-value") or -1)
    link.focus()
    page.page.keyboard.press("Enter")
    page.wait_for_feature(feature)


def test_a_blind_round_hides_then_reveals_and_counts_once(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=compare&compare=blind&blind=3-4")
    asked = draw(explorer.services, 3, 4)
    assert asked is not None
    sides = page.page.locator(".ico-blind-side")
    sides.first.wait_for()
    dom = page.page.locator("#ico-compare-page").evaluate("node => node.innerHTML")
    for arm in explorer.services.store.arms:
        assert arm.key not in dom
        assert arm.label not in dom
    sides.nth(0).click()
    page.page.locator(".ico-blind-answer").first.wait_for()
    assert page.page.locator(".ico-blind-answer").nth(1).get_attribute("data-arm") == asked.sides[1].arm.key
    score = page.page.locator(".ico-blind-score")
    score.get_by_text("n = 1 round").wait_for()
    assert f"{asked.sides[0].arm.label} picked, when offered\t1 of 1: 100 % [21 %, 100 %]" in score.inner_text()
    page.page.get_by_role("button", name="Next round").or_(page.page.get_by_role("link", name="Next round")).click()
    page.page.wait_for_url(re.compile("blind=3-5"))
    page.page.locator(".ico-blind-side").first.click()
    score.get_by_text("n = 2 rounds").wait_for()
    page.visit("?tab=compare&compare=blind&blind=3-4")
    score.get_by_text("n = 2 rounds").wait_for()
    page.page.locator(".ico-blind-side").nth(1).click()
    page.page.locator(".ico-blind-answer").first.wait_for()
    assert "n = 2 rounds" in score.inner_text(), "a round counts once"
    score.get_by_role("button", name="Start over").click()
    page.visit("?tab=compare&compare=blind&blind=3-9")
    score.get_by_text("No round yet").wait_for()


def test_a_cell_of_the_matrix_filters_and_its_features_can_be_walked(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=compare&compare=bias")
    cell = page.page.locator(".ico-matrix td:not(.is-same) a").first
    n = int(cell.inner_text())
    cell.click()
    page.page.wait_for_url(re.compile("cell="))
    page.page.locator(".ico-matrix a[aria-current]").wait_for()
    assert page.page.locator(".ico-bias-card").count() == min(n, 24)
    page.page.get_by_text("Walk through them").click()
    page.wait_for_tab("Feature")
    page.page.locator(".ico-list-place").get_by_text(f"1 of {n} in the list").wait_for()


def test_two_atlases_stand_side_by_side_and_survive_a_restart(two_atlases: Explorer, open_page: Open) -> None:
    first, second = two_atlases.catalogue
    page = open_page(two_atlases, f"?tab=compare&compare=beside&beside={second.key}")
    table = page.page.locator(".ico-beside-table").first
    table.wait_for()
    assert first.version in table.inner_text()
    assert second.version in table.inner_text()
    other = open_page(two_atlases, f"?atlas={second.key}&tab=compare&compare=beside")
    facts = other.page.locator(".ico-beside-table thead").first
    facts.wait_for()
    assert facts.inner_text().split() == [second.key, first.key]


@pytest.mark.parametrize("width", [1440, 1024, 390])
@pytest.mark.parametrize("view", VIEWS)
def test_no_view_scrolls_the_page_sideways(explorer: Explorer, open_page: Open, view: str, width: int) -> None:
    page = open_page(explorer, f"?tab=compare&compare={view}", width=width)
    page.page.locator(f'.ico-views [data-value="{view}"][aria-current="page"]').wait_for()
    page.page.wait_for_timeout(500)
    assert page.sideways_scroll_px() <= 0


def test_hostile_words_stay_words(hostile_explorer: Explorer, open_page: Open) -> None:
    for view in ("scatter", "bias", "blind"):
        page = open_page(hostile_explorer, f"?tab=compare&compare={view}&blind=2-2")
        page.page.locator(f'.ico-views [data-value="{view}"][aria-current="page"]').wait_for()
        page.page.wait_for_timeout(800)
        assert page.page.evaluate("window.__ran") is None
        assert page.sideways_scroll_px() <= 0
