"""The map as a Gradio component: a constant template, its data fetched by static/map.js, clicks as select events."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.components.addresses import data

_ICON = '<svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true" focusable="false"><path d="{}"/></svg>'
_ICONS = {
    "in": "M10 4v12M4 10h12",
    "out": "M4 10h12",
    "whole": "M3.5 9.5 10 4l6.5 5.5M5.5 8v8h9V8",
    "lasso": "M10 3.5c4 0 7 2 7 4.8s-3 4.9-7 4.9-7-2-7-4.9 3-4.8 7-4.8ZM6.5 12.6c-1.6.6-2 3.4.6 3.9",
    "full": "M3.5 7.5v-4h4M12.5 3.5h4v4M16.5 12.5v4h-4M7.5 16.5h-4v-4",
}
_KEYS = (
    "Map of features. Arrow keys move from feature to feature, Enter opens one, plus and minus zoom, "
    "0 shows the whole map, Escape closes the card. The tree of clusters beside it leads to the same features."
)


def _tool(name: str, label: str, *, toggles: bool = False) -> str:
    pressed = ' aria-pressed="false"' if toggles else ""
    icon = _ICON.format(_ICONS[name])
    return f'<button type="button" data-map="{name}" aria-label="{label}" title="{label}"{pressed}>{icon}</button>'


# Constant, so that Gradio never redraws it: canvas and zoom survive every update of the value. No text of an atlas
# enters here; the scripts write text with textContent.
TEMPLATE = f"""
<section class="ico-map" aria-label="Map of features">
  <div class="ico-map-bar">
    <form class="ico-map-search" role="search">
      <input type="search" maxlength="1000" enterkeyhint="search" placeholder="depth, stripes, a red car …"
        aria-label="Search for a concept on the map">
      <button class="ico-button">Search</button>
    </form>
    <label>Colour by <select aria-label="Colour by"></select></label>
    <span class="ico-map-count" role="status"></span>
    <button type="button" class="ico-button ico-map-clear" data-map="clear" hidden>Clear search</button>
  </div>
  <div class="ico-map-body">
    <div class="ico-map-stage">
      <div class="ico-map-plot"></div>
      <canvas class="ico-map-overlay" aria-hidden="true"></canvas>
      <div class="ico-map-labels"></div>
      <div class="ico-map-surface" tabindex="0" role="application" aria-label="{_KEYS}"></div>
      <div class="ico-map-tools" role="group" aria-label="Map tools">
        {_tool("in", "Zoom in")}{_tool("out", "Zoom out")}{_tool("whole", "Whole map")}
        {_tool("lasso", "Lasso: list the features you draw around", toggles=True)}
        {_tool("full", "Full screen", toggles=True)}
      </div>
      <p class="ico-map-hint" role="status"></p>
      <p class="ico-map-progress" role="status">Loading the map…</p>
      <div class="ico-map-card" hidden></div>
      <p class="ico-map-live" role="status" aria-live="polite"></p>
    </div>
    <aside class="ico-map-side" aria-label="Legend, filters and clusters">
      <p class="ico-map-message" role="alert" hidden></p>
      <section class="ico-map-hits" aria-label="Features that were found" hidden></section>
      <section class="ico-map-list" aria-label="List of features" hidden></section>
      <div class="ico-map-legend"></div>
      <details class="ico-map-filters">
        <summary>Filters <span class="ico-map-filter-badge" hidden></span></summary>
        <div class="ico-map-filter-fields"></div>
      </details>
      <h3>Clusters</h3><div class="ico-map-clusters"></div>
    </aside>
  </div>
</section>
"""
SCRIPT = """
const map = window.iconoscopeMap.mount(
  element.querySelector('.ico-map'), props.value,
  (id) => trigger('select', {index: id, value: id, selected: true}));
// Every value is a message that names what changes; the rest stays.
watch('value', () => map.update({...map.value, ...props.value}));
"""


def feature_map(version: str, elem_id: str) -> gr.HTML:
    """The map. Its value is that of :func:`map_value`; it emits ``select`` with a feature id.

    A plain gr.HTML and not a subclass: Gradio writes a .pyi file beside every component class it meets.
    """
    return gr.HTML(
        value=map_value(version),
        html_template=TEMPLATE,
        js_on_load=SCRIPT,
        apply_default_css=False,
        elem_id=elem_id,
    )


def map_value(
    version: str,
    *,
    selected: int | None = None,
    hits: list[int] | None = None,
    query: str = "",
    colour: str = "cluster",
    restored: bool = False,
) -> dict[str, Any]:
    """What the browser needs to know: where the data is, what is chosen and what is lit.

    ``restored``: the server has read the address, so this is the atlas to load.
    """
    return {
        "base": data("", version),
        "version": version,
        "selected": selected,
        "hits": hits or [],
        "query": query,
        "colour": colour,
        "restored": restored,
    }
