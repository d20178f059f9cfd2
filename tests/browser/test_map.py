"""The map in Chromium: points, names, colours, filters, hits, phone, and life without WebGL."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.browser.explorer_page import ExplorerPage

if TYPE_CHECKING:
    from playwright.sync_api import Route

    from app.launching import Explorer
    from app.services import Services

Open = Callable[..., ExplorerPage]
pytestmark = pytest.mark.browser
SURFACE = ".ico-map-surface"


def ready(open_page: Open, explorer: Explorer, query: str = "", **more: object) -> ExplorerPage:
    page = open_page(explorer, query, **more)
    page.wait_for_map()
    return page


def dropped(services: Services) -> int:
    return sum(not services.store.feature(one).quality_kept for one in services.store.feature_ids.tolist())


def open_filters(page: ExplorerPage) -> None:
    page.page.locator(".ico-map-filters summary").click()


def words(page: ExplorerPage) -> str:
    return page.page.locator(".ico-map-count").inner_text()


def wait_for_words(page: ExplorerPage, part: str) -> None:
    page.page.wait_for_function("part => document.querySelector('.ico-map-count').textContent.includes(part)", arg=part)


# points and picking ----------------------------------------------------------------------------------------------


def test_a_click_on_a_point_opens_its_feature(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    assert page.map("count") == page.map("visibleCount") == len(explorer.services.store)
    chosen = page.isolated_features(3)
    assert len(chosen) == 3
    for feature in chosen:
        page.tab("Map")
        page.click_feature_on_map(feature)
        shown = page.wait_for_feature(feature)
        text = explorer.services.store.feature(feature).best_text
        assert shown.locator(".is-large").inner_text() == text
        page.page.wait_for_url(re.compile(rf"feature={feature}\b"))
        assert page.map("selected") == feature


def test_every_point_that_stands_alone_is_the_one_under_the_pointer(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    chosen = page.isolated_features(100, distance_px=9)
    assert len(chosen) > 10
    for feature in chosen:
        at = page.map(f"pixelOf({feature})")
        page.page.mouse.move(at["x"] + 2, at["y"] - 2)
        page.page.wait_for_function("id => window.iconoscopeMap.cursor === id", arg=feature)


def test_no_two_points_lie_on_each_other(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    places = sorted((at["x"], at["y"]) for at in page.places_on_map().values())
    assert len(places) == len(explorer.services.store)
    gaps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(places)]
    assert min(gaps) > 1


def test_hovering_shows_words_method_score_with_n_and_the_picture(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    feature = page.isolated_features(1)[0]
    at = page.map(f"pixelOf({feature})")
    page.page.mouse.move(at["x"] + 1, at["y"])
    card = page.page.locator(".ico-map-card")
    card.wait_for(state="visible")
    record = explorer.services.store.feature(feature)
    said = card.inner_text()
    assert (record.best_text or "") in said
    assert record.best_arm is not None
    assert record.best_arm.label in said
    assert "n = 20" in said
    assert card.locator("canvas").count() == 1
    live = page.page.locator(".ico-map-live")
    assert f"Feature {feature}" in live.inner_text()
    page.page.locator(".ico-header").hover()
    card.wait_for(state="hidden")


# camera and names ------------------------------------------------------------------------------------------------


def test_the_camera_is_in_the_address_and_comes_back(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    whole = page.map("camera")
    page.page.get_by_role("button", name="Zoom in").click()
    box = page.page.locator(SURFACE).bounding_box()
    assert box
    page.page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 380, box["y"] + 260, steps=5)
    page.page.mouse.up()
    page.page.wait_for_url(re.compile("camera="))
    page.page.wait_for_timeout(600)
    seen = page.map("camera")
    assert seen[1] - seen[0] == pytest.approx((whole[1] - whole[0]) / 1.6, rel=1e-3)
    again = ready(open_page, explorer, page.page.url.removeprefix(explorer.url))
    extent = whole[1] - whole[0]
    assert again.map("camera") == pytest.approx(seen, abs=extent / 500)
    again.page.get_by_role("button", name="Whole map").click()
    again.page.wait_for_function("!location.search.includes('camera=')")
    assert again.map("camera") == pytest.approx(whole, abs=extent / 500)


def test_the_wheel_zooms_about_the_pointer(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    feature = page.isolated_features(1)[0]
    before = page.map(f"pixelOf({feature})")
    width = width_of(page)
    page.page.mouse.move(before["x"], before["y"])
    page.page.mouse.wheel(0, -300)
    page.page.wait_for_function("w => iconoscopeMap.camera[1] - iconoscopeMap.camera[0] < w", arg=width * 0.9)
    after = page.map(f"pixelOf({feature})")
    assert after == pytest.approx(before, abs=1.5)


def width_of(page: ExplorerPage) -> float:
    low, high, *_ = page.map("camera")
    return high - low


def test_names_do_not_overlap_and_a_click_on_one_zooms_to_its_cluster(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    labels = page.page.locator(".ico-map-label:not(.is-out)")
    boxes = [box for box in (labels.nth(i).bounding_box() for i in range(labels.count())) if box]
    assert len(boxes) >= 3
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            apart = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
            assert apart or a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"]
    before = width_of(page)
    places = page.places_on_map().values()
    free = [
        box for box in boxes if all(abs(at["x"] - box["x"] - 6) + abs(at["y"] - box["y"] - 10) > 16 for at in places)
    ]
    page.page.mouse.click(free[0]["x"] + 6, free[0]["y"] + 10)
    page.page.wait_for_function("w => iconoscopeMap.camera[1] - iconoscopeMap.camera[0] < w", arg=before * 0.8)


# colours and filters ---------------------------------------------------------------------------------------------


def test_the_map_is_coloured_by_what_is_chosen_and_the_address_follows(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    page.page.get_by_label("Colour by").select_option("verdict")
    page.page.wait_for_function("window.iconoscopeMap.colouredBy === 'verdict'")
    page.page.wait_for_url(re.compile("colour=verdict"))
    again = ready(open_page, explorer, page.page.url.removeprefix(explorer.url))
    again.page.wait_for_function("window.iconoscopeMap.colouredBy === 'verdict'")


def test_every_colouring_has_a_legend_that_counts(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    chooser = page.page.get_by_label("Colour by")
    keys = chooser.locator("option").evaluate_all("options => options.map(one => one.value)")
    assert {"cluster", "best_arm", "auroc_per_feature", "agreement", "firing_fraction", "verdict"} <= set(keys)
    for key in keys[1:]:
        chooser.select_option(key)
        page.page.wait_for_function("key => window.iconoscopeMap.colouredBy === key", arg=key)
        legend = page.page.locator(".ico-map-legend").inner_text().replace("\N{NO-BREAK SPACE}", " ")
        counted = sum(int(n.replace(",", "")) for n in re.findall(r"n = ([\d,]+)", legend))
        absent = re.search(r"Grey: ([\d,]+) of", legend)
        assert counted + (int(absent[1]) if absent else 0) == len(explorer.services.store), key


def test_the_quality_filter_is_a_switch_that_says_what_it_drops(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    n, gone = len(explorer.services.store), dropped(explorer.services)
    open_filters(page)
    switch = page.page.get_by_role("switch", name=re.compile("Quality filter"))
    assert f"drops {gone} of {n}" in page.page.locator(".ico-switch").inner_text()
    switch.check()
    wait_for_words(page, f"Hidden: {gone} by the quality filter.")
    assert page.map("visibleCount") == n - gone
    page.page.wait_for_url(re.compile("quality=1"))
    hidden = next(
        one
        for one in explorer.services.store.feature_ids.tolist()
        if not explorer.services.store.feature(one).quality_kept
    )
    assert page.map(f"pixelOf({hidden})") is None
    page.page.get_by_role("button", name="Show all features").click()
    page.page.wait_for_function("n => window.iconoscopeMap.visibleCount === n", arg=n)
    assert "quality" not in page.page.url


def test_filters_add_up_in_words_and_survive_the_address(explorer: Explorer, open_page: Open) -> None:
    services = explorer.services
    query = "?quality=1&min_agreement=0.5&cluster=1"
    page = ready(open_page, explorer, query)
    records = [services.store.feature(one) for one in services.store.feature_ids.tolist()]
    kept = [one for one in records if one.quality_kept]
    inside = [one for one in kept if one.cluster == 1]
    agreeing = [one for one in inside if one.agreement is not None and one.agreement >= 0.5]
    assert 0 < len(agreeing) < len(inside) < len(kept) < len(records)
    told = (
        f"Hidden: {len(records) - len(kept)} by the quality filter, {len(kept) - len(inside)} by cluster, "
        f"{len(inside) - len(agreeing)} by agreement."
    )
    wait_for_words(page, told)
    assert page.map("visibleCount") == len(agreeing)
    assert page.page.locator(".ico-map-filter-badge").inner_text() == "3"
    open_filters(page)
    assert page.page.locator('[data-filter="min_agreement"]').get_attribute("aria-valuetext") == "0.50"
    for field in query.removeprefix("?").split("&"):
        assert field in page.page.url


def test_sliders_hide_what_lies_below(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer)
    open_filters(page)
    slider = page.page.locator('[data-filter="min_auroc"]')
    slider.focus()
    for _ in range(30):
        page.page.keyboard.press("ArrowRight")
    page.page.wait_for_function("n => window.iconoscopeMap.visibleCount < n", arg=len(explorer.services.store))
    page.page.wait_for_url(re.compile("min_auroc="))
    least = float(re.findall(r"min_auroc=([\d.]+)", page.page.url)[0])
    store = explorer.services.store
    best = {one: store.feature(one).best_arm for one in store.feature_ids.tolist()}
    scores = {
        one: next((score.value for score in store.scores(one)[arm] if score.metric == "auroc_per_feature"), None)
        for one, arm in best.items()
        if arm is not None
    }
    assert page.map("visibleCount") == sum(value is not None and value >= least for value in scores.values())


# hits, phone, no WebGL -------------------------------------------------------------------------------------------


def test_hits_are_lit_and_the_names_fade(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer, "?q=crab")
    page.page.wait_for_function("window.iconoscopeMap.hits.length > 0")
    wait_for_words(page, "features for “crab”")
    page.page.locator(".ico-map-labels.is-faded").wait_for(state="attached")
    page.page.get_by_role("button", name="Clear search").click()
    page.page.wait_for_function("window.iconoscopeMap.hits.length === 0")
    page.page.locator(".ico-map-labels:not(.is-faded)").wait_for(state="attached")


def test_on_a_phone_a_tap_shows_a_card_that_opens(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer, width=390, is_mobile=True, has_touch=True)
    feature = page.isolated_features(1, distance_px=24)[0]
    at = page.map(f"pixelOf({feature})")
    page.page.touchscreen.tap(at["x"], at["y"])
    card = page.page.locator(".ico-map-card")
    card.wait_for(state="visible")
    stage = page.page.locator(".ico-map-stage").bounding_box()
    box = card.bounding_box()
    assert stage and box
    assert box["x"] >= stage["x"] and box["x"] + box["width"] <= stage["x"] + stage["width"]
    assert page.page.locator(".ico-map-legend").bounding_box()["y"] > stage["y"] + stage["height"]  # type: ignore[index]
    assert page.sideways_scroll_px() <= 0
    card.get_by_role("button", name="Open feature").tap()
    page.wait_for_feature(feature)


def test_the_plain_map_answers_until_webgl_takes_over(explorer: Explorer, open_page: Open) -> None:
    held: list[Route] = []
    page = open_page(explorer)
    page.page.goto("about:blank")  # the page opened first must not be the one whose script is held
    page.page.route("**/plotly.min.js*", lambda route: held.append(route))
    page.visit()
    page.wait_for_map()
    page.page.wait_for_timeout(1000)
    assert page.map("drawnBy") == "canvas"
    page.page.get_by_role("button", name="Zoom in").click()
    before = page.map("camera")
    held[0].continue_()
    page.page.wait_for_function("window.iconoscopeMap.drawnBy === 'webgl'")
    assert page.map("camera") == before
    assert page.page.locator(".ico-map-layer").count() == 1
    x_range = page.page.evaluate("document.querySelector('.ico-map-layer').layout.xaxis.range")
    assert x_range == pytest.approx(before[:2])
    feature = page.isolated_features(1)[0]
    page.click_feature_on_map(feature)
    page.wait_for_feature(feature)


def test_a_map_without_its_large_script_stays_plain_and_says_so(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer)
    page.page.route("**/plotly.min.js*", lambda route: route.abort())
    page.visit()
    page.page.locator(".ico-map-message", has_text="Plotly could not be loaded").wait_for()
    assert page.map("drawnBy") == "canvas"


def test_a_map_that_webgl_fails_to_draw_stays_plain_and_says_so(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer)
    page.page.route(
        "**/plotly.min.js*",
        lambda route: route.fulfill(body="window.Plotly = { newPlot() { throw new Error('out of memory'); } };"),
    )
    page.visit()
    page.page.locator(".ico-map-message", has_text="WebGL could not draw the map").wait_for()
    assert page.map("drawnBy") == "canvas"
    assert page.page.locator(".ico-map-layer").count() == 1
    feature = page.isolated_features(1)[0]
    page.click_feature_on_map(feature)
    page.wait_for_feature(feature)


def test_without_webgl_the_map_is_drawn_plainly_and_words_say_so(explorer: Explorer, open_page: Open) -> None:
    page = ready(open_page, explorer, "?webgl=off")
    page.page.locator(".ico-map-message", has_text="no WebGL").wait_for()
    assert page.map("drawnBy") == "canvas"
    drawn = (
        "() => { const c = document.querySelector('.ico-map-plot canvas'); "
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
        "let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i]) n++; return n; }"
    )
    assert page.page.evaluate(drawn) > 10 * len(explorer.services.store)
    feature = page.isolated_features(1)[0]
    page.click_feature_on_map(feature)
    page.wait_for_feature(feature)
