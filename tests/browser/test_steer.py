"""Steering in Chromium: four columns at once, doses, tokens, Stop, a painted region, and an address that repeats it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from app.steer_answers import COLUMNS
from app.steer_setup import DOSES
from backend.types import HookPoint
from tests.browser.explorer_page import ExplorerPage

if TYPE_CHECKING:
    from app.launching import Explorer

Open = Callable[..., ExplorerPage]
pytestmark = pytest.mark.browser


def fields(page: ExplorerPage) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(page.page.url.partition("?")[2]).items()}


def wait_for_set(page: ExplorerPage, *features: int) -> None:
    for feature in features:
        page.page.locator(f'.ico-steer-row[data-feature="{feature}"]').wait_for()


def test_steering_streams_four_columns_and_the_tokens_below(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=feature&feature=2")
    page.wait_for_feature(2).get_by_text("Steer this feature").click()
    wait_for_set(page, 2)
    page.start_steering()
    status = page.wait_until_answered()
    strength = explorer.services.store.feature(2).recommended_strength
    assert f"add feature 2 at strength {strength:.1f} L2 on all" in status
    assert "of the blank image; greedy" in status
    told = {column: page.answer(column) for column in COLUMNS}
    assert told["steered"] not in (told["unsteered"], told["random"], told["permuted"])
    counts = page.page.locator(".ico-answer .ico-n").all_inner_texts()
    assert counts == ["0 patches edited"] + ["256 patches edited"] * 3
    boxes = [page.page.locator(f'[data-column="{column}"]').bounding_box() for column in COLUMNS]
    assert len({round(box["y"]) for box in boxes if box}) == 1, "all columns stand side by side"
    words = page.page.locator(".ico-token-text").all_inner_texts()
    assert " ".join(words).replace(" ", "") == told["steered"].replace(" ", "")
    page.page.locator(".ico-token").first.hover()
    assert "unsteered" in page.page.locator(".ico-token-tip:visible").inner_text()
    page.page.get_by_text("The numbers as a table").click()
    assert page.page.locator(".ico-token-table tbody tr").count() == len(words)


def test_strength_is_one_number_in_two_units_and_a_slider(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=steer&feature=2")
    wait_for_set(page, 2)
    maximum = explorer.services.store.feature(2).maximum
    assert "steer" not in fields(page), "the recommended strength of the open feature is the default"
    in_l2 = page.page.get_by_label("Strength of feature 2, residual-stream L2")
    times = page.page.get_by_label("Strength of feature 2, times its maximum")
    slider = page.page.get_by_label("Strength of feature 2 in L2 units")
    in_l2.fill("12.5")
    in_l2.press("Tab")
    page.page.wait_for_url(re.compile(r"steer=2%3Aadd%3A12\.5"))
    assert float(times.input_value()) == pytest.approx(12.5 / maximum, rel=1e-2)
    assert float(slider.input_value()) == pytest.approx(12.5, abs=0.3)
    times.fill("2")
    times.press("Tab")
    assert float(in_l2.input_value()) == pytest.approx(2 * maximum, rel=1e-3)
    slider.focus()
    slider.press("ArrowRight")
    assert float(in_l2.input_value()) > 2 * maximum
    page.page.get_by_role("button", name="back to recommended").click()
    page.page.wait_for_function("!new URLSearchParams(location.search).has('steer')")


def test_a_weighted_set_is_built_and_survives_the_address(explorer: Explorer, open_page: Open) -> None:
    image = explorer.services.store.exemplars(2, pooling="max")[1].image_id
    query = f"?tab=steer&feature=2&steer=2:set:12.5&patches=3-5.9&image={image}&prompt=what+is+near"
    page = open_page(explorer, f"{query}&sampling=sampled&temperature=1.2&seed=8")
    wait_for_set(page, 2)
    page.page.get_by_label("Number of a feature to add").fill("3")
    page.page.get_by_role("button", name="Add a feature").click()
    wait_for_set(page, 2, 3)
    page.page.locator('.ico-steer-row[data-feature="3"] input[value="ablate"]').check()
    page.page.wait_for_url(re.compile(r"steer=2%3Aset%3A12\.5%2C3%3Aablate"))
    said = fields(page)
    again = open_page(explorer, page.page.url.removeprefix(explorer.url))
    wait_for_set(again, 2, 3)
    assert again.page.locator("#ico-prompt textarea, #ico-prompt input").input_value() == "what is near"
    assert again.page.locator(f'#ico-steer-image input[value="{image}"]').is_checked()
    assert again.page.get_by_label("Painted", exact=True).is_checked()
    again.page.get_by_text("4 of 256 patches chosen").wait_for()
    assert again.page.get_by_label("Sampled", exact=True).is_checked()
    assert fields(again) == said
    again.page.get_by_role("button", name="Remove feature 3").click()
    again.page.wait_for_url(re.compile(r"steer=2%3Aset%3A12\.5(&|$)"))


def test_the_same_address_gives_the_same_words(explorer: Explorer, open_page: Open) -> None:
    told = []
    for _ in range(2):
        page = open_page(explorer, "?tab=steer&feature=2&steer=2:add:25&sampling=sampled&temperature=2&seed=5")
        wait_for_set(page, 2)
        page.start_steering()
        assert "sampled at temperature 2, top-p 0.95, seed 5" in page.wait_until_answered()
        told.append([page.answer(column) for column in COLUMNS])
    assert told[0] == told[1]


def test_ten_strengths_stand_along_an_axis_and_a_press_takes_one_over(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=steer&feature=2&steer=2:add:20")
    wait_for_set(page, 2)
    page.page.locator("#ico-try-doses").click()
    page.page.locator("#ico-doses .ico-line").wait_for()
    cells = page.page.locator(".ico-dose button")
    assert cells.count() == len(DOSES)
    assert page.page.locator(".ico-dose-control").count() == len(DOSES)
    cells.nth(1).click()
    page.page.wait_for_url(re.compile(r"steer=2%3Aadd%3A2(&|$)"))
    assert page.page.get_by_label("Strength of feature 2, residual-stream L2").input_value() == "2"


def test_stop_and_leaving_free_the_model(explorer: Explorer, open_page: Open) -> None:
    workers = explorer.services.worker.workers
    through = threading.Event()

    def busy(session: object, should_stop: object) -> Iterator[str]:
        yield "begun"
        through.wait(300)

    began = explorer.services.worker.run("somebody else", busy)
    while next(began) != "begun":
        pass
    page = open_page(explorer, "?tab=steer&feature=2")
    wait_for_set(page, 2)
    page.start_steering()
    page.page.get_by_text("Waiting: 1 request before yours.").wait_for()
    page.page.locator("#ico-stop").click()
    page.page.get_by_text("Stopped before the first word.").wait_for()
    page.start_steering()
    page.page.get_by_text("Waiting: 1 request before yours.").wait_for()
    assert workers.n_taken == 2
    page.page.goto("about:blank")
    for _ in range(100):
        if workers.n_taken == 1:
            break
        page.page.wait_for_timeout(100)
    left = workers.n_taken
    through.set()
    assert left == 1, "whoever closes the page gives up the place"
    assert list(began) == []


def silent_on_blank(explorer: Explorer) -> int:
    """A feature of the atlas that is active nowhere on the blank image, so that there is nothing to take out."""
    from backend.models import load_subject
    from backend.sae import TopKSAE

    store = explorer.services.store
    subject = load_subject(store.meta["subject"]["path"], HookPoint(layer=store.meta["hook_point"]["layer"]))
    codes = TopKSAE.load(store.artifact.folder / "sae").encode(subject.residuals([subject.blank_image()]))
    active = set(codes.indices[codes.values > 0].tolist())
    return next(feature for feature in store.feature_ids.tolist() if feature not in active)


def test_an_impossible_intervention_is_said_in_words(explorer: Explorer, open_page: Open) -> None:
    feature = silent_on_blank(explorer)
    page = open_page(explorer, f"?tab=steer&feature={feature}&steer={feature}:ablate")
    wait_for_set(page, feature)
    page.start_steering()
    toast = page.page.locator(".toast-body")
    toast.wait_for()
    assert f"feature {feature}" in toast.inner_text()
    assert "exemplars" in page.page.locator("#ico-answers .ico-status").inner_text()


def test_a_set_that_was_changed_stays_when_another_feature_is_opened(explorer: Explorer, open_page: Open) -> None:
    page = open_page(explorer, "?tab=steer&feature=2")
    wait_for_set(page, 2)
    page.page.locator('.ico-steer-row input[value="set"]').check()
    page.page.wait_for_url(re.compile("steer=2%3Aset"))
    page.page.evaluate("window.iconoscope.go('feature', '3')")
    page.wait_for_feature(3)
    page.tab("Steer")
    wait_for_set(page, 2)
    page.page.get_by_role("button", name="Add it").click()
    wait_for_set(page, 2, 3)
    page.page.evaluate("window.iconoscope.go('steer', '3')")
    page.page.wait_for_function("document.querySelectorAll('.ico-steer-row').length === 1")
    wait_for_set(page, 3)


@pytest.mark.parametrize("width", [390, 1024])
def test_columns_stand_in_pairs_without_sideways_scroll(explorer: Explorer, open_page: Open, width: int) -> None:
    page = open_page(explorer, "?tab=steer&feature=2&patches=3", width=width)
    wait_for_set(page, 2)
    page.start_steering()
    page.wait_until_answered()
    assert page.sideways_scroll_px() <= 0
    boxes = [page.page.locator(f'[data-column="{column}"]').bounding_box() for column in COLUMNS]
    tops = [round(box["y"]) for box in boxes if box]
    assert tops[0] == tops[1] < tops[2] == tops[3]
    # Two short answers above each other fit a phone; between the pairs stands nothing else.
    assert tops[2] - max(box["y"] + box["height"] for box in boxes[:2] if box) < 20
