"""The wires of the page: links lead to actions, and an address restores every tab."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.catalogue import Catalogue
from app.components.header import header
from app.guard import plain
from app.hub import QUICK, Hub, Updates, merged
from app.page import Page
from app.tabs import TABS
from app.tabs.feature import parse_feature
from app.url_state import parse
from backend.errors import IconoscopeError


def wire(blocks: gr.Blocks, catalogue: Catalogue, page: Page) -> Hub:
    """Attach all events of the page. Call inside the Blocks context."""
    hub = Hub(catalogue, page, TABS)
    _common_actions(hub)
    for name, module in TABS.items():
        module.wire(hub, page.parts[name])
    hub.on([page.navigator.select], hub.act)
    hub.opens([page.navigator.submit], hub.act)
    for name, item in page.items.items():
        item.select(None, None, None, js=f"() => {{ window.iconoscope?.setField('tab', '{name}', 'map'); }}", **QUICK)
    # Through the queue, since notices (gr.Warning) only travel with queued events.
    load = Loading(hub).load
    loaded = blocks.load(load, None, hub.shown, **{**QUICK, **hub.progress, "queue": True}, concurrency_limit=None)
    loaded.then(None, None, None, js="() => { window.iconoscope?.urlReady(); }", **QUICK)
    return hub


def _common_actions(hub: Hub) -> None:
    def open_in(name: str) -> Any:
        return lambda services, value: hub.opened(services, parse_feature(services, value)) | hub.tab(name)

    hub.action("feature", open_in("feature"))
    hub.action("tab", lambda _, value: hub.tab(value) if value in TABS else {})


class Loading:
    """Reads an address into the page. What cannot be shown is said in a notice, and the rest is shown."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def load(self, request: gr.Request) -> Updates:
        updates, notices = self.restored(dict(request.query_params))
        for notice in notices:
            gr.Warning(plain(f"In the address: {notice}"))
        return self.news(updates)

    def news(self, updates: Updates) -> Updates:
        """Without the pages that stand there since the explorer was built: most visitors come with an empty address.

        Only server-built pages are left out. They are what is large, and a field that is never set is never followed.
        """
        return {
            item: value
            for item, value in updates.items()
            if not (isinstance(item, gr.HTML) and isinstance(value, str) and value == item.value)
        }

    def restored(self, query: dict[str, str]) -> tuple[Updates, list[str]]:
        hub = self.hub
        state = parse(query)
        notices = list(state.notices)
        services = hub.catalogue.get(state["atlas"])
        if state["atlas"] and state["atlas"] not in hub.catalogue:
            notices.append(f"no atlas {state['atlas']!r} is served here; this is {services.key!r}")
        updates: Updates = {hub.page.atlas: services.key}
        # An address that names no tab leaves the visitor where they have gone meanwhile.
        if state.says("tab"):
            updates |= hub.tab(state["tab"])
        updates[hub.page.header] = str(header(services, hub.catalogue))
        steps = [lambda: hub.opened(services, state["feature"], state)] if state["feature"] is not None else []
        for name, module in TABS.items():
            steps.append(lambda name=name, module=module: module.restore(hub, services, hub.page.parts[name], state))
        for step in steps:
            try:
                updates = merged(updates, step())
            except IconoscopeError as error:
                notices.append(str(error))
        return updates, notices
