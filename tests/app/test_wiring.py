"""Handlers name just what changes; an address is shown as far as it can be, and the rest is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.guard import readable_errors
from app.page import Page
from app.services import Services
from app.tabs import feature, map, search, steer
from app.wiring import Wiring
from backend.errors import EmptyQuery, UnknownFeature


@pytest.fixture(scope="module")
def wiring(services: Services) -> Wiring:
    with gr.Blocks(analytics_enabled=False), gr.Tabs() as tabs, gr.Tab("x", id="x") as tab:
        page = Page(
            tabs=tabs,
            items={"x": tab},
            current=gr.Textbox(),
            shown_query=gr.Textbox(),
            colour=gr.Textbox(),
            navigator=gr.HTML(),
            map=map.build(services, "v"),
            search=search.build(services),
            feature=feature.build(services),
            steer=steer.build(services, "v"),
        )
    return Wiring(services, page)


VALUE: dict[str, Any] = {
    "base": "iconoscope/",
    "version": "v",
    "selected": None,
    "hits": [],
    "query": "",
    "colour": "cluster",
}


def event(value: object) -> Any:
    return SimpleNamespace(value=value)


def visit(query: dict[str, str]) -> Any:
    return SimpleNamespace(query_params=query, session_hash="s")


def test_a_click_on_the_map_opens_the_feature_everywhere(wiring: Wiring) -> None:
    page = wiring.page
    updates = wiring.on_map(VALUE, event(2))
    assert updates[page.feature.number] == 2
    assert updates[page.steer.number] == 2
    assert updates[page.map.map]["selected"] == 2
    assert 'data-feature="2"' in updates[page.feature.page]
    assert updates[page.tabs].selected == "feature"


@pytest.mark.parametrize("value", [10, "x", None, {"a": 1}, "1; drop table"])
def test_a_browser_that_lies_gets_an_error(wiring: Wiring, value: object) -> None:
    with pytest.raises(UnknownFeature):
        wiring.on_map(VALUE, event(value))


def test_links_lead_to_feature_steer_search_and_map(wiring: Wiring) -> None:
    page = wiring.page
    assert wiring.on_go(VALUE, event({"action": "steer", "value": "2"}))[page.tabs].selected == "steer"
    found = wiring.on_go(VALUE, event({"action": "show", "value": "crab"}))
    assert found[page.tabs].selected == "map"
    assert 2 in found[page.map.map]["hits"]
    cleared = wiring.on_go({**VALUE, "hits": [2]}, event({"action": "clear", "value": ""}))
    assert cleared[page.map.map]["hits"] == []
    assert wiring.on_go(VALUE, event({"action": "tab", "value": "compare"}))[page.tabs].selected == "compare"


@pytest.mark.parametrize(
    "value", [None, "x", {}, {"action": "tab", "value": "elsewhere"}, {"action": "rm", "value": "/"}]
)
def test_unknown_wishes_do_nothing(wiring: Wiring, value: object) -> None:
    assert wiring.on_go(VALUE, event(value)) == {}


def test_an_address_is_restored(wiring: Wiring) -> None:
    page = wiring.page
    query = {"tab": "steer", "feature": "2", "strength": "12.5", "operation": "set", "q": "crab", "colour": "verdict"}
    image = wiring.services.store.exemplars(2, pooling="max")[1].image_id
    updates = wiring.on_load(VALUE, visit({**query, "image": image, "prompt": "why?"}))
    assert updates[page.tabs].selected == "steer"
    assert updates[page.steer.strength].value == 12.5
    assert updates[page.steer.operation] == "set"
    assert updates[page.steer.image]["selected"] == image
    assert updates[page.steer.prompt] == "why?"
    assert updates[page.shown_query] == "crab"
    value = updates[page.map.map]
    assert (value["colour"], value["selected"]) == ("verdict", 2)
    assert 2 in value["hits"]


def test_an_address_of_another_atlas_still_opens(wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    updates = wiring.on_load(VALUE, visit({"tab": "feature", "feature": "10", "strength": "much", "q": "crab"}))
    assert updates[wiring.page.tabs].selected == "feature"
    assert wiring.page.feature.page not in updates
    assert 2 in updates[wiring.page.map.map]["hits"]
    assert len(said) == 2
    assert "feature 10" in said[1]


def test_our_errors_become_readable_and_others_stay_bugs() -> None:
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(gr.Error, match="no words") as caught:
        readable_errors(fail)(EmptyQuery("no words"))
    assert caught.value.print_exception is False
    with pytest.raises(ZeroDivisionError):
        readable_errors(fail)(ZeroDivisionError())


def test_messages_that_quote_a_visitor_cannot_bring_markup_into_a_notice(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    wiring.on_load(VALUE, visit({"tab": "<img src=x onerror=alert(1)>", "feature": "<b>"}))
    assert len(said) == 2
    assert not any("<" in text for text in said)

    @readable_errors
    def fail() -> None:
        raise EmptyQuery("<script>alert(1)</script>")

    with pytest.raises(gr.Error) as caught:
        fail()
    assert "<" not in caught.value.message


def test_generators_stay_generators_under_the_decorator() -> None:
    @readable_errors
    def two():
        yield 1
        raise EmptyQuery("no words")

    steps = two()
    assert next(steps) == 1
    with pytest.raises(gr.Error):
        next(steps)
