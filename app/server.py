"""What the explorer serves beside Gradio: the map as one binary file, pictures by id, scripts and styles.

Every address is below ``iconoscope/``; nothing here reads a path from a visitor. Data addresses carry the atlas
version, so browsers may keep them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import map_data
from app.components.addresses import BASE
from app.services import Services
from backend.errors import IconoscopeError

STATIC_DIR = Path(__file__).parent / "static"
SCRIPTS = (
    "iconoscope.js",
    "exemplars.js",
    "map_layout.js",
    "map_labels.js",
    "map_side.js",
    "map_card.js",
    "map.js",
    "picker.js",
)
STYLES = ("tokens.css", "base.css", "map.css", "pages.css")
ICON = "icon.svg"
PLOTLY = "plotly.min.js"
_KEPT = {"Cache-Control": "public, max-age=31536000, immutable"}
_WEBP = "image/webp"
# Gradio's own pages need inline and evaluated scripts; what this policy forbids is any address but this server's.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)


def plotly_path() -> Path:
    """plotly.min.js of the installed plotly package."""
    return Path(str(files("plotly") / "package_data" / PLOTLY))


def static_version() -> str:
    """Changes whenever a script or style changes: twelve hex digits."""
    digest = hashlib.sha256()
    for name in (*SCRIPTS, *STYLES):
        digest.update((STATIC_DIR / name).read_bytes())
    return digest.hexdigest()[:12]


def routes(services: Services) -> list[BaseRoute]:
    """All routes of our own, in front of Gradio's."""
    store = services.store

    def points(_: Request) -> Response:
        return Response(services.atlas.points(), media_type="application/octet-stream", headers=_KEPT)

    def map_info(_: Request) -> Response:
        return JSONResponse(map_data.info(services), headers=_KEPT)

    def column(request: Request) -> Response:
        data = map_data.column(services, request.path_params["field"])
        return Response(data, media_type="application/octet-stream", headers=_KEPT)

    def feature(request: Request) -> Response:
        return JSONResponse(map_data.hover_card(services, request.path_params["feature"]))

    def cluster(request: Request) -> Response:
        return JSONResponse(map_data.cluster_features(services, request.path_params["cluster"]))

    def image(request: Request) -> Response:
        return Response(store.image_bytes(request.path_params["image_id"]), media_type=_WEBP, headers=_KEPT)

    def synthetic(request: Request) -> Response:
        path = request.path_params
        return Response(store.synthetic(path["feature"], path["arm"])[path["place"]].webp, media_type=_WEBP)

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name == PLOTLY:
            return FileResponse(plotly_path(), media_type="text/javascript", headers=_KEPT)
        if name not in (*SCRIPTS, *STYLES, ICON):
            raise HTTPException(404)
        return FileResponse(STATIC_DIR / name, headers=_KEPT)

    table: dict[str, Callable[[Request], Response]] = {
        "points.bin": points,
        "map.json": map_info,
        "column/{field}.bin": column,
        "feature/{feature:int}.json": feature,
        "cluster/{cluster:int}.json": cluster,
        "image/{image_id:path}": image,
        "synthetic/{feature:int}/{arm}/{place:int}": synthetic,
        "static/{name}": static,
    }
    return [Route(f"/{BASE}{path}", _found(endpoint)) for path, endpoint in table.items()]


def _found(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Turn what an atlas does not hold into 404 with a plain sentence."""

    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except (IconoscopeError, KeyError, IndexError) as error:
            return JSONResponse({"error": str(error)}, status_code=404)

    return answer


class SafeHeaders:
    """Adds the headers that keep a page to this server: a content policy, no sniffing, no referrer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"content-security-policy", _POLICY.encode("ascii")),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"same-origin"),
                ]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


def middleware() -> list[Middleware]:
    return [Middleware(SafeHeaders)]
