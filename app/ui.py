"""The page: header and tabs, composed; what happens on a click is in each tab and in app/wiring.py."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.api import register
from app.catalogue import Catalogue
from app.components.header import header
from app.components.navigator import navigator
from app.page import Page
from app.tabs import TABS
from app.wiring import wire


def build_ui(catalogue: Catalogue) -> gr.Blocks:
    """The explorer as Gradio blocks; nothing is loaded but the atlases."""
    services = catalogue.default
    title = f"Iconoscope · {services.meta.get('title') or services.subject_name}"
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as blocks:
        wire(blocks, catalogue, layout(catalogue))
        register(catalogue)
    return blocks


def layout(catalogue: Catalogue) -> Page:
    """The components of the page, filled for the default atlas. Call inside the Blocks context."""
    services = catalogue.default
    bridge = navigator(elem_id="ico-navigator")
    head = gr.HTML(str(header(services, catalogue)), apply_default_css=False)
    # "hidden" keeps it in the page, so that events can read it.
    atlas = gr.Textbox(services.key, visible="hidden", elem_id="ico-atlas")
    items: dict[str, gr.Tab] = {}
    parts: dict[str, Any] = {}
    with gr.Tabs(selected="map", elem_id="ico-tabs") as tabs:
        for name, module in TABS.items():
            with gr.Tab(module.TITLE, id=name) as items[name]:
                parts[name] = module.build(services)
    return Page(tabs=tabs, items=items, atlas=atlas, header=head, navigator=bridge, parts=parts)
