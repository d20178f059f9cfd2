"""A real browser among many visitors: what clicks and searches take while the others are there."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.map_measures import HEIGHT, QUERY_WORDS, READY, WIDTH, typed_search
from benchmarks.stopwatch import Stopwatch, shown
from tests.browser.chromium import FLAGS, SOFTWARE_GL, executable

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAUSE_S = 2.0


def visit(
    number: int,
    url: str,
    features: list[int],
    end: float,
    add: Callable[[str, float], None],
    fail: Callable[[str], None],
) -> None:
    """Open features and search until ``end`` (monotonic seconds); times go to ``add``, what went wrong to ``fail``."""
    from playwright.sync_api import Error, sync_playwright

    draw = random.Random(1000 + number)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=[*FLAGS, *SOFTWARE_GL])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: fail(f"browser: {error}"))
        try:
            page.goto(url)
            page.wait_for_function(READY)
            watch = Stopwatch(page)
            while time.monotonic() < end:
                for kind, seconds in _look(page, watch, draw, features).items():
                    if seconds is None:
                        fail(f"browser: no {kind} within 30 s")
                    else:
                        add(kind, seconds)
                time.sleep(draw.expovariate(1 / PAUSE_S))
        except Error as error:
            fail(f"browser: {str(error)[:200]}")
        browser.close()


def _look(page: Page, watch: Stopwatch, draw: random.Random, features: list[int]) -> dict[str, float | None]:
    """One search, and one feature opened by its number as by a link."""
    page.get_by_role("tab", name="Search", exact=True).click()
    query = f"{draw.choice(QUERY_WORDS)} {draw.choice(QUERY_WORDS)}"
    hits = typed_search(page, watch, query)
    feature = draw.choice(features)
    watch.arm(text=shown(f'article[data-feature="{feature}"]'))
    page.evaluate(
        "feature => { window.dispatchEvent(new Event('change')); window.iconoscope.go('feature', String(feature)); }",
        feature,
    )
    return {"browser search": hits, "browser text": watch.seconds()["text"]}
