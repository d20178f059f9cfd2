"""A picture to work on, chosen by button, upload, drop or paste; drawn by static/image_chooser.js.

How to use it:

    chooser = image_chooser(elem_id="ico-steer-image")          # when the page is built
    {chooser: chooser_value(services, "noise-3", exemplars=..., maximum=...)}   # in restore() and in handlers
    hub.on([chooser.change], handler, [chooser])                                # handler(services, value)
    image_id = chosen_image(value)                                              # "" is the blank image
    image = pictures.open_picture(services, image_id)                           # None is the blank image
    hub.follow(chooser, Text("image"), js="(value) => value?.selected ?? ''")

An id that comes back from a browser is anybody's word: open_picture and pictures.require check it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app import pictures, uploads
from app.components import addresses
from app.components.exemplars import pack_grid
from app.components.numbers import number
from app.services import Services
from backend.feature_store import ExemplarRecord

TEMPLATE = '<section class="ico-chooser"></section>'
SCRIPT = """
window.iconoscopeImageChooser.mount(element.querySelector('section'), props, watch);
"""
MADE = (("", "Blank"), ("black", "Black"), ("noise-1", "Noise"))


def image_chooser(elem_id: str) -> gr.HTML:
    """Value: ``{choices, selected, …}`` of :func:`chooser_value`. Emits ``change`` when the visitor chooses."""
    return gr.HTML(
        value={"choices": [], "selected": ""},
        html_template=TEMPLATE,
        js_on_load=SCRIPT,
        apply_default_css=False,
        elem_id=elem_id,
    )


def chooser_value(
    services: Services,
    selected: str = "",
    *,
    exemplars: Sequence[ExemplarRecord] = (),
    maximum: float = 1.0,
    legend: str = "Image",
) -> dict[str, Any]:
    """What can be chosen, as plain data; words are set by the script with textContent.

    ``selected`` is offered too if it is not among the rest; whether it is still here the caller finds out by
    ``pictures.require``. ``maximum`` is the feature's, so that the exemplars' heatmaps share one scale.
    """
    selected = pictures.normal(selected)
    value = chooser_choices(services, exemplars=exemplars, maximum=maximum, legend=legend)
    choices = value["choices"]
    if selected not in {choice["id"] for choice in choices}:
        noise = pictures.NOISE_PATTERN.fullmatch(selected)
        label = "Yours" if uploads.is_upload(selected) else f"Noise {int(noise[1])}" if noise else selected
        choices.append({**_choice(services, selected, label), "made": noise is not None})
    return {**value, "selected": selected}


def chooser_choices(
    services: Services, *, exemplars: Sequence[ExemplarRecord] = (), maximum: float = 1.0, legend: str = "Image"
) -> dict[str, Any]:
    """A message to a chooser: other choices, while what is selected stays."""
    choices = [{**_choice(services, image_id, label), "made": True} for image_id, label in MADE]
    choices += [_exemplar(services, one, maximum) for one in exemplars]
    return {
        "choices": choices,
        "legend": legend,
        "images": addresses.data("images/", services.version),
        "upload": f"{addresses.BASE}upload",
        "limit": uploads.MAX_UPLOAD_BYTES,
    }


def chosen_image(value: Any) -> str:
    """The image id the visitor chose, in its normal spelling; "" is the blank image. Unchecked."""
    selected = value.get("selected") if isinstance(value, dict) else None
    return pictures.normal(selected if isinstance(selected, str) else None)


def _choice(services: Services, image_id: str, label: str) -> dict[str, Any]:
    return {
        "id": image_id,
        "label": label,
        "alt": pictures.name(image_id),
        "src": pictures.address(services, image_id),
    }


def _exemplar(services: Services, exemplar: ExemplarRecord, maximum: float) -> dict[str, Any]:
    rows, cols = exemplar.grid.shape
    return {
        **_choice(services, exemplar.image_id, f"#{exemplar.rank + 1}"),
        "alt": f"exemplar {exemplar.rank + 1}, maximum activation {number(exemplar.activation_max)}",
        "grid": pack_grid(exemplar.grid),
        "rows": rows,
        "cols": cols,
        "maximum": maximum,
    }
