"""A place for pages that the server builds, shown as they come."""

from __future__ import annotations

import gradio as gr

from app.components.markup import Markup

TEMPLATE = "<span hidden></span>"
SCRIPT = """
const show = () => window.iconoscope.place(element, props.value);
watch('value', show);
show();
"""


def built(page: Markup, elem_id: str) -> gr.HTML:
    """A component whose value is a page, written by :func:`app.components.markup.h`, which escapes every text.

    The template is constant (decision 004). Left to Gradio, a page of a thousand elements is compared with the one
    before, element by element, which takes longer than to make it anew.
    """
    return gr.HTML(str(page), html_template=TEMPLATE, js_on_load=SCRIPT, elem_id=elem_id, apply_default_css=False)
