"""What the Compare tab fetches: two methods on one metric as points and in words, and what every arm says."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.services import Services
from app.tabs.compare import scatter

# The address carries the atlas version: what it names never changes.
_KEPT = {"Cache-Control": "public, max-age=31536000, immutable"}


def _pair(request: Request) -> tuple[str, str, str]:
    path = request.path_params
    return path["across"], path["up"], path["metric"]


def points(services: Services, request: Request) -> Response:
    """Binary, as :func:`app.tabs.compare.scatter.points` says. Raises KeyError."""
    return Response(scatter.points(services, *_pair(request)), media_type="application/octet-stream", headers=_KEPT)


def summary(services: Services, request: Request) -> Response:
    """Counts, medians, tests and extremes. Raises KeyError."""
    return JSONResponse(scatter.summary(services, *_pair(request)), headers=_KEPT)


def said(services: Services, request: Request) -> Response:
    """The texts and scores of every arm for one feature. Raises UnknownFeature."""
    return JSONResponse(scatter.said(services, request.path_params["feature"]), headers=_KEPT)
