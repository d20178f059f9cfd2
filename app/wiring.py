"""The wires: which event calls which pure function and where its answer goes.

Reads run at once (``queue=False``); only steering and the reading of the address are queued. Updates are dictionaries
from component to value, so a handler names just what changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import gradio as gr

from app import url_state
from app.guard import plain, readable_errors
from app.page import Page
from app.services import Services
from app.tabs import feature, map, search, steer
from app.url_state import UrlState, parse
from backend.errors import IconoscopeError
from backend.feature_store import FeatureRecord

Updates = dict[Any, Any]
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

WRITE_URL = """
(tab, feature, q, colour, operation, scope, strength, image, prompt) => {
  const steering = tab === 'steer';
  const defaults = %s;
  window.iconoscope?.writeUrl({
    tab, feature, q,
    colour: colour === 'cluster' ? '' : colour,
    operation: steering && operation !== 'add' ? operation : '',
    scope: steering && scope !== 'all' ? scope : '',
    strength: steering && feature !== null ? strength : '',
    image: steering ? image?.selected : '',
    prompt: steering && prompt !== defaults.prompt ? prompt : '',
  });
}
"""


class Wiring:
    """Handlers of one page over one set of services."""

    def __init__(self, services: Services, page: Page) -> None:
        self.services = services
        self.page = page

    # updates -----------------------------------------------------------------------------------------------------

    def opened(self, value: object, map_value: dict[str, Any], state: UrlState | None = None) -> Updates:
        """A feature in every place that shows one; the open tab stays. Raises UnknownFeature."""
        page, services = self.page, self.services
        record = services.store.feature(feature.parse_feature(services, value))
        return {
            page.feature.number: record.feature,
            page.feature.page: str(feature.page(services, record.feature)),
            page.map.map: map.show_feature(map_value, record.feature),
            **self.steering_set(record, state),
        }

    def steering_set(self, record: FeatureRecord, state: UrlState | None = None) -> Updates:
        """The Steer tab prepared for a feature, with what the address says or the recommended strength."""
        tab, services = self.page.steer, self.services
        slider = steer.state_for(record, state.strength if state else None)
        operation = state.operation.value if state else "add"
        return {
            tab.number: record.feature,
            tab.chosen: str(steer.chosen_card(services, record)),
            tab.strength: gr.Slider(**slider),
            tab.strength_note: str(steer.strength_note(record, slider["value"], operation)),
            tab.image: steer.pictures(services, record, state.image if state else ""),
            tab.recorded: str(steer.recorded(services, record)),
            tab.answers: str(
                steer.columns(None, "Press Start: the model answers three times at once.", feature=record.feature)
            ),
        }

    def searched(self, query: str, map_value: dict[str, Any]) -> Updates:
        """Hits of a query on the Search tab and lit on the map. Raises what Search.query raises."""
        page = self.page
        result = search.run(self.services, query)
        return {
            page.search.query: result.query or query,
            page.search.results: str(result.page),
            page.shown_query: result.query,
            page.map.map: map.show_hits(self.services, map_value, result.features, result.query),
        }

    def tab(self, name: str) -> Updates:
        return {self.page.tabs: gr.Tabs(selected=name)}

    # handlers ----------------------------------------------------------------------------------------------------

    def on_map(self, map_value: dict[str, Any], event: gr.SelectData) -> Updates:
        return self.opened(event.value, map_value) | self.tab("feature")

    def on_go(self, map_value: dict[str, Any], event: gr.SelectData) -> Updates:
        """A link or button inside server-built HTML or the map."""
        data = event.value if isinstance(event.value, dict) else {}
        action, value = str(data.get("action", "")), str(data.get("value", ""))
        if action in {"feature", "steer"}:
            return self.opened(value, map_value) | self.tab(action)
        if action in {"search", "show"}:
            return self.searched(value, map_value) | self.tab("search" if action == "search" else "map")
        if action == "clear":
            return self.searched("", map_value) | {self.page.search.query: ""}
        if action == "colour":
            return {self.page.colour: value, self.page.map.map: {**map_value, "colour": value}}
        if action == "tab" and value in url_state.TABS:
            return self.tab(value)
        return {}

    def on_number(self, value: float | None, map_value: dict[str, Any]) -> Updates:
        return {} if value is None else self.opened(value, map_value)

    def on_previous(self, value: float | None, map_value: dict[str, Any]) -> Updates:
        return self.opened(feature.neighbour_id(self.services, _whole(value), -1), map_value)

    def on_next(self, value: float | None, map_value: dict[str, Any]) -> Updates:
        return self.opened(feature.neighbour_id(self.services, _whole(value), 1), map_value)

    def on_strength(self, value: float | None, strength: float | None, operation: str) -> str:
        known = _whole(value) in self.services.store
        record = self.services.store.feature(int(value or 0)) if known else None
        return str(steer.strength_note(record, strength, operation))

    def on_recommended(self, value: float | None) -> Any:
        record = self.services.store.feature(feature.parse_feature(self.services, value))
        return gr.Slider(**steer.state_for(record, None))

    def on_start(
        self,
        value: float | None,
        strength: float | None,
        operation: str,
        scope: str,
        image: Any,
        prompt: str,
        request: gr.Request,
    ) -> Iterator[str]:
        asked = steer.request_of(self.services, value, strength, operation, scope, image, prompt)
        for page in steer.answers(self.services, _visitor(request), asked):
            yield str(page)

    def on_stop(self, request: gr.Request) -> None:
        self.services.worker.stop(_visitor(request))

    def on_load(self, map_value: dict[str, Any], request: gr.Request) -> Updates:
        """The state of the address. What cannot be shown is said in a notice, and the rest is shown."""
        state = parse(dict(request.query_params))
        page, tab = self.page, self.page.steer
        notices = list(state.notices)
        map_value = {**map_value, "colour": state.colour}
        updates: Updates = {page.colour: state.colour, page.map.map: map_value, **self.tab(state.tab)}
        updates |= {tab.operation: state.operation.value, tab.scope: state.scope.value}
        if state.prompt:
            updates[tab.prompt] = state.prompt
        steps = [(state.feature is not None, lambda: self.opened(state.feature, updates[page.map.map], state))]
        steps.append((bool(state.q.strip()), lambda: self.searched(state.q, updates[page.map.map])))
        for wanted, step in steps:
            if not wanted:
                continue
            try:
                updates |= step()
            except IconoscopeError as error:
                notices.append(str(error))
        for notice in notices:
            gr.Warning(plain(f"In the address: {notice}"))
        return updates


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _visitor(request: gr.Request) -> str:
    return str(request.session_hash or "")


def wire(blocks: gr.Blocks, services: Services, page: Page) -> None:
    """Attach all events of the page. Call inside the Blocks context."""
    wiring = Wiring(services, page)
    shown = [page.tabs, page.current, page.shown_query, page.colour, page.map.map]
    shown += [page.search.query, page.search.results, page.feature.number, page.feature.page]
    steering = page.steer
    shown += [steering.number, steering.chosen, steering.strength, steering.strength_note, steering.image]
    shown += [steering.answers, steering.recorded, steering.operation, steering.scope, steering.prompt]
    the_map = page.map.map

    def on(triggers: list[Any], handler: Any, inputs: list[Any], outputs: Any = None, **more: Any) -> Any:
        settings = {**QUICK, **more}
        return gr.on(triggers, readable_errors(handler), inputs, shown if outputs is None else outputs, **settings)

    on([the_map.select], wiring.on_map, [the_map])
    on([page.navigator.select], wiring.on_go, [the_map])
    on([page.search.query.submit, page.search.button.click], wiring.searched, [page.search.query, the_map])
    on([page.feature.number.submit], wiring.on_number, [page.feature.number, the_map])
    on([page.feature.previous.click], wiring.on_previous, [page.feature.number, the_map])
    on([page.feature.next.click], wiring.on_next, [page.feature.number, the_map])
    _wire_steering(on, wiring, steering, the_map)
    _wire_address(blocks, services, on, wiring, page)


def _wire_steering(on: Any, wiring: Wiring, tab: steer.SteerTab, the_map: Any) -> None:
    presets = steer.prompts(wiring.services)
    on([tab.number.submit], wiring.on_number, [tab.number, the_map])
    note_inputs = [tab.number, tab.strength, tab.operation]
    on([tab.strength.change, tab.operation.change], wiring.on_strength, note_inputs, [tab.strength_note])
    on([tab.recommended.click], wiring.on_recommended, [tab.number], [tab.strength])
    on([tab.preset.change], presets.get, [tab.preset], [tab.prompt])
    on(
        [tab.start.click],
        wiring.on_start,
        [tab.number, tab.strength, tab.operation, tab.scope, tab.image, tab.prompt],
        [tab.answers],
        queue=True,
        # Waiting visitors see the worker's own line; the worker's lock lets one in at a time.
        concurrency_id="steering",
        concurrency_limit=8,
        trigger_mode="multiple",
    )
    on([tab.stop.click], wiring.on_stop, [], [])


def _wire_address(blocks: gr.Blocks, services: Services, on: Any, wiring: Wiring, page: Page) -> None:
    for name, item in page.items.items():
        item.select(None, None, page.current, js=f"() => {json.dumps(name)}", **QUICK)
    tab = page.steer
    followed = [page.current, page.feature.number, page.shown_query, page.colour]
    followed += [tab.operation, tab.scope, tab.strength, tab.image, tab.prompt]
    default_prompt = json.dumps({"prompt": next(iter(steer.prompts(services).values()), "")})
    # The prompt comes from the atlas; inside a script, "<" must not be able to end it.
    script = WRITE_URL % default_prompt.replace("<", "\\u003c")
    gr.on([one.change for one in followed], None, followed, None, js=script, **QUICK)
    # Through the queue, since notices (gr.Warning) only travel with queued events.
    loaded = on([blocks.load], wiring.on_load, [page.map.map], queue=True, concurrency_limit=None)
    loaded.then(None, None, None, js="() => { window.iconoscope?.urlReady(); }", **QUICK)
