"""A row of pictures to choose one from: the blank image and a feature's exemplars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.components import addresses
from app.components.exemplars import pack_grid
from app.components.numbers import number
from backend.feature_store import ExemplarRecord

TEMPLATE = '<fieldset class="ico-picker"></fieldset>'
SCRIPT = """
window.iconoscopePicker.mount(element.querySelector('fieldset'), props, watch, () => trigger('change'));
"""


def image_picker(static_version: str, elem_id: str) -> gr.HTML:
    """Value: ``{choices: [...], selected: image id or ""}``. Emits ``change``; "" is the blank image."""
    return gr.HTML(
        value=picker_value((), "", 1.0, ""),
        html_template=TEMPLATE,
        js_on_load=SCRIPT,
        head=f'<script src="{addresses.static("picker.js", static_version)}"></script>',
        apply_default_css=False,
        elem_id=elem_id,
    )


def picker_value(exemplars: Sequence[ExemplarRecord], selected: str, maximum: float, version: str) -> dict[str, Any]:
    """The choices as plain data; words are set by picker.js with textContent."""
    choices: list[dict[str, Any]] = [{"id": "", "label": "Blank"}]
    for exemplar in exemplars:
        rows, cols = exemplar.grid.shape
        choices.append(
            {
                "id": exemplar.image_id,
                "label": f"#{exemplar.rank + 1}",
                "alt": f"exemplar {exemplar.rank + 1}, maximum activation {number(exemplar.activation_max)}",
                "src": addresses.image(exemplar.image_id, version),
                "grid": pack_grid(exemplar.grid),
                "rows": rows,
                "cols": cols,
                "maximum": maximum,
            }
        )
    known = {choice["id"] for choice in choices}
    return {"choices": choices, "selected": selected if selected in known else ""}


def chosen_image(value: Any) -> str | None:
    """The image id the visitor chose; None is the blank image."""
    selected = value.get("selected") if isinstance(value, dict) else None
    return selected if isinstance(selected, str) and selected else None
