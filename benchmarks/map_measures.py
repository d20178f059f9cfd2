"""Measures of the map, of opening features, and of search, on an atlas of any size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from scipy.spatial import KDTree

from benchmarks.stopwatch import Stopwatch, shown
from benchmarks.verdicts import Measure, in_ms, percentile

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTH, HEIGHT = 1440, 900
ISOLATED_PX = 12.0
"""A point is isolated if no other one is drawn within this distance."""
EDGE_PX = 32.0
"""A feature that opens is brought into view, so that one at the very edge moves the map under the later clicks."""
ZOOM_STEPS = (0, -400, -800, -1200)
FRAMES_S = 3.0
N_THUMBNAILS = 8
SLOW_MBIT, SLOW_CPU = 10.0, 4.0
"""The slow visitor of the map's target: 10 Mbit/s, 40 ms, a processor four times slower."""
READY = "() => window.iconoscopeMap?.ready ? performance.now() : 0"
DRAWN = (
    "() => { const map = window.iconoscopeMap; const plain = document.querySelector('.ico-map-message')?.textContent;"
    " return map?.ready && (map.drawnBy === 'webgl' || plain) ? performance.now() : 0; }"
)
"""WebGL has taken over from the canvas that the map begins with, or cannot."""
PLACES = "() => window.iconoscopeMap.ids.map(id => [id, window.iconoscopeMap.pixelOf(id)]).filter(([, at]) => at)"
QUERY_WORDS = (
    "red dog,striped fabric,a tower at night,blurred road,depth,perspective,blue bottle,cloudy sky,round wheel,"
    "bird in the rain,wooden chair,parallel lines,shiny metal,broken glass,snow on a mountain,white flower,old book,"
    "pointed castle,dark forest,orange cake,a hand,writing on a sign,horizon,green leaf,golden clock,thin rope,"
    "yellow bus,smooth stone,crowd in a street,small boat,sunset,purple hat,close-up of an eye,black cat,bright lamp"
).split(",")


def cold_starts(browser: Browser, url: str, n: int, target_s: float, *, slow: bool) -> Iterator[Measure]:
    """From an empty browser to a map that answers clicks, with all bytes counted."""
    ready, drawn, sent, points = [], [], [], 0
    for _ in range(n):
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
        page = context.new_page()
        sizes: dict[str, int] = {}
        page.on("requestfinished", lambda request, kept=sizes: kept.update({request.url: _body_bytes(request)}))
        if slow:
            _slow_down(page)
        page.goto(url, wait_until="commit")
        handle = page.wait_for_function(READY, timeout=120_000)
        ready.append(float(handle.json_value()) / 1000)
        drawn.append(float(page.wait_for_function(DRAWN, timeout=120_000).json_value()) / 1000)
        page.wait_for_timeout(200)
        sent.append(sum(sizes.values()) / 1e6)
        points = next((size for address, size in sizes.items() if address.endswith("/points.bin")), 0)
        context.close()
    p75 = percentile(ready, 75)
    visitor = " (10 Mbit/s, 4x slower processor)" if slow else ""
    yield Measure(what=f"map interactive, cold{visitor}, p75", value=p75, unit="s", n=n, target=target_s)
    yield Measure(what=f"map drawn by WebGL, cold{visitor}, p75", value=percentile(drawn, 75), unit="s", n=n)
    if not slow:
        yield Measure(what="points on the wire", value=points / 1e6, unit="MB", n=1, target=1.0)
        yield Measure(what="everything on the wire, cold, p50", value=percentile(sent, 50), unit="MB", n=n)


def _body_bytes(request: Any) -> int:
    sizes = request.sizes()
    return max(0, int(sizes["responseBodySize"]))


def _slow_down(page: Page) -> None:
    session = page.context.new_cdp_session(page)
    rate = SLOW_MBIT * 1e6 / 8
    session.send("Network.enable")
    session.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 40, "downloadThroughput": rate, "uploadThroughput": rate},
    )
    session.send("Emulation.setCPUThrottlingRate", {"rate": SLOW_CPU})


