"""Addresses inside the explorer, relative so that they work behind any prefix, with every part percent-encoded."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from app import bundle

BASE = "iconoscope/"
"""Everything the explorer serves beside Gradio lives below this."""


def data(path: str, version: str) -> str:
    """Data of the atlas of this version; ``path`` is already percent-encoded. The answer never changes."""
    return f"{BASE}{quote(version, safe='')}/{path}"


def image(image_id: str, version: str) -> str:
    return data(f"image/{quote(image_id, safe='')}", version)


def synthetic(feature: int, arm: str, place: int, version: str) -> str:
    return data(f"synthetic/{feature}/{quote(arm, safe='')}/{place}", version)


def static(name: str) -> str:
    """A script, a style or the icon."""
    return f"{BASE}static/{name}?v={bundle.version()}"


def page(**fields: str | int | float | None) -> str:
    """A permalink: the address of a state of the explorer. Absent and empty fields are left out."""
    return "?" + urlencode({name: value for name, value in fields.items() if value not in (None, "")})
