"""A machine with no graphics card, no WebGL and no network: everything that can be read is there, the rest is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import FLAGS, NO_GL, executable
from tests.browser.explorer_page import ExplorerPage
from tests.browser.served import Served, served
from tests.builders_app import build_steerable_atlas

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

pytestmark = [pytest.mark.browser, pytest.mark.slow]
# No card for torch, no hub for models, and a proxy that refuses: whoever asks for another machine gets an error.
BARE = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    "no_proxy": "127.0.0.1,localhost",
}


@pytest.fixture(scope="module")
def bare_server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An atlas whose subject model is not here."""
    del browser  # asked for first, so that nothing is built where no browser is
    with served([build_steerable_atlas(tmp_path_factory.mktemp("bare") / "atlas", None)], BARE) as running:
        yield running


@pytest.fixture(scope="module")
def bare_browser(browser: Browser) -> Iterator[Browser]:
    """Chromium that can draw nothing in three dimensions."""
    started = browser.browser_type.launch(executable_path=executable(), args=[*FLAGS, *NO_GL])
    yield started
    started.close()


@pytest.fixture
def page(bare_browser: Browser, bare_server: Served) -> Iterator[ExplorerPage]:
    """A page that reaches this server and nothing else; fails if it tried."""
    context: BrowserContext = bare_browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)
    elsewhere = re.compile(rf"^https?://(?!{re.escape(bare_server.url.split('//')[1].rstrip('/'))})")
    context.route(elsewhere, lambda route: route.abort())
    opened = ExplorerPage(context.new_page(), bare_server)
    yield opened
    context.close()
    assert opened.script_errors == []
    assert opened.requests_elsewhere == []


def test_the_map_says_that_webgl_is_missing_and_leads_on(page: ExplorerPage) -> None:
    page.visit()
    page.wait_for_map()
    page.page.locator(".ico-map-message", has_text="no WebGL").wait_for()
    assert page.map("drawnBy") == "canvas"
    page.page.locator(".ico-cluster-head").first.click()
    link = page.page.locator(".ico-cluster a[data-value]").first
    link.wait_for()
    feature = int(link.get_attribute("data-value") or -1)
    link.click()
    shown = page.wait_for_feature(feature)
    assert shown.locator("figure img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_a_plain_map_can_be_clicked(page: ExplorerPage) -> None:
    page.visit()
    page.wait_for_map()
    chosen = page.isolated_features(1)
    assert chosen
    page.click_feature_on_map(chosen[0])
    page.wait_for_feature(chosen[0])


def test_search_and_comparison_work(page: ExplorerPage) -> None:
    page.visit("?tab=search")
    page.search("crab")
    page.page.locator(".ico-hit").first.wait_for()
    page.tab("Compare")
    page.page.locator(".ico-compare").first.wait_for()
    page.tab("About")
    page.page.locator(".ico-about").wait_for()


def test_steering_says_what_is_missing(page: ExplorerPage) -> None:
    page.visit("?tab=steer&feature=2")
    page.page.locator("#ico-steer-set input").first.wait_for()
    page.start_steering()
    told = page.page.locator("#ico-answers .ico-status", has_text="No answer")
    told.wait_for()
    assert re.search("no-such-subject|subject model", told.inner_text())
    assert page.page.locator("#ico-recorded").inner_text().strip(), "recorded answers are there without a model"


def test_inspecting_shows_what_was_stored_and_says_so(page: ExplorerPage) -> None:
    page.visit("?tab=inspect&feature=2&inspect=explain-02-00")
    page.page.locator(".ico-found-list").wait_for()
    assert "subject model did not look" in page.page.locator(".ico-found-head").inner_text()
