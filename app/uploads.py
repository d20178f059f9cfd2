"""Pictures that visitors upload: checked by their content, kept in memory only, named by what they show.

POST ``iconoscope/upload`` takes the file's bytes as its body and answers ``{id, width, height}`` or ``{error}``;
GET ``iconoscope/upload/<id>`` gives the picture back. An id is derived from the pixels, so the same file uploaded
again, even after a restart, has the same id and every address that names it works again.

What a stranger can spend here is bounded: bytes while they arrive, pixels before they are decoded, one decoding at a
time, few requests at once, and a shelf of 64 small pictures from which nobody can push out another visitor's.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

from anyio import to_thread
from PIL import Image
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from app.components.addresses import BASE
from backend.errors import ImageFormatUnknown, ImageMissing, ImageTooLarge, ImageUnreadable
from backend.images import open_image

MAX_UPLOAD_BYTES = 20 * 1024 * 1024
MAX_UPLOAD_PIXELS = 40_000_000
MAX_SIDE_PX = 1024
"""Kept pictures are no larger; no vision tower here reads more."""
MAX_ELONGATION = 16
"""Longest side over shortest: beyond it nothing can be seen once the model has squeezed it into a square."""
MAX_KEPT = 64
MAX_AT_ONCE = 8
MAX_AT_ONCE_EACH = 3
BODY_TIMEOUT_S = 60.0
LOSSLESS_PIXELS = 300_000
"""Up to this size a picture is kept without loss, beyond it in WebP of high quality: what is shown is what is read."""
HEADER = "x-iconoscope"
"""Sent by our own scripts and clients; another site cannot send it without asking this server first."""
ID_PATTERN = re.compile(r"upload-[0-9a-f]{16}")
GONE = (
    "This picture was uploaded and is no longer here: uploads are kept in memory only, until the server restarts or "
    "others take their place. Upload the same file again, and this address works again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One kept picture."""

    image_id: str
    webp: bytes
    width: int
    height: int
    owner: str
    """Who brought it, as far as the network tells; only used to share the shelf fairly."""


class Shelf:
    """The uploads in memory, least recently used first. Thread-safe."""

    def __init__(self, n_most: int = MAX_KEPT) -> None:
        self._n_most = n_most
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._kept

    def add(self, data: bytes, owner: str = "") -> Upload:
        """Check, shrink and keep a picture. Raises ImageUnreadable and its kinds; then nothing is kept."""
        # One at a time: a large picture takes hundreds of megabytes while it is decoded.
        with self._decoding:
            upload = _prepared(data, owner)
        with self._lock:
            self._kept[upload.image_id] = upload
            self._kept.move_to_end(upload.image_id)
            while len(self._kept) > self._n_most:
                self._drop_one()
        return upload

    def _drop_one(self) -> None:
        """Drop the least recently used picture of whoever has most: a flood only pushes out its own."""
        shares = Counter(upload.owner for upload in self._kept.values())
        most = max(shares.values())
        greedy = {owner for owner, n in shares.items() if n == most}
        del self._kept[next(name for name, upload in self._kept.items() if upload.owner in greedy)]

    def get(self, image_id: str) -> Upload:
        """A kept picture. Raises ImageMissing with what to do about it."""
        with self._lock:
            upload = self._kept.get(image_id)
            if upload is None:
                raise ImageMissing(GONE)
            self._kept.move_to_end(image_id)
            return upload

    def open(self, image_id: str) -> Image.Image:
        """The pixels of a kept picture. Raises ImageMissing."""
        return open_image(self.get(image_id).webp, name="the uploaded picture")

    def clear(self) -> None:
        """Forget all pictures."""
        with self._lock:
            self._kept.clear()


SHELF = Shelf()
"""One per process: a picture belongs to its visitor, not to an atlas."""


def is_upload(image_id: str) -> bool:
    """Whether an image id has the form of an upload's."""
    return ID_PATTERN.fullmatch(image_id) is not None


def address(image_id: str) -> str:
    return f"{BASE}upload/{image_id}"


