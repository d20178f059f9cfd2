"""The files of the map as answers: made once per atlas, compressed once, sent compressed to those who accept it."""

from __future__ import annotations

import gzip
import json
import threading
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response

from app import map_data
from app.services import Services
from backend.errors import UnknownFeature

KEPT = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
_BINARY, _JSON = "application/octet-stream", "application/json"
_LEVEL = 6


def prepare(services: Services) -> None:
    """Make in the background what every map asks for first: the columns of 100,000 features take seconds."""
    threading.Thread(target=_body, args=(services, "info", False, True), name="map-files", daemon=True).start()


def points(services: Services, request: Request) -> Response:
    return _answer(services, request, "points", _BINARY)


def info(services: Services, request: Request) -> Response:
    return _answer(services, request, "info", _JSON)


def column(services: Services, request: Request) -> Response:
    """Raises KeyError for a colouring that does not exist."""
    return _answer(services, request, request.path_params["field"], _BINARY, is_column=True)


def words(services: Services, request: Request) -> Response:
    """Words of the features in ``ids``, joined by dots. Raises UnknownFeature."""
    parts = request.query_params.get("ids", "").split(".")[: map_data.MOST_WORDS]
    if not all(part.isascii() and part.isdigit() and len(part) <= 10 for part in parts):
        raise UnknownFeature("ids holds whole numbers joined by dots, e.g. ids=3.14.15.")
    found = map_data.words(services, [int(part) for part in parts])
    return Response(json.dumps(found), media_type=_JSON, headers=KEPT)


def _answer(services: Services, request: Request, name: str, media_type: str, is_column: bool = False) -> Response:
    zipped = "gzip" in request.headers.get("accept-encoding", "").lower()
    headers = {**KEPT, "Content-Encoding": "gzip"} if zipped else KEPT
    return Response(_body(services, name, is_column, zipped), media_type=media_type, headers=headers)


@lru_cache(maxsize=128)
def _body(services: Services, name: str, is_column: bool, zipped: bool) -> bytes:
    if zipped:
        return gzip.compress(_body(services, name, is_column, False), _LEVEL, mtime=0)
    if is_column:
        return map_data.column(services, name)
    if name == "points":
        return services.atlas.points()
    return json.dumps(map_data.info(services), allow_nan=False).encode()
