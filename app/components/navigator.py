"""The bridge from links in server-built HTML to Gradio: a hidden component that turns a click into an event."""

from __future__ import annotations

import gradio as gr

SCRIPT = """
window.iconoscope.startTheme();
window.iconoscope.register((action, value) => {
  const wish = {index: 0, value: {action, value: String(value)}, selected: true};
  trigger(action === 'feature' ? 'submit' : 'select', wish);
});
"""


def navigator(elem_id: str) -> gr.HTML:
    """Emits ``select`` with ``{action, value}`` (an action of the hub, text) when a ``data-go`` element is clicked.

    The action ``feature`` comes as ``submit``, which is wired to fewer components and so answers sooner.
    """
    return gr.HTML(
        value="",
        html_template='<span class="ico-navigator" hidden></span>',
        js_on_load=SCRIPT,
        apply_default_css=False,
        elem_id=elem_id,
    )
