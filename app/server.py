"""What the explorer serves beside Gradio: the map as one binary file, pictures by id, scripts and styles.

Every address is below ``iconoscope/``; nothing here reads a path from a visitor. Data addresses carry the atlas
version, so browsers may keep them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import bundle, compare_files, embedding, map_data, map_files, pictures, uploads
from app.catalogue import Catalogue
from app.components.addresses import BASE, data, static
from app.feature_document import feature_document
from app.services import Services
from app.url_fields import by_name, parse
from backend.errors import IconoscopeError

ICON = "icon.svg"
PLOTLY = "plotly.min.js"
_KEPT = {"Cache-Control": "public, max-age=31536000, immutable"}
_WEBP = "image/webp"
_BUNDLES = {bundle.SCRIPT: "text/javascript", bundle.STYLE: "text/css"}
# Gradio's own pages need inline and evaluated scripts; what this policy forbids is any address but this server's.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode("ascii"),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
}


def plotly_path() -> Path:
    """plotly.min.js of the installed plotly package."""
    return Path(str(files("plotly") / "package_data" / PLOTLY))


Answer = Callable[[Services, Request], Response]


def _feature(services: Services, request: Request) -> Response:
    return JSONResponse(map_data.hover_card(services, request.path_params["feature"]), headers=_KEPT)


def _document(services: Services, request: Request) -> Response:
    # Not kept for ever: it names the atlas as this server does.
    return JSONResponse(feature_document(services, request.path_params["feature"]))


def _synthetic(services: Services, request: Request) -> Response:
    path = request.path_params
    return _picture(services.store.synthetic(path["feature"], path["arm"])[path["place"]].webp)


DATA: dict[str, Answer] = {
    "points.bin": map_files.points,
    "map.json": map_files.info,
    "column/{field}.bin": map_files.column,
    "feature/{feature:int}.json": _feature,
    "feature/{feature:int}/document.json": _document,
    "words.json": map_files.words,
    "image/{image_id:path}": pictures.serve_image,
    "images/{page:int}.json": pictures.serve_page,
    "made/{image_id}": pictures.serve_made,
    "synthetic/{feature:int}/{arm}/{place:int}": _synthetic,
    "paired/{across}/{up}/{metric}.bin": compare_files.points,
    "paired/{across}/{up}/{metric}.json": compare_files.summary,
    "said/{feature:int}.json": compare_files.said,
}
"""What an atlas serves below ``iconoscope/<version>/``. The version names the content, so browsers may keep it."""


ANSWERS = "/gradio_api/run/"
"""Where events that do not wait in line are answered."""
MAP_FILES = ("points.bin", "map.json")
"""What the map cannot start without."""


def routes(catalogue: Catalogue) -> list[BaseRoute]:
    """All routes of our own, in front of Gradio's."""

    def of_atlas(answer: Answer) -> Callable[[Request], Response]:
        return _found(lambda request: answer(catalogue.by_version(request.path_params["version"]), request))

    of_atlases = [Route(f"/{BASE}{{version:str}}/{path}", of_atlas(answer)) for path, answer in DATA.items()]
    embed = Route(f"/{BASE}embed/{{key}}/{{feature:int}}", _found(lambda request: _embed(catalogue, request)))
    return [Route(f"/{BASE}static/{{name}}", _static), embed, *uploads.routes(), *of_atlases]


def _embed(catalogue: Catalogue, request: Request) -> Response:
    key = request.path_params["key"]
    if key not in catalogue:
        raise KeyError(f"no atlas {key} is served here")
    switches = parse(by_name([embedding.SWITCHES]), request.query_params)
    page = embedding.document(catalogue.get(key), request.path_params["feature"], switches)
    return HTMLResponse(page, headers={"Content-Security-Policy": embedding.POLICY})


def _picture(data: bytes) -> Response:
    return Response(data, media_type=_WEBP, headers=_KEPT)


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name == PLOTLY:
        return FileResponse(plotly_path(), media_type="text/javascript", headers=_KEPT)
    if name in _BUNDLES:
        return Response(bundle.content(name), media_type=_BUNDLES[name], headers=_KEPT)
    if name not in (*bundle.SCRIPTS, *bundle.STYLES, *bundle.EMBED, ICON):
        raise HTTPException(404)
    return FileResponse(bundle.STATIC_DIR / name, headers=_KEPT)


def _found(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Turn what an atlas does not hold into 404 with a plain sentence."""

    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except (IconoscopeError, KeyError, IndexError) as error:
            return JSONResponse({"error": str(error)}, status_code=404)

    return answer


def preloads(services: Services) -> str:
    """The ``Link`` header of the page: what the map needs, fetched while Gradio starts instead of after it."""
    files = (f"<{static(bundle.STYLE)}>; rel=preload; as=style", f"<{static(bundle.SCRIPT)}>; rel=preload; as=script")
    # As the scripts fetch them; a preload of another kind would not be used.
    fetched = (f"<{data(name, services.version)}>; rel=preload; as=fetch; crossorigin" for name in MAP_FILES)
    return ", ".join([*files, *fetched])


class SafeHeaders:
    """Adds the headers that keep a page to this server (a content policy, no sniffing, no referrer), and to the page
    itself what it may fetch early."""

    def __init__(self, app: ASGIApp, catalogue: Catalogue) -> None:
        self.app = app
        self.catalogue = catalogue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                # A route may say its own policy, which is then the only one: two would both have to allow.
                given = list(message.get("headers", ()))
                named = {name.lower() for name, _ in given}
                message["headers"] = [*given, *(one for one in _HEADERS.items() if one[0] not in named)]
                if scope["path"] == "/" and scope["method"] == "GET":
                    message["headers"].append((b"link", self._early(scope).encode("ascii")))
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)

    def _early(self, scope: Scope) -> str:
        key = QueryParams(scope["query_string"]).get("atlas", "")
        return preloads(self.catalogue.get(key) if key in self.catalogue else self.catalogue.default)


class PageCompression:
    """Compresses what Gradio sends as it is: the page itself, 200 kB of settings, and what events answer, of which the
    page of a feature takes 135 kB. Streams are left alone, and so is all that is compressed already."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        # The lightest level: a tenth of the size after a millisecond.
        self.compressed = GZipMiddleware(app, minimum_size=8192, compresslevel=1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_whole = scope["type"] == "http" and (scope["path"] == "/" or scope["path"].startswith(ANSWERS))
        await (self.compressed if is_whole else self.app)(scope, receive, send)


def middleware(catalogue: Catalogue) -> list[Middleware]:
    return [Middleware(SafeHeaders, catalogue=catalogue), Middleware(PageCompression)]
