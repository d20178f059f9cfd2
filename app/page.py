"""The components of the whole page, as the wiring sees them."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from app.tabs.feature import FeatureTab
from app.tabs.map import MapTab
from app.tabs.search import SearchTab
from app.tabs.steer import SteerTab


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Tabs, and the hidden fields that the address bar follows."""

    tabs: gr.Tabs
    items: dict[str, gr.Tab]
    current: gr.Textbox
    """Key of the open tab."""
    shown_query: gr.Textbox
    """The query whose hits are shown, as opposed to what is being typed."""
    colour: gr.Textbox
    """Colouring of the map."""
    navigator: gr.HTML
    map: MapTab
    search: SearchTab
    feature: FeatureTab
    steer: SteerTab
