"""The page: header and tabs, composed; what happens on a click is in app/wiring.py."""

from __future__ import annotations

import gradio as gr

from app.components.header import header
from app.components.navigator import navigator
from app.page import Page
from app.services import Services
from app.tabs import about, compare, feature, map, search, steer
from app.wiring import wire

TAB_NAMES = {
    "map": "Map",
    "search": "Search",
    "feature": "Feature",
    "steer": "Steer",
    "compare": "Compare",
    "about": "About",
}


def build_ui(services: Services, static_version: str) -> gr.Blocks:
    """The explorer as Gradio blocks; nothing is loaded but the atlas."""
    title = f"Iconoscope · {services.meta.get('title') or services.subject_name}"
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as blocks:
        wire(blocks, services, _layout(services, static_version))
    return blocks


def _layout(services: Services, static_version: str) -> Page:
    bridge = navigator(static_version, elem_id="ico-navigator")
    gr.HTML(str(header(services)), apply_default_css=False)
    # "hidden" keeps them in the page, so that their changes reach the address bar.
    current = gr.Textbox("map", visible="hidden", elem_id="ico-tab")
    shown_query = gr.Textbox("", visible="hidden", elem_id="ico-shown-query")
    colour = gr.Textbox("cluster", visible="hidden", elem_id="ico-colour")
    items: dict[str, gr.Tab] = {}
    with gr.Tabs(selected="map", elem_id="ico-tabs") as tabs:
        with gr.Tab(TAB_NAMES["map"], id="map") as items["map"]:
            map_tab = map.build(services, static_version)
        with gr.Tab(TAB_NAMES["search"], id="search") as items["search"]:
            search_tab = search.build(services)
        with gr.Tab(TAB_NAMES["feature"], id="feature") as items["feature"]:
            feature_tab = feature.build(services)
        with gr.Tab(TAB_NAMES["steer"], id="steer") as items["steer"]:
            steer_tab = steer.build(services, static_version)
        with gr.Tab(TAB_NAMES["compare"], id="compare") as items["compare"]:
            compare.build(services)
        with gr.Tab(TAB_NAMES["about"], id="about") as items["about"]:
            about.build(services)
    return Page(
        tabs=tabs,
        items=items,
        current=current,
        shown_query=shown_query,
        colour=colour,
        navigator=bridge,
        map=map_tab,
        search=search_tab,
        feature=feature_tab,
        steer=steer_tab,
    )
