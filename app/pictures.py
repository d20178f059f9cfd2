"""Pictures by id, wherever the explorer names one: blank, black, noise, an upload, or an image of the atlas.

An image id is "" or "blank" (the blank image), "black", "noise-<seed>", "upload-<16 hex>", or an id of the atlas.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from urllib.parse import quote

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app import uploads
from app.components import addresses
from app.services import Services
from backend.errors import ImageMissing
from backend.images import open_image

BLANK = ""
BLACK = "black"
NOISE_PATTERN = re.compile(r"noise-([0-9]{1,9})")
DEFAULT_IMAGE_PX = 224
"""Side of made pictures where an atlas does not say what its subject reads."""
MOST_CHARACTERS = 200
"""Longest image id that is looked up."""
PAGE_SIZE = 24
"""Images of the atlas on one page of the chooser."""
NOT_SHARED = "the licence of these images allows no copies"
"""Why an atlas made with ``share = "ids"`` shows no pictures."""
TILE_PX, TILE_LINE_PX = 128, 13
TILE_CHARACTERS, TILE_LINES = 20, 4
_KEPT = {"Cache-Control": "public, max-age=31536000, immutable"}


def normal(image_id: str | None) -> str:
    """The one spelling of an image id: the blank image is ""."""
    return BLANK if image_id in (None, "blank") else str(image_id)[:MOST_CHARACTERS]


def is_made(image_id: str) -> bool:
    """Whether the picture is drawn here: blank, black or noise."""
    wanted = normal(image_id)
    return wanted in (BLANK, BLACK) or NOISE_PATTERN.fullmatch(wanted) is not None


def is_of_atlas(services: Services, image_id: str) -> bool:
    """Whether the atlas holds an image of this id."""
    try:
        services.store.image_bytes(normal(image_id))
    except KeyError:
        return False
    return True


def open_picture(services: Services, image_id: str) -> Image.Image | None:
    """The pixels, RGB and upright; None is the blank image, which the subject model makes itself.

    Raises ImageMissing, with what to do, for an upload that is gone and for an id nobody knows.
    """
    wanted = normal(image_id)
    if wanted == BLANK:
        return None
    if uploads.is_upload(wanted):
        return uploads.SHELF.open(wanted)
    if is_made(wanted):
        return _made(wanted, _side_px(services))
    try:
        data = services.store.image_bytes(wanted)
    except KeyError as error:
        raise ImageMissing(f"This atlas holds no image {wanted!r}. Choose one of the pictures shown.") from error
    if data is None:
        raise ImageMissing(
            f"Image {wanted!r} is not in this atlas: {NOT_SHARED}. Upload it, or choose another picture."
        )
    return open_image(data, name=f"image {wanted}")


def require(services: Services, image_id: str) -> str:
    """The normal id of a picture that is here. Raises ImageMissing."""
    wanted = normal(image_id)
    if uploads.is_upload(wanted):
        uploads.SHELF.get(wanted)
    elif not is_made(wanted) and not is_of_atlas(services, wanted):
        raise ImageMissing(f"This atlas holds no image {wanted!r}. Choose one of the pictures shown.")
    return wanted


def address(services: Services, image_id: str) -> str:
    """Where a browser finds the picture; it need not be there (an upload may be gone)."""
    wanted = normal(image_id)
    if uploads.is_upload(wanted):
        return uploads.address(wanted)
    if is_made(wanted):
        return addresses.data(f"made/{quote(wanted or 'blank', safe='')}", services.version)
    return addresses.image(wanted, services.version)


def name(image_id: str) -> str:
    """What to call the picture when speaking to people."""
    image_id = normal(image_id)
    if image_id == BLANK:
        return "the blank image"
    if image_id == BLACK:
        return "a black image"
    noise = NOISE_PATTERN.fullmatch(image_id)
    if noise:
        return f"noise (seed {int(noise[1])})"
    return "the uploaded picture" if uploads.is_upload(image_id) else f"image {image_id}"


def size(services: Services, image_id: str) -> tuple[int, int]:
    """Width and height in pixels, for the shape of its frame. Raises ImageMissing."""
    wanted = normal(image_id)
    if uploads.is_upload(wanted):
        kept = uploads.SHELF.get(wanted)
        return kept.width, kept.height
    if is_made(wanted):
        return _side_px(services), _side_px(services)
    picture = open_picture(services, wanted)
    assert picture is not None, "only the blank image has no pixels of its own"
    return picture.size


def _side_px(services: Services) -> int:
    return int(services.meta.get("image_px") or DEFAULT_IMAGE_PX)


def _tile(image_id: str) -> str:
    """An SVG that stands for a picture which may not be shown: its id, and why."""
    lines = [*textwrap.wrap(image_id, TILE_CHARACTERS)[:TILE_LINES], "", *textwrap.wrap(NOT_SHARED, TILE_CHARACTERS)]
    first = (TILE_PX - TILE_LINE_PX * (len(lines) - 1)) / 2
    words = "".join(
        f'<text x="{TILE_PX / 2:g}" y="{first + TILE_LINE_PX * row:g}">{html.escape(line)}</text>'
        for row, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {TILE_PX} {TILE_PX}" width="{TILE_PX}" '
        f'height="{TILE_PX}" role="img"><rect width="100%" height="100%" fill="#e8e8ee"/><g fill="#3a3a46" '
        f'font-family="sans-serif" font-size="{TILE_LINE_PX * 0.75:g}" text-anchor="middle" '
        f'dominant-baseline="middle">{words}</g></svg>'
    )


def _made(wanted: str, side: int) -> Image.Image:
    noise = NOISE_PATTERN.fullmatch(wanted)
    if noise:
        rng = np.random.default_rng(int(noise[1]))
        return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return Image.new("RGB", (side, side), "black" if wanted == BLACK else "white")


# what the server answers ---------------------------------------------------------------------------------------------


def serve_image(services: Services, request: Request) -> Response:
    """``image/<id>``: a picture of the atlas; a tile with its id where the atlas carries no pictures.

    Raises KeyError for ids that are not the atlas's.
    """
    image_id = request.path_params["image_id"]
    data = services.store.image_bytes(image_id)
    if data is None:
        return Response(_tile(image_id), media_type="image/svg+xml", headers=_KEPT)
    return Response(data, media_type="image/webp", headers=_KEPT)


def serve_made(services: Services, request: Request) -> Response:
    """``made/<id>``: blank, black or noise as the subject model reads it. Raises KeyError for other names."""
    asked = normal(request.path_params["image_id"])
    if not is_made(asked):
        raise KeyError(f"{asked} is not a picture that is made here")
    stream = io.BytesIO()
    _made(asked, _side_px(services)).save(stream, "WEBP", lossless=True, method=0)
    return Response(stream.getvalue(), media_type="image/webp", headers=_KEPT)


def serve_page(services: Services, request: Request) -> Response:
    """``images/<page>.json``: the ids of one page of the atlas's images, and how many there are in all."""
    ids = services.store.image_ids
    start = int(request.path_params["page"]) * PAGE_SIZE
    shown = ids[start : start + PAGE_SIZE]
    found = {
        "total": len(ids),
        "size": PAGE_SIZE,
        "images": [{"id": one, "src": address(services, one)} for one in shown],
    }
    return JSONResponse(found, headers=_KEPT)
