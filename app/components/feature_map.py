"""The map as a Gradio component: a constant template, its data fetched by static/map.js, clicks as select events."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.components.addresses import data, static

# Constant, so that Gradio never redraws it: canvas and zoom survive every update of the value. No text of an atlas
# enters here; map.js writes text with textContent.
TEMPLATE = """
<section class="ico-map" aria-label="Map of features">
  <div class="ico-map-bar">
    <label>Colour by <select aria-label="Colour by"></select></label>
    <span class="ico-map-count" role="status">Loading the map…</span>
    <button type="button" class="ico-button ico-map-clear" hidden>Clear search</button>
    <span class="ico-map-zoom">
      <button type="button" class="ico-button" data-zoom="0.6" aria-label="Zoom in">+</button>
      <button type="button" class="ico-button" data-zoom="1.6" aria-label="Zoom out">−</button>
      <button type="button" class="ico-button ico-map-home">Whole map</button>
    </span>
  </div>
  <div class="ico-map-body">
    <div class="ico-map-stage">
      <div class="ico-map-plot"></div><div class="ico-map-labels"></div>
      <div class="ico-map-card" hidden></div><p class="ico-map-message" role="alert" hidden></p>
    </div>
    <aside class="ico-map-side" aria-label="Legend and clusters">
      <div class="ico-map-legend"></div>
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


def feature_map(version: str, static_version: str, elem_id: str) -> gr.HTML:
    """The map. Its value is that of :func:`map_value`; it emits ``select`` with a feature id.

    A plain gr.HTML and not a subclass: Gradio writes a .pyi file beside every component class it meets.
    """
    names = ("iconoscope.js", "exemplars.js", "map_layout.js", "map_labels.js", "map_side.js", "map_card.js", "map.js")
    scripts = ["plotly.min.js", *names]
    return gr.HTML(
        value=map_value(version),
        html_template=TEMPLATE,
        js_on_load=SCRIPT,
        head="".join(f'<script src="{static(name, static_version)}"></script>' for name in scripts),
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
) -> dict[str, Any]:
    """What the browser needs to know: where the data is, what is chosen and what is lit."""
    return {
        "base": data("", version),
        "version": version,
        "selected": selected,
        "hits": hits or [],
        "query": query,
        "colour": colour,
    }
