"""The page's own scripts and styles: which there are, in which order, and as the two files that the browser fetches."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path

STATIC_DIR = Path(__file__).parent / "static"
SCRIPTS = (
    "iconoscope.js",
    "notices.js",
    "busy.js",
    "webgl.js",
    "exemplars.js",
    "exemplar_regions.js",
    "exemplar_dialog.js",
    "map_points.js",
    "map_layout.js",
    "map_index.js",
    "map_camera.js",
    "map_canvas.js",
    "map_plotly.js",
    "map_painting.js",
    "map_overlay.js",
    "map_gestures.js",
    "map_labels.js",
    "map_colours.js",
    "map_side.js",
    "map_words.js",
    "map_filters.js",
    "map_tree.js",
    "map_list.js",
    "map_hits.js",
    "map_card.js",
    "map_places.js",
    "map_hands.js",
    "map.js",
    "search.js",
    "feature.js",
    "compare.js",
    "compare_scatter.js",
    "blind.js",
    "image_chooser.js",
    "patch_drawing.js",
    "patch_picker.js",
    "inspect.js",
    "steer_set.js",
)
"""In the order in which they run: each finds the ones before it."""
STYLES = (
    "tokens.css",
    "base.css",
    "map.css",
    "pages.css",
    "search.css",
    "pictures.css",
    "inspect.css",
    "feature.css",
    "compare.css",
    "steer.css",
)
EMBED = ("embed.css", "embed.js")
"""Of the framed page of one feature only; the explorer's own page does not load them."""
SCRIPT, STYLE = "explorer.js", "explorer.css"
"""All scripts and all styles, each as one file: forty requests would cost a distant visitor seconds."""


@cache
def content(name: str) -> bytes:
    """The bytes of :data:`SCRIPT` or :data:`STYLE`."""
    parts = {SCRIPT: SCRIPTS, STYLE: STYLES}[name]
    return b"\n".join((STATIC_DIR / part).read_bytes() for part in parts)


@cache
def version() -> str:
    """Changes whenever a script or style changes, Plotly's included: twelve hex digits."""
    digest = hashlib.sha256(content(SCRIPT) + content(STYLE) + installed("plotly").encode("ascii"))
    for name in EMBED:
        digest.update((STATIC_DIR / name).read_bytes())
    return digest.hexdigest()[:12]
