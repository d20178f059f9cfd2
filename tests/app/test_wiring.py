"""Handlers name just what changes; an address is shown as far as it can be, and the rest is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.catalogue import Catalogue
from app.hub import Hub, merged
from app.services import Services
from app.ui import layout
from app.wiring import Loading, wire
from backend.errors import EmptyQuery, UnknownFeature


@pytest.fixture(scope="module")
def hub(services: Services) -> Hub:
    catalogue = Catalogue([services])
    with gr.Blocks(analytics_enabled=False) as blocks:
        return wire(blocks, catalogue, layout(catalogue))


def gr_events(hub: Hub) -> list[Any]:
    """Everything the page is wired to."""
    blocks: Any = hub.page.tabs.parent
    while blocks.parent is not None:
        blocks = blocks.parent
    return list(blocks.fns.values())


def event(value: object) -> Any:
    return SimpleNamespace(value=value)


def go(hub: Hub, action: str, value: str) -> dict[Any, Any]:
    return hub.act(hub.catalogue.default, event({"action": action, "value": value}))


def test_a_feature_opens_in_every_tab_that_shows_one(hub: Hub) -> None:
    updates = go(hub, "feature", "2")
    page = hub.page
    assert updates[page.parts["feature"].number] == 2
    assert updates[page.parts["map"].map]["selected"] == 2
    assert 'data-feature="2"' in updates[page.parts["feature"].page]
    assert updates[page.tabs].selected == "feature"
    assert go(hub, "steer", "2")[page.tabs].selected == "steer"


def test_events_that_open_a_feature_name_all_that_it_changes_and_little_else(hub: Hub) -> None:
    events = {target: set(event.outputs) for event in gr_events(hub) for target in event.targets}
    page = hub.page
    changed = {hub.page.tabs, *hub.opened(hub.catalogue.default, 2)}
    feature = page.parts["feature"]
    for item, name in ((page.navigator, "submit"), (page.parts["map"].map, "select"), (feature.number, "submit"),
                       (feature.previous, "click"), (feature.next, "click")):  # fmt: skip
        assert events[item._id, name] == changed
    assert len(changed) < len(hub.shown) / 3


def test_no_component_but_one_carries_the_progress_of_events(hub: Hub) -> None:
    noted = [event.show_progress_on for event in gr_events(hub) if event.fn is not None]
    assert len(noted) > 20
    assert all(one == [hub.page.atlas] for one in noted)


@pytest.mark.parametrize("value", ["10", "x", "", "{}", "1; drop table"])
def test_a_browser_that_lies_gets_an_error(hub: Hub, value: str) -> None:
    with pytest.raises(UnknownFeature):
        go(hub, "feature", value)


def test_a_query_is_shown_and_lit_on_the_map(hub: Hub) -> None:
    page = hub.page
    found = go(hub, "show", "crab")
    assert found[page.tabs].selected == "map"
    assert 2 in found[page.parts["map"].map]["hits"]
    assert go(hub, "clear", "")[page.parts["map"].map]["hits"] == []
    with pytest.raises(EmptyQuery):
        go(hub, "search", "!?")


def test_unknown_wishes_do_nothing(hub: Hub) -> None:
    for value in (None, "x", {}, {"action": "tab", "value": "elsewhere"}, {"action": "rm", "value": "/"}):
        assert hub.act(hub.catalogue.default, event(value)) == {}


def test_an_action_has_one_meaning(hub: Hub) -> None:
    with pytest.raises(ValueError, match="feature"):
        hub.action("feature", lambda _services, _value: {})


def test_an_address_is_restored(hub: Hub) -> None:
    page = hub.page
    updates, notices = Loading(hub).restored({"tab": "search", "feature": "2", "q": "crab", "colour": "verdict"})
    assert notices == []
    assert updates[page.tabs].selected == "search"
    shown = updates[page.parts["map"].map]
    # One message carries what three parts of the address say.
    assert (shown["selected"], shown["colour"], shown["query"]) == (2, "verdict", "crab")
    assert 2 in shown["hits"]
    assert updates[page.parts["search"].shown_query] == "crab"


def test_an_address_of_another_atlas_still_opens(hub: Hub) -> None:
    query = {"tab": "feature", "feature": "10", "q": "crab", "atlas": "elsewhere"}
    updates, notices = Loading(hub).restored(query)
    assert updates[hub.page.tabs].selected == "feature"
    assert updates[hub.page.parts["search"].shown_query] == "crab"
    assert updates[hub.page.atlas] == hub.catalogue.default.key
    assert len(notices) == 2


def test_messages_to_one_component_are_joined() -> None:
    assert merged({"a": {"x": 1}, "b": "old"}, {"a": {"y": 2}, "b": "new"}) == {"a": {"x": 1, "y": 2}, "b": "new"}
