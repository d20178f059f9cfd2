"""The components of the whole page, as the hub sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What stands around the tabs, and each tab's own components by its name."""

    tabs: gr.Tabs
    items: Mapping[str, gr.Tab]
    atlas: gr.Textbox
    """Key of the open atlas; hidden."""
    header: gr.HTML
    navigator: gr.HTML
    parts: Mapping[str, Any]
    """Tab name to the tab's dataclass of components."""
