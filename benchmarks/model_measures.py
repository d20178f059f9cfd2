"""Measures of what needs the subject model: steering, stopping, and from an uploaded picture to named features."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.map_measures import HEIGHT, WIDTH
from benchmarks.stopwatch import Stopwatch, shown
from benchmarks.verdicts import Measure, in_ms

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STEERED = "document.querySelector('[data-column=\"steered\"] .ico-words')?.textContent.trim()"
ENDED = "/^(Done|Stopped) in/.test(document.querySelector('#ico-answers .ico-line')?.textContent ?? '')"


def steering(browser: Browser, url: str, features: list[int], n: int) -> Iterator[Measure]:
    """From Start to the first steered word and to the whole answer; from Stop to the end; to the place in line."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(120_000)
    page = context.new_page()
    told, first, whole, stopped = [], [], [], []
    _ready_to_steer(page, url, features[0])
    page.locator("#ico-start").click()
    # The model is loaded by then; what follows is measured warm, with nobody else in the line.
    page.wait_for_function(ENDED)
    for turn in range(n):
        watch = _ready_to_steer(page, url, features[turn % len(features)])
        watch.arm(
            told=shown("#ico-answers .ico-status"),
            first=f"Boolean({STEERED})",
            whole=ENDED,
        )
        page.locator("#ico-start").click()
        seconds = watch.seconds(90)
        for kept, name in ((told, "told"), (first, "first"), (whole, "whole")):
            kept += [seconds[name]] if seconds[name] is not None else []
        # Not faster than a visitor may: the line refuses who asks too often.
        page.wait_for_timeout(2500)
    for turn in range(n):
        found = _stop(page, url, features[turn % len(features)])
        stopped += [found] if found is not None else []
        page.wait_for_timeout(2500)
    context.close()
    yield in_ms("Start to a word about the line", told, 95, 500)
    yield in_ms("Start to first steered token", first, 50, 1500)
    yield in_ms("Start to first steered token", first, 95, 3000)
    yield in_ms("Start to the whole answer", whole, 50)
    yield in_ms("Stop to the end of the answer", stopped, 95, 500)


def _ready_to_steer(page: Page, url: str, feature: int) -> Stopwatch:
    page.goto(f"{url}?tab=steer&feature={feature}")
    page.locator("#ico-start").wait_for()
    page.wait_for_function("document.querySelectorAll('#ico-steer-set input').length > 0")
    page.wait_for_timeout(400)
    return Stopwatch(page)


def _stop(page: Page, url: str, feature: int) -> float | None:
    """Press Stop as soon as the first word is there; None if the answer was over before."""
    watch = _ready_to_steer(page, url, feature)
    page.locator("#ico-start").click()
    page.wait_for_function(f"Boolean({STEERED})")
    watch.arm(ended=ENDED)
    page.locator("#ico-stop").click()
    return watch.seconds(30)["ended"]


def uploads(browser: Browser, url: str, n: int) -> Iterator[Measure]:
    """From choosing a file to the list of named features that fire on it; every picture is new to the server."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(f"{url}?tab=inspect")
    chooser = page.locator("#ico-inspect-image input[type=file]")
    chooser.wait_for(state="attached")
    page.wait_for_timeout(800)
    watch = Stopwatch(page)
    named = []
    for turn in range(n):
        watch.mark_old(".ico-found-list")
        watch.arm(named=shown(".ico-found-list:not([data-old])"))
        chooser.set_input_files({"name": f"picture-{turn}.png", "mimeType": "image/png", "buffer": _picture(turn)})
        seconds = watch.seconds(60)["named"]
        named += [seconds] if seconds is not None else []
    context.close()
    yield in_ms("upload to named features", named, 50)
    yield in_ms("upload to named features", named, 95, 10_000, note=f"{len(named)} of {n} answered; 2 s with a GPU")


def _picture(seed: int) -> bytes:
    """A picture that no atlas holds."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    stream = io.BytesIO()
    small.resize((640, 480), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()