def open_map(browser: Browser, url: str) -> Page:
    """A page with a ready map."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(url)
    page.wait_for_function(DRAWN)
    return page


def clicks(page: Page, n: int) -> Iterator[Measure]:
    """Isolated points clicked: is it the right feature, how soon is its text there, and its first pictures?"""
    watch = Stopwatch(page)
    right, texts, pictures, asked = 0, [], [], 0
    for feature, x, y in _isolated(page, n):
        asked += 1
        article = f'article[data-feature="{feature}"]'
        images = f"{article} figure.ico-exemplar img"
        # Other rankings and pictures further down are fetched when they come into view.
        in_view = "(box => box.width > 0 && box.top < innerHeight)(i.getBoundingClientRect())"
        drawn = f"[...document.querySelectorAll({images!r})].filter(i => {in_view})"
        loaded = f"{drawn}.slice(0, {N_THUMBNAILS})"
        watch.arm(
            text=shown(f"{article} .is-large, {article} .ico-why"),
            pictures=f"(found => found.length && found.every(i => i.complete && i.naturalWidth && i.width))({loaded})",
        )
        page.mouse.move(x + 2, y + 1)
        page.mouse.click(x, y)
        seconds = watch.seconds(10)
        opened = page.evaluate("window.iconoscopeMap.selected") == feature and seconds["text"] is not None
        right += opened
        texts += [seconds["text"]] if seconds["text"] is not None else []
        pictures += [seconds["pictures"]] if seconds["pictures"] is not None else []
        page.get_by_role("tab", name="Map", exact=True).click()
        page.wait_for_function("document.querySelector('.ico-map-stage').getClientRects().length > 0")
    share = right / asked if asked else None
    note = f"{right} of {asked}" + ("" if asked >= n else f"; only {asked} points stand alone")
    yield Measure(what="isolated points that open their feature", value=share, unit="", n=asked, target=1.0,
                  at_least=True, note=note)  # fmt: skip
    yield in_ms("click to text and scores", texts, 50, 150)
    yield in_ms("click to text and scores", texts, 95, 400)
    yield in_ms(f"click to first {N_THUMBNAILS} pictures", pictures, 95, 1000)


def _isolated(page: Page, n: int) -> Iterator[tuple[int, float, float]]:
    """Up to ``n`` points that stand alone, looking closer where the whole map is too crowded."""
    given: set[int] = set()
    for step in ZOOM_STEPS:
        if len(given) >= n:
            return
        if step:
            _look_closer(page)
        places = page.evaluate(PLACES)
        if len(places) < 2:
            continue
        at = np.array([[one["x"], one["y"]] for _, one in places])
        nearest = KDTree(at).query(at, k=2)[0][:, 1]
        covered = _covered(page, at)
        alone = [place for place in np.flatnonzero((nearest > ISOLATED_PX) & ~covered) if places[place][0] not in given]
        for place in alone[: n - len(given)]:
            given.add(int(places[place][0]))
            yield int(places[place][0]), float(at[place, 0]), float(at[place, 1])


def _look_closer(page: Page) -> None:
    """One step nearer to the middle of the map."""
    box = page.locator(".ico-map-surface, .ico-map-plot").first.bounding_box()
    if box is None:
        return
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(600)


def _covered(page: Page, at: np.ndarray) -> np.ndarray:
    """Points under a button or a label, which a pointer cannot reach, and those at the edge: they move the map."""
    script = (
        "([points, margin]) => { const box = document.querySelector('.ico-map-stage').getBoundingClientRect();"
        " return points.map(([x, y]) => { const e = document.elementFromPoint(x, y);"
        " const inside = Math.min(x - box.left, box.right - x, y - box.top, box.bottom - y) > margin;"
        " const isMap = e?.closest('.ico-map-stage') && !e.closest('button, .ico-map-label, .ico-map-card');"
        " return !inside || !isMap;"
        " }); }"
    )
    return np.array(page.evaluate(script, [at.tolist(), EDGE_PX]), dtype=bool)


def frame_rates(page: Page, target: float) -> Iterator[Measure]:
    """Animation frames a second while the map is dragged and while it is zoomed."""
    watch = Stopwatch(page)
    box = page.locator(".ico-map-surface, .ico-map-plot").first.bounding_box()
    if box is None:
        return
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(turn: int) -> None:
        page.mouse.move(x + 80 * np.cos(turn / 5), y + 60 * np.sin(turn / 5))

    def zoom(turn: int) -> None:
        page.mouse.wheel(0, -60 if turn // 10 % 2 else 60)

    page.mouse.move(x, y)
    page.mouse.down()
    panned = _frames_during(watch, drag)
    page.mouse.up()
    zoomed = _frames_during(watch, zoom)
    for what, rate in (("pan", panned), ("zoom", zoomed)):
        yield Measure(what=f"{what}, frames a second", value=rate, unit="fps", n=1, target=target, at_least=True)


def _frames_during(watch: Stopwatch, move: Any) -> float:
    before, started, turn = watch.frames(), time.perf_counter(), 0
    while time.perf_counter() - started < FRAMES_S:
        move(turn)
        turn += 1
        time.sleep(0.01)
    return (watch.frames() - before) / (time.perf_counter() - started)


def searches(page: Page, n: int) -> Iterator[Measure]:
    """From the last key of a query to its hits on screen."""
    watch = Stopwatch(page)
    page.get_by_role("tab", name="Search", exact=True).click()
    found = [seconds for query in _queries(n) if (seconds := typed_search(page, watch, query)) is not None]
    yield in_ms("search, key to screen", found, 50)
    yield in_ms("search, key to screen", found, 95, 500, note=f"{len(found)} of {n} answered")


def typed_search(page: Page, watch: Stopwatch, query: str) -> float | None:
    """Seconds from the last key of a query, with the pause that the page makes after it; None without an answer."""
    box = page.locator("#ico-query input, #ico-query textarea").first
    box.fill(query[:-1])
    # Hits of an earlier query do not count: the address holds the query whose hits are shown.
    watch.arm(hits=f"window.iconoscope.getField('q') === {query!r} && {shown('.ico-hit')}")
    box.press_sequentially(query[-1])
    return watch.seconds(20)["hits"]


def served_searches(url: str, n: int) -> Iterator[Measure]:
    """The same on the server alone: from the request to the answer, embedding of the query included."""
    seconds = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for query in _queries(n + 3, "something like "):
            started = time.perf_counter()
            answer = client.post("gradio_api/run/search_features", json={"data": [query, 24, ""]})
            answer.raise_for_status()
            seconds.append(time.perf_counter() - started)
    # The first ones load the index and the encoder.
    yield in_ms("search, server", seconds[3:], 50)
    yield in_ms("search, server", seconds[3:], 95, 150)


def _queries(n: int, before: str = "") -> Sequence[str]:
    """Different queries, since the server keeps the embeddings of the last ones."""
    return [
        f"{before}{QUERY_WORDS[at % len(QUERY_WORDS)]}{' ' + str(at) if at >= len(QUERY_WORDS) else ''}"
        for at in range(n)
    ]
