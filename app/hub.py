"""Hub: what every tab uses to answer events, to follow the address, and to open a feature everywhere at once.

Handlers are pure functions: the services of the open atlas first, then the inputs; they return a dictionary from
component to update and name only what changes. Reads run at once (``queue=False``); what takes a model is queued.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol

import gradio as gr

from app.catalogue import Catalogue
from app.guard import readable_errors
from app.page import Page
from app.services import Services
from app.url_fields import Field, UrlState
from backend.feature_store import FeatureRecord

Updates = dict[Any, Any]
Action = Callable[[Services, str], Updates]
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


NO_CHANGE = '({ __type__: "update" })'
"""What a script answers to change nothing. Its input written back could undo what was written meanwhile."""


class TabModule(Protocol):
    """What a module under app/tabs offers."""

    @property
    def TITLE(self) -> str:
        """The tab's name on the page."""
        ...

    @property
    def FIELDS(self) -> tuple[Field, ...]:
        """What the tab keeps in the address."""
        ...

    @property
    def OPENED(self) -> tuple[str, ...]:
        """Names of the components that :meth:`opened` prepares."""
        ...

    def build(self, services: Services) -> Any:
        """Lay out the tab; returns a frozen dataclass of its components."""
        ...

    def wire(self, hub: Hub, tab: Any) -> None:
        """Attach the tab's own events."""
        ...

    def restore(self, hub: Hub, services: Services, tab: Any, state: UrlState) -> Updates:
        """Everything that depends on the atlas or on the address. Raises IconoscopeError for what cannot be shown."""
        ...

    def opened(self, services: Services, tab: Any, record: FeatureRecord, state: UrlState | None) -> Updates:
        """The tab prepared for a feature; ``state`` is given when an address opened it."""
        ...


class Hub:
    """Joins the tabs of one page over a catalogue. Make it inside the Blocks context."""

    def __init__(self, catalogue: Catalogue, page: Page, modules: Mapping[str, TabModule]) -> None:
        self.catalogue = catalogue
        self.page = page
        self.modules = modules
        self._actions: dict[str, Action] = {}
        self.shown: list[Any] = [page.tabs, page.atlas, page.header]
        for part in page.parts.values():
            self.shown += [getattr(part, one.name) for one in fields(part)]

    @property
    def progress(self) -> dict[str, Any]:
        """Where Gradio notes the progress of events. It writes to every component that was ever noted, before and after
        each event; the page shows its own progress (busy.js), so one hidden component stands for all."""
        return {"show_progress_on": self.page.atlas}

    # updates -----------------------------------------------------------------------------------------------------

    def tab(self, name: str) -> Updates:
        """The tab of this name comes to the front."""
        return {self.page.tabs: gr.Tabs(selected=name)}

    def opened(self, services: Services, feature: int, state: UrlState | None = None) -> Updates:
        """A feature in every tab that shows one; the open tab stays. Raises UnknownFeature."""
        record = services.store.feature(feature)
        updates: Updates = {}
        for name, module in self.modules.items():
            updates = merged(updates, module.opened(services, self.page.parts[name], record, state))
        return updates

    # events ------------------------------------------------------------------------------------------------------

    def on(
        self,
        triggers: Sequence[Any],
        handler: Callable[..., Any],
        inputs: Sequence[Any] = (),
        outputs: Sequence[Any] | None = None,
        **more: Any,
    ) -> Any:
        """Answer events with ``handler(services, *inputs)``; ``outputs`` left out means any component of the page."""
        shown = self.shown if outputs is None else list(outputs)
        called = self._with_services(readable_errors(handler), shown)
        return gr.on(list(triggers), called, [self.page.atlas, *inputs], shown, **{**QUICK, **self.progress, **more})

    def opens(
        self, triggers: Sequence[Any], handler: Callable[..., Any], inputs: Sequence[Any] = (), js: str | None = None
    ) -> Any:
        """Answer events that open a feature.

        Gradio pays for every component an event names, changed or not, so these name what :meth:`opened` and
        :meth:`tab` change and no other.
        """
        changed = [getattr(self.page.parts[tab], one) for tab, module in self.modules.items() for one in module.OPENED]
        return self.on(triggers, handler, inputs, [self.page.tabs, *changed], js=js)

    def follow(self, component: Any, field: Field, js: str = "(value) => value") -> None:
        """Write a component's value into the address whenever it changes; ``js`` makes the text of it."""
        name, initial = json.dumps(field.name), json.dumps(_plain_default(field))
        # A default may come from an atlas; inside a script, "<" must not be able to end it.
        script = f"(value) => {{ window.iconoscope?.setField({name}, ({js})(value), {initial}); }}"
        component.change(None, component, None, js=script.replace("<", "\\u003c"), **QUICK)

    def action(self, name: str, handler: Action) -> None:
        """Answer links of server-built HTML and ``iconoscope.go(name, value)`` of scripts."""
        if name in self._actions:
            raise ValueError(f"two actions are named {name!r}")
        self._actions[name] = handler

    def act(self, services: Services, event: gr.SelectData) -> Updates:
        """The action a browser asks for; wishes that nobody knows do nothing."""
        data = event.value if isinstance(event.value, dict) else {}
        handler = self._actions.get(str(data.get("action", "")))
        return handler(services, str(data.get("value", ""))) if handler else {}

    def _with_services(self, handler: Callable[..., Any], shown: Sequence[Any]) -> Callable[..., Any]:
        """``handler`` with the key of the open atlas in place of its services."""
        # To Gradio an empty dictionary is a value, and too few of them; this is what "nothing changes" is called there.
        nothing = {shown[0]: gr.skip()} if shown else {}
        if inspect.isgeneratorfunction(handler):

            @functools.wraps(handler)
            def streamed(key: str, *values: Any) -> Iterator[Any]:
                yield from handler(self.catalogue.get(key), *values)

            return streamed

        @functools.wraps(handler)
        def answered(key: str, *values: Any) -> Any:
            found = handler(self.catalogue.get(key), *values)
            return nothing if isinstance(found, dict) and not found else found

        return answered


def merged(first: Updates, second: Updates) -> Updates:
    """Both updates. Two messages to one component become one that says both; else the second one counts."""
    together = {**first, **second}
    for component in first.keys() & second.keys():
        if isinstance(first[component], dict) and isinstance(second[component], dict):
            together[component] = {**first[component], **second[component]}
    return together


def _plain_default(field: Field) -> Any:
    """A default as a browser compares it: containers as their text."""
    return field.text(field.default) if isinstance(field.default, tuple) else field.default


def visitor(request: gr.Request) -> str:
    """Who asks: one browser page."""
    return str(request.session_hash or "")