def _prepared(data: bytes, owner: str) -> Upload:
    image = open_image(data, name="the picture", max_bytes=MAX_UPLOAD_BYTES, max_pixels=MAX_UPLOAD_PIXELS)
    if max(image.size) > MAX_ELONGATION * min(image.size):
        raise ImageUnreadable(f"the picture has {image.width} x {image.height} pixels: too narrow to show anything")
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()[:16]
    stream = io.BytesIO()
    if image.width * image.height <= LOSSLESS_PIXELS:
        image.save(stream, "WEBP", lossless=True, quality=40, method=2)
    else:
        image.save(stream, "WEBP", quality=92, method=2)
    webp = stream.getvalue()
    return Upload(image_id=f"upload-{digest}", webp=webp, width=image.width, height=image.height, owner=owner)


# the routes ----------------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """An answer other than 200, in words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Receiver:
    """Takes uploads off the wire, few at a time."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._now: Counter[str] = Counter()

    async def receive(self, request: Request) -> Response:
        """POST: the bytes of one picture. 400 damaged, 403 another site, 413 too large, 415 no picture, 429 busy."""
        owner = request.client.host if request.client else ""
        try:
            _require_same_origin(request)
            self._require_room(owner)
            self._now[owner] += 1
            try:
                data = await asyncio.wait_for(_body(request), BODY_TIMEOUT_S)
                upload = await to_thread.run_sync(self._shelf.add, data, owner)
            finally:
                self._now[owner] -= 1
                self._now = +self._now
        except _Refused as refused:
            return _refusal(refused.status, str(refused))
        except (TimeoutError, ClientDisconnect):
            return _refusal(408, "The upload stopped before it was complete. Try again.")
        except ImageTooLarge as error:
            return _refusal(413, f"{_sentence(error)} Make it smaller and try again.")
        except ImageFormatUnknown as error:
            return _refusal(415, f"{_sentence(error)} Save it as JPEG or PNG and try again.")
        except ImageUnreadable as error:
            return _refusal(400, _sentence(error))
        return JSONResponse({"id": upload.image_id, "width": upload.width, "height": upload.height})

    def _require_room(self, owner: str) -> None:
        if self._now[owner] >= MAX_AT_ONCE_EACH or sum(self._now.values()) >= MAX_AT_ONCE:
            raise _Refused(429, "Too many pictures are being uploaded at this moment. Try again in a few seconds.")

    def show(self, request: Request) -> Response:
        """GET: a kept picture, or 404 with what to do."""
        try:
            upload = self._shelf.get(request.path_params["image_id"])
        except ImageMissing as error:
            return _refusal(404, str(error))
        # Private: no proxy may keep what a visitor uploaded.
        return Response(upload.webp, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})


def routes(shelf: Shelf = SHELF) -> list[BaseRoute]:
    """The two routes; they come before those that carry an atlas version."""
    receiver = Receiver(shelf)
    return [
        Route(f"/{BASE}upload", receiver.receive, methods=["POST"]),
        Route(f"/{BASE}upload/{{image_id:str}}", receiver.show, methods=["GET"]),
    ]


def _require_same_origin(request: Request) -> None:
    """Let our own pages in and programs that say who they are; no page of another site."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        allowed = site == "same-origin"
    elif origin is not None:
        allowed = urlsplit(origin).netloc == request.headers.get("host")
    else:
        allowed = True
    if not allowed or HEADER not in request.headers:
        raise _Refused(403, "Pictures can only be uploaded from this explorer's own pages.")


async def _body(request: Request) -> bytes:
    """The request's body; stops reading as soon as it is known to be too long."""
    limit = f"The picture is larger than {MAX_UPLOAD_BYTES // 2**20} MiB. Make it smaller and try again."
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MAX_UPLOAD_BYTES:
        raise _Refused(413, limit)
    parts = bytearray()
    async for chunk in request.stream():
        parts += chunk
        if len(parts) > MAX_UPLOAD_BYTES:
            raise _Refused(413, limit)
    return bytes(parts)


def _sentence(error: Exception) -> str:
    text = str(error).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def _refusal(status: int, words: str) -> JSONResponse:
    headers = {"Cache-Control": "no-store", "Connection": "close"} if status != 404 else {"Cache-Control": "no-store"}
    return JSONResponse({"error": words}, status_code=status, headers=headers)
