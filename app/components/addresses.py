"""Addresses inside the explorer, relative so that they work behind any prefix, with every part percent-encoded."""

from __future__ import annotations

from urllib.parse import quote, urlencode

BASE = "iconoscope/"
"""Everything the explorer serves beside Gradio lives below this."""


def image(image_id: str, version: str) -> str:
    return f"{BASE}image/{quote(image_id, safe='')}?v={quote(version, safe='')}"


def synthetic(feature: int, arm: str, place: int, version: str) -> str:
    return f"{BASE}synthetic/{feature}/{quote(arm, safe='')}/{place}?v={quote(version, safe='')}"


def static(name: str, version: str) -> str:
    return f"{BASE}static/{name}?v={version}"


def page(**fields: str | int | float | None) -> str:
    """A permalink: the address of a state of the explorer. Absent and empty fields are left out."""
    return "?" + urlencode({name: value for name, value in fields.items() if value not in (None, "")})
