"""Uploads: hostile files get a clear refusal or the right picture, and cost others nothing."""

from __future__ import annotations

import asyncio
import io
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import uploads
from app.uploads import HEADER, MAX_SIDE_PX, MAX_UPLOAD_BYTES, Shelf
from backend.errors import ImageMissing, ImageUnreadable
from tests.hostile import HOSTILE

OURS = {HEADER: "upload"}


def encoded(image: Image.Image, kind: str = "PNG", **more: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def plain(
    colour: str | int | tuple[int, ...] = "red", size: tuple[int, int] = (32, 24), mode: str = "RGB"
) -> Image.Image:
    return Image.new(mode, size, colour)


def png_announcing(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge picture."""
    png = encoded(plain())
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = png.index(b"IHDR")
    return png[:start] + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[start + 21 :]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def client(shelf: Shelf) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=uploads.routes(shelf))) as one:
        yield one


def send(client: TestClient, data: bytes, **headers: str):
    return client.post("/iconoscope/upload", content=data, headers={**OURS, **headers})


def shown(client: TestClient, data: bytes) -> np.ndarray:
    """Pixels of an accepted upload as a browser gets them back."""
    answer = send(client, data)
    assert answer.status_code == 200, answer.text
    back = client.get(f"/iconoscope/upload/{answer.json()['id']}")
    assert back.headers["content-type"] == "image/webp"
    assert "private" in back.headers["cache-control"]
    image = Image.open(io.BytesIO(back.content))
    assert image.size == (answer.json()["width"], answer.json()["height"])
    return np.asarray(image.convert("RGB"))


# what is refused -----------------------------------------------------------------------------------------------------

JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "JPEG")


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        pytest.param(b"", 400, "empty", id="zero bytes"),
        pytest.param(JPEG[: len(JPEG) // 2], 400, "cut short", id="truncated JPEG"),
        pytest.param(encoded(plain())[:60], 400, "cut short", id="truncated PNG"),
        pytest.param(b"<html><script>window.__ran=1</script></html>", 415, "not a picture", id="HTML"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>", 415, "not a picture", id="SVG"),
        pytest.param(b"MZ\x90\x00" + b"\0" * 4000, 415, "not a picture", id="a program"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not a picture", id="PostScript"),
        pytest.param(png_announcing(60_000, 60_000), 413, "pixels", id="bomb"),
        pytest.param(png_announcing(10_000, 5_000), 413, "50000000|pixels", id="50 megapixels"),
        pytest.param(b"\xff" * (50 * 1024 * 1024), 413, "larger than 20 MiB", id="50 MB"),
        pytest.param(encoded(plain(size=(400, 4))), 400, "too narrow", id="a hair"),
        pytest.param(encoded(plain(size=(1, 1))), 400, "too small", id="one pixel"),
    ],
)
def test_what_is_no_usable_picture_is_refused_in_words(
    client: TestClient, shelf: Shelf, data: bytes, status: int, words: str
) -> None:
    answer = send(client, data)
    assert answer.status_code == status
    told = answer.json()["error"]
    assert words.split("|")[0] in told or words.split("|")[-1] in told
    assert told[0].isupper() and told.endswith(".")
    assert len(shelf) == 0


def test_a_body_without_announced_length_stops_at_the_limit(client: TestClient) -> None:
    sent = 0

    def drip() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += 2**20
            yield b"\xff" * 2**20

    answer = client.post("/iconoscope/upload", content=drip(), headers=OURS)
    assert answer.status_code == 413


def test_reading_ends_with_the_first_chunk_beyond_the_limit() -> None:
    class Endless:
        headers: dict[str, str] = {}  # noqa: RUF012  only read
        n_read = 0

        async def stream(self):
            while True:
                self.n_read += 1
                yield b"\0" * 2**20

    request = Endless()
    with pytest.raises(uploads._Refused, match="larger than"):
        asyncio.run(uploads._body(request))  # type: ignore[arg-type]
    assert request.n_read == MAX_UPLOAD_BYTES // 2**20 + 1


def test_a_bomb_costs_no_memory(client: TestClient) -> None:
    send(client, encoded(plain()))
    tracemalloc.start()
    for _ in range(5):
        assert send(client, png_announcing(60_000, 60_000)).status_code == 413
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
    ],
)
def test_pages_of_other_sites_cannot_upload(client: TestClient, headers: dict[str, str]) -> None:
    assert send(client, encoded(plain()), **headers).status_code == 403


def test_our_own_pages_and_programs_can(client: TestClient) -> None:
    for headers in ({"sec-fetch-site": "same-origin"}, {"origin": "http://testserver"}, {}):
        assert send(client, encoded(plain()), **headers).status_code == 200


def test_a_form_of_another_site_lacks_our_header(client: TestClient) -> None:
    assert client.post("/iconoscope/upload", content=encoded(plain())).status_code == 403


def test_what_was_not_uploaded_is_404_and_says_how_to_mend_it(client: TestClient) -> None:
    answer = client.get("/iconoscope/upload/upload-0123456789abcdef")
    assert answer.status_code == 404
    assert "Upload the same file again" in answer.json()["error"]
    assert client.get("/iconoscope/upload/..%2F..%2Fetc%2Fpasswd").status_code == 404


# what is accepted, and looks right -----------------------------------------------------------------------------------


def corner_marked() -> Image.Image:
    image = plain("white", (40, 20))
    image.paste((255, 0, 0), (0, 0, 10, 10))
    return image


@pytest.mark.parametrize(("orientation", "row", "col"), [(1, 0, 0), (3, -1, -1), (6, 0, -1), (8, -1, 0)])
def test_photographs_are_turned_upright(client: TestClient, orientation: int, row: int, col: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = shown(client, encoded(corner_marked(), "JPEG", exif=exif, quality=95))
    assert pixels.shape[:2] == ((20, 40) if orientation in (1, 3) else (40, 20))
    red, green, blue = pixels[row, col].astype(int)
    assert red > 200 > 120 > max(green, blue)


def test_unusual_colours_come_out_right(client: TestClient) -> None:
    cmyk = shown(client, encoded(plain((0, 255, 255, 0), mode="CMYK"), "JPEG"))
    assert cmyk[0, 0, 0] > 200 and cmyk[0, 0, 1] < 60
    grey16 = shown(client, encoded(Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16))))
    assert np.abs(grey16.astype(int) - 128).max() <= 2
    palette = plain(0, (8, 8), "P")
    palette.putpalette([0, 0, 0] * 256)
    assert (shown(client, encoded(palette, transparency=0)) == 255).all()


def test_of_an_animation_the_first_frame_is_kept(client: TestClient) -> None:
    frames = [plain(colour) for colour in ("red", "blue", "green")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert tuple(shown(client, data)[0, 0]) == (255, 0, 0)


def test_small_pictures_keep_every_pixel_and_large_ones_become_small(client: TestClient) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    assert (shown(client, encoded(Image.fromarray(noise))) == noise).all()
    assert shown(client, encoded(plain(size=(4000, 3000)))).shape == (768, MAX_SIDE_PX, 3)


@pytest.mark.parametrize("name", HOSTILE[:12])
def test_a_files_name_is_never_asked_for_nor_told(client: TestClient, name: str) -> None:
    answer = client.post(
        "/iconoscope/upload",
        content=encoded(plain()),
        headers={**OURS, "content-disposition": ascii(f"attachment; filename={name}")},
    )
    assert set(answer.json()) == {"id", "width", "height"}


# the shelf -----------------------------------------------------------------------------------------------------------


def test_the_same_picture_has_the_same_id_after_a_restart() -> None:
    first, second = Shelf().add(encoded(plain())), Shelf().add(encoded(plain()))
    assert first.image_id == second.image_id
    assert uploads.is_upload(first.image_id)
    assert Shelf().add(encoded(plain("blue"))).image_id != first.image_id


def test_least_recently_used_goes_first_and_says_so() -> None:
    shelf = Shelf(n_most=3)
    ids = [shelf.add(encoded(plain((n, 0, 0)))).image_id for n in range(3)]
    shelf.get(ids[0])
    shelf.add(encoded(plain("blue")))
    assert [one in shelf for one in ids] == [True, False, True]
    with pytest.raises(ImageMissing, match="Upload the same file again"):
        shelf.open(ids[1])


def test_a_flood_of_one_visitor_leaves_the_pictures_of_others() -> None:
    shelf = Shelf(n_most=4)
    kept = shelf.add(encoded(plain("green")), owner="quiet").image_id
    for n in range(30):
        shelf.add(encoded(plain((n, 0, 0))), owner="loud")
    assert kept in shelf
    assert len(shelf) == 4


def test_a_refused_picture_leaves_the_shelf_as_it_was() -> None:
    shelf = Shelf()
    shelf.add(encoded(plain()))
    with pytest.raises(ImageUnreadable):
        shelf.add(JPEG[:200])
    assert len(shelf) == 1


def test_pictures_from_many_threads_are_all_kept() -> None:
    shelf = Shelf()
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(shelf.add(encoded(plain((n, 9, 9)))).image_id))
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(shelf) == 12


def test_one_visitor_cannot_take_every_place(shelf: Shelf) -> None:
    receiver = uploads.Receiver(shelf)
    receiver._now["a"] = uploads.MAX_AT_ONCE_EACH
    with pytest.raises(uploads._Refused) as refused:
        receiver._require_room("a")
    assert refused.value.status == 429
    receiver._require_room("b")
