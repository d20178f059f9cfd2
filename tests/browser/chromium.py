"""Which Chromium the browser tests and benchmarks drive, and how it is started."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""WebGL on the CPU: the map is drawn as for a visitor, on a machine without a graphics card."""
NO_GL = ("--disable-gpu", "--disable-3d-apis", "--disable-webgl", "--disable-software-rasterizer")
"""No WebGL at all."""
INSTALL = "no Chromium: apt-get install chromium, or: python -m playwright install chromium"


def executable() -> str | None:
    """The system's Chromium, if there is one."""
    return next((path for path in map(shutil.which, NAMES) if path), None)
