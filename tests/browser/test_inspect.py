"""Inspect in Chromium, on the shipped atlas: point at patches, read features, take one out, upload hostile files."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image, ImageDraw

from app import uploads
from app.inspecting import Inspection, inspect
from tests.app.test_uploads import encoded, png_announcing
from tests.browser.explorer_page import ExplorerPage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

    from app.launching import Explorer

Open = Callable[..., ExplorerPage]
pytestmark = [pytest.mark.browser, pytest.mark.slow]
UPLOAD_TO_FEATURES_S = 10.0
"""The target of the explorer on a CPU; on a machine with other work it is measured generously."""
LARGEST_IN_A_MESSAGE = 40 * 1024 * 1024
"""Playwright hands larger files over by their path."""
GRID = "#ico-inspect-patches .ico-patches-grid"
FILE = "#ico-inspect-image input[type=file]"
TOLD = "#ico-inspect-image .ico-chooser-told"


@pytest.fixture(scope="module")
def demo(browser: Browser, shipped_atlas: Path, shipped_subject: Path) -> Iterator[Explorer]:
    del browser, shipped_subject
    from app.launching import start

    running = start([shipped_atlas], "127.0.0.1", None, block=False)
    yield running
    running.close()


def wait_for_found(page: Page, title: str = "") -> Locator:
    """The list, once its heading is ``title``."""
    page.wait_for_function(
        "(title) => document.querySelector('#ico-inspect-list .ico-found') && "
        "(document.querySelector('#ico-inspect-list h2')?.textContent ?? '').includes(title)",
        arg=title,
    )
    return page.locator("#ico-inspect-list .ico-found")


def listed(page: Page) -> list[int]:
    script = "all => all.map(one => Number(one.dataset.feature))"
    return page.locator("#ico-inspect-list .ico-found").evaluate_all(script)


def fields(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def patches(page: Page) -> list[int]:
    """The chosen patches as the address has them."""
    found: list[int] = []
    for run in filter(None, fields(page).get("spot", "").split(".")):
        first, _, last = run.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def centre(page: Page, patch: int, n: int = 16) -> tuple[float, float]:
    box = page.locator(GRID).bounding_box()
    assert box is not None
    return box["x"] + (patch % n + 0.5) * box["width"] / n, box["y"] + (patch // n + 0.5) * box["height"] / n


def expected(explorer: Explorer, image: str, spot: list[int], **more: Any) -> list[int]:
    steps = list(inspect(explorer.services, "test", image, spot, most=30, **more))
    assert isinstance(steps[-1], Inspection)
    return [one.record.feature for one in steps[-1].features]


def send(page: Page, data: bytes, name: str = "picture.png", kind: str = "image/png") -> None:
    page.locator(FILE).set_input_files({"name": name, "mimeType": kind, "buffer": data})


def owl_like() -> bytes:
    """A picture that no atlas holds: red stripes over green."""
    image = Image.new("RGB", (300, 200), "green")
    for x in range(0, 300, 40):
        ImageDraw.Draw(image).rectangle((x, 0, x + 18, 90), fill="red")
    return encoded(image)


# the journey ---------------------------------------------------------------------------------------------------------


def test_dragging_over_patches_names_the_features_there(demo: Explorer, open_page: Open) -> None:
    page = open_page(demo).page
    page.get_by_role("tab", name="Inspect", exact=True).click()
    wait_for_found(page, "on this picture")
    image = demo.services.store.image_ids[0]
    assert listed(page) == expected(demo, image, [])
    page.mouse.move(*centre(page, 90))
    page.mouse.down()
    page.mouse.move(*centre(page, 124), steps=5)
    page.mouse.up()
    wait_for_found(page, "on these patches")
    chosen = [row * 16 + col for row in (5, 6, 7) for col in (10, 11, 12)]
    assert patches(page) == chosen
    assert fields(page)["inspect"] == image
    assert listed(page) == expected(demo, image, chosen)
    # Shift takes away; a tap on a chosen patch does too.
    page.keyboard.down("Shift")
    page.mouse.click(*centre(page, 90))
    page.keyboard.up("Shift")
    page.mouse.click(*centre(page, 124))
    page.wait_for_url("**spot=91-92.106-108.122-123**")
    page.get_by_label("Strongest first").check()
    page.wait_for_url("**ranked=strongest**")
    left = [one for one in chosen if one not in (90, 124)]
    wanted = expected(demo, image, left, by="strongest")
    page.wait_for_function(
        "(wanted) => [...document.querySelectorAll('.ico-found')].map((one) => Number(one.dataset.feature)).join()"
        " === wanted.join()",
        arg=wanted,
    )


def test_an_address_brings_back_picture_patches_order_and_heatmap(demo: Explorer, open_page: Open) -> None:
    image = demo.services.store.image_ids[5]
    spot = [20, 21, 22, 36, 37]
    first = expected(demo, image, spot, by="strongest")[0]
    query = f"?tab=inspect&inspect={image}&spot=20-22.36-37&ranked=strongest&heat={first}&ask=what+is+this+%3F"
    page = open_page(demo, query).page
    wait_for_found(page, "on these patches")
    assert listed(page) == expected(demo, image, spot, by="strongest")
    assert fields(page) == {name: values[0] for name, values in parse_qs(query[1:]).items()}
    assert page.locator(".ico-found-heat[aria-pressed=true]").count() == 1
    assert page.locator("#ico-inspect-patches .has-heat").count() == 1
    assert page.locator("#ico-inspect-question textarea, #ico-inspect-question input").input_value() == "what is this ?"


def test_pointing_at_a_feature_shows_its_heatmap_and_pressing_keeps_it(demo: Explorer, open_page: Open) -> None:
    page = open_page(demo, "?tab=inspect").page
    rows = wait_for_found(page)
    stage = page.locator("#ico-inspect-patches .ico-patches-stage")
    rows.nth(1).hover()
    page.wait_for_selector("#ico-inspect-patches .has-heat")
    page.mouse.move(5, 5)
    page.wait_for_function("!document.querySelector('#ico-inspect-patches .has-heat')")
    rows.nth(0).locator(".ico-found-heat").click()
    page.mouse.move(5, 5)
    assert "has-heat" in (stage.get_attribute("class") or "")
    page.wait_for_url(f"**heat={rows.nth(0).get_attribute('data-feature')}**")


def test_patches_are_chosen_by_keyboard(demo: Explorer, open_page: Open) -> None:
    page = open_page(demo, "?tab=inspect").page
    wait_for_found(page)
    page.locator(GRID).focus()
    for key in ("Space", "ArrowRight", "Space", "Shift+ArrowDown"):
        page.keyboard.press(key)
    page.wait_for_url("**spot=136-137.153**")
    assert "row 10, column 10, chosen" in page.locator("#ico-inspect-patches .ico-unseen").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_function("!location.search.includes('spot')")


def test_on_a_phone_every_tap_hits_its_patch(demo: Explorer, open_page: Open) -> None:
    page = open_page(demo, "?tab=inspect", width=390, has_touch=True, is_mobile=True)
    wait_for_found(page.page)
    tapped = [0, 15, 240, 255, *range(17, 220, 23)]
    for patch in tapped:
        page.page.touchscreen.tap(*centre(page.page, patch))
    page.page.wait_for_function(
        "(n) => document.querySelector('.ico-patches-told').textContent.startsWith(n)", arg=f"{len(tapped)} of"
    )
    assert patches(page.page) == sorted(tapped)
    assert page.sideways_scroll_px() <= 0


def test_the_answer_without_a_feature_stands_beside_a_random_control(demo: Explorer, open_page: Open) -> None:
    page = open_page(demo, "?tab=inspect").page
    rows = wait_for_found(page)
    feature = rows.nth(1).get_attribute("data-feature")
    rows.nth(1).locator("[data-without]").click()
    status = page.locator("#ico-inspect-answers .ico-status")
    page.wait_for_function(
        "/random directions/.test(document.querySelector('#ico-inspect-answers .ico-status')?.textContent)"
    )
    answers = {
        key: page.locator(f'#ico-inspect-answers [data-column="{key}"]') for key in ("given", "without", "random")
    }
    assert all(answer.is_visible() and len(answer.locator("p").inner_text()) > 4 for answer in answers.values())
    edited = answers["without"].locator(".ico-n").inner_text()
    assert edited == answers["random"].locator(".ico-n").inner_text()
    assert int(edited.split()[0]) > 0
    assert "n = 1" in status.inner_text() and "95 % interval" in status.inner_text()
    page.wait_for_url(f"**without={feature}**")
    page.reload()
    page.get_by_role("button", name=f"Ask again without feature {feature}").click()
    page.wait_for_function(
        "/random directions/.test(document.querySelector('#ico-inspect-answers .ico-status')?.textContent)"
    )


def test_steering_goes_on_in_the_same_picture(demo: Explorer, open_page: Open) -> None:
    page = open_page(demo, "?tab=inspect&inspect=noise-3").page
    rows = wait_for_found(page)
    feature = rows.nth(0).get_attribute("data-feature")
    rows.nth(0).get_by_role("button", name="Ablate in Steer").click()
    page.wait_for_url("**tab=steer**")
    page.wait_for_url("**image=noise-3**")
    assert fields(page)["steer"] == f"{feature}:ablate"
    assert fields(page)["patches"] == "active"


def test_the_features_of_a_picture_are_lit_on_the_map(demo: Explorer, open_page: Open) -> None:
    opened = open_page(demo, "?tab=inspect")
    wait_for_found(opened.page)
    shown = listed(opened.page)
    opened.page.get_by_role("button", name="Show all on map").click()
    opened.wait_for_tab("Map")
    opened.wait_for_map()
    opened.page.wait_for_function("(n) => (window.iconoscopeMap.hits ?? []).length === n", arg=len(shown))


# uploads -------------------------------------------------------------------------------------------------------------


def test_an_upload_becomes_named_features(demo: Explorer, open_page: Open) -> None:
    page = open_page(demo, "?tab=inspect").page
    wait_for_found(page)
    started = time.monotonic()
    send(page, owl_like())
    page.wait_for_url("**inspect=upload-**")
    page.wait_for_function(
        "/uploaded picture/.test(document.querySelector('#ico-inspect-list .ico-lede')?.textContent)"
    )
    seconds = time.monotonic() - started
    assert seconds < UPLOAD_TO_FEATURES_S
    upload = fields(page)["inspect"]
    assert listed(page) == expected(demo, upload, [])
    shape = page.locator(".ico-patches-stage").first.evaluate("one => one.clientWidth / one.clientHeight")
    assert shape == pytest.approx(1.5, abs=0.02)
    # The other tab offers it too.
    page.get_by_role("tab", name="Steer", exact=True).click()
    assert page.locator(f'#ico-steer-image input[value="{upload}"]').count() == 1


def test_a_rotated_photograph_is_shown_upright(demo: Explorer, open_page: Open) -> None:
    page = open_page(demo, "?tab=inspect").page
    wait_for_found(page)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (60, 30), "white")
    image.paste((255, 0, 0), (0, 0, 15, 15))
    send(page, encoded(image, "JPEG", exif=exif, quality=95), "photo.jpg", "image/jpeg")
    page.wait_for_url("**inspect=upload-**")
    script = """() => { const img = document.querySelector('#ico-inspect-patches img');
      const c = document.createElement('canvas');
      c.width = img.naturalWidth; c.height = img.naturalHeight; const x = c.getContext('2d'); x.drawImage(img, 0, 0);
      return [c.width, c.height, ...x.getImageData(c.width - 3, 3, 1, 1).data]; }"""
    page.wait_for_function("document.querySelector('#ico-inspect-patches img').naturalWidth === 30")
    width, height, red, green, _, _ = page.evaluate(script)
    assert (width, height) == (30, 60)
    assert red > 200 > green


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(demo: Explorer, open_page: Open, way: str) -> None:
    page = open_page(demo, "?tab=inspect").page
    wait_for_found(page)
    data = base64.b64encode(encoded(Image.new("RGB", (40, 40), "orange"))).decode()
    page.evaluate(
        """([data, way]) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const carried = new DataTransfer();
          carried.items.add(new File([bytes], 'p.png', { type: 'image/png' }));
          const how = { bubbles: true, cancelable: true, dataTransfer: carried, clipboardData: carried };
          const event = way === 'drop' ? new DragEvent('drop', how) : new ClipboardEvent('paste', how);
          document.querySelector('#ico-inspect-image .ico-chooser-grid').dispatchEvent(event);
        }""",
        [data, way],
    )
    page.wait_for_url("**inspect=upload-**")


HOSTILE_FILES = [
    pytest.param(b"<html><script>window.__ran=1</script></html>", "picture.png", "not a picture", id="HTML"),
    pytest.param(
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='window.__ran=1'/>", "p.svg", "not a picture", id="SVG"
    ),
    pytest.param(b"MZ\x90\x00" + bytes(5000), "<img src=x onerror=window.__ran=1>.png", "not a picture", id="program"),
    pytest.param(b"", "empty.png", "empty", id="zero bytes"),
    pytest.param(owl_like()[:150], "cut.png", "cut short", id="truncated"),
    pytest.param(png_announcing(60_000, 60_000), "bomb.png", "pixels", id="bomb"),
    pytest.param(b"\xff" * (50 * 1024 * 1024), "large.png", "larger than 20 MiB", id="50 MB"),
]


@pytest.mark.parametrize(("data", "name", "words"), HOSTILE_FILES)
def test_hostile_files_are_refused_and_the_page_goes_on(
    demo: Explorer, open_page: Open, tmp_path: Path, data: bytes, name: str, words: str
) -> None:
    opened = open_page(demo, "?tab=inspect")
    page = opened.page
    wait_for_found(page)
    before = listed(page)
    if len(data) < LARGEST_IN_A_MESSAGE:
        send(page, data, name)
    else:
        (tmp_path / name).write_bytes(data)
        page.locator(FILE).set_input_files(tmp_path / name)
    page.wait_for_function(f"(words) => document.querySelector('{TOLD}').textContent.includes(words)", arg=words)
    assert page.evaluate("window.__ran") is None
    assert listed(page) == before
    # A good picture works right after.
    send(page, owl_like())
    page.wait_for_url("**inspect=upload-**")


def test_after_a_restart_a_lost_upload_says_so_and_the_same_file_mends_it(demo: Explorer, open_page: Open) -> None:
    kept = uploads.SHELF.add(owl_like()).image_id
    uploads.SHELF.clear()
    page = open_page(demo, f"?tab=inspect&inspect={kept}&spot=3-5").page
    problem = page.locator("#ico-inspect-list [role=alert]")
    problem.wait_for()
    assert "Upload the same file again" in problem.inner_text()
    send(page, owl_like())
    page.wait_for_function(
        "/uploaded picture/.test(document.querySelector('#ico-inspect-list .ico-lede')?.textContent)"
    )
    assert fields(page)["inspect"] == kept


# without a model -----------------------------------------------------------------------------------------------------


def test_without_a_model_stored_features_are_told_and_the_rest_is_explained(
    hostile_explorer: Explorer, open_page: Open
) -> None:
    services = hostile_explorer.services
    image = services.store.exemplars(int(services.store.feature_ids[0]))[0].image_id
    page = open_page(hostile_explorer, f"?tab=inspect&inspect={image}").page
    rows = wait_for_found(page)
    assert rows.count() > 0
    told = page.locator("#ico-inspect-list .ico-found-head").inner_text()
    assert "The subject model did not look at it" in told
    assert page.evaluate("window.__ran") is None
    send(page, owl_like())
    page.locator("#ico-inspect-list [role=alert]").wait_for()
    assert page.evaluate("window.__ran") is None
