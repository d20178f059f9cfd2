"""A picture with its patch grid, on which a visitor chooses patches; drawn by static/patch_picker.js.

How to use it:

    picker = patch_picker(elem_id="ico-steer-patches")         # when the page is built
    {picker: picker_value(services, image_id, patches=(3, 4))}                 # in restore() and in handlers
    hub.on([picker.change], handler, [picker])                                 # after each tap, drag or key
    patches = chosen_patches(value, services.store.grid)                       # sorted, unique, inside the grid
    hub.follow(picker, Ids("painted", most=4096), js="(value) => (value?.patches ?? []).join('.')")

A heatmap may lie over the picture: ``picker_value(..., heat=heat_of(grid, maximum, "feature 12"))``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr
import numpy as np
from jaxtyping import Float

from app import pictures
from app.components.exemplars import pack_grid
from app.services import Services
from backend.types import PatchGrid

TEMPLATE = '<section class="ico-patches"></section>'
SCRIPT = """
window.iconoscopePatchPicker.mount(element.querySelector('section'), props, watch);
"""


def patch_picker(elem_id: str) -> gr.HTML:
    """Value: ``{image, src, alt, rows, cols, patches, heat}``. Emits ``change`` when the visitor chooses patches."""
    return gr.HTML(
        value={"image": "", "src": "", "alt": "", "rows": 1, "cols": 1, "patches": [], "heat": None},
        html_template=TEMPLATE,
        js_on_load=SCRIPT,
        apply_default_css=False,
        elem_id=elem_id,
    )


def picker_value(
    services: Services, image_id: str, patches: Iterable[int] = (), heat: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The picture with its grid, and the chosen patches (those outside the grid are dropped)."""
    grid = services.store.grid
    return {
        "image": pictures.normal(image_id),
        "src": pictures.address(services, image_id),
        "alt": pictures.name(image_id),
        "rows": grid.rows,
        "cols": grid.cols,
        "patches": list(inside(patches, grid)),
        "heat": heat,
    }


def heat_of(grid: Float[np.ndarray, "row col"], maximum: float, label: str) -> dict[str, Any]:
    """A heatmap for :func:`picker_value`; ``maximum`` is the activation drawn brightest."""
    return {"grid": pack_grid(grid), "maximum": float(maximum), "label": label}


def inside(patches: Iterable[int], grid: PatchGrid) -> tuple[int, ...]:
    """Flat row-major patch numbers, sorted and unique, without those the grid does not have."""
    return tuple(sorted({int(one) for one in patches if 0 <= int(one) < grid.n_patches}))


def chosen_patches(value: Any, grid: PatchGrid) -> tuple[int, ...]:
    """The patches a browser sent, as :func:`inside`; whatever is no whole number is dropped. () means none chosen."""
    sent = value.get("patches") if isinstance(value, dict) else None
    if not isinstance(sent, list):
        return ()
    return inside((one for one in sent if isinstance(one, int) and not isinstance(one, bool)), grid)
