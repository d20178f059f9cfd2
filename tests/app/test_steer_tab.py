"""The Steer tab: what is read from the page, what an address restores, and what other tabs open in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.catalogue import Catalogue
from app.components.steer_set import rows_of, set_value
from app.hub import Hub
from app.services import Services
from app.starters import starters
from app.steer_setup import SteerRow, written_rows
from app.tabs import TABS, steer
from app.ui import layout
from app.url_state import parse
from backend.errors import SubjectError, UnknownFeature
from backend.types import Operation, PatchScope


@pytest.fixture(scope="module")
def hub(services: Services) -> Hub:
    catalogue = Catalogue([services])
    with gr.Blocks(analytics_enabled=False):
        return Hub(catalogue, layout(catalogue), TABS)


@pytest.fixture
def tab(hub: Hub) -> steer.SteerTab:
    return hub.page.parts["steer"]


def asked(services: Services, **more: Any) -> dict[str, Any]:
    """What a browser sends."""
    rows = set_value(services, (SteerRow(feature=2, strength=30.0),))
    sent = {"rows": rows, "scope": "all", "painted": {"patches": [4, 3]}, "image": {"selected": ""}, "prompt": "what?"}
    return {**sent, "sampling": "greedy", "temperature": 1.5, "top_p": 0.5, "seed": 4, **more}


def event(value: object) -> Any:
    return SimpleNamespace(value=value)


def test_a_setup_is_read_from_the_page(services: Services) -> None:
    one = steer.setup_of(services, **asked(services))
    assert one.where.scope is PatchScope.ALL and one.where.patches == ()
    assert (one.temperature, one.seed) == (None, 0), "greedy draws nothing, whatever the hidden boxes hold"
    two = steer.setup_of(services, **asked(services, scope="given", sampling="sampled", image={"selected": "noise-3"}))
    assert two.where.patches == (3, 4)
    assert (two.temperature, two.top_p, two.seed, two.image_id) == (1.5, 0.5, 4, "noise-3")
    empty = steer.setup_of(services, **asked(services, sampling="sampled", temperature=None, seed=None))
    assert (empty.temperature, empty.seed) == (steer.DEFAULT_TEMPERATURE, 0)


@pytest.mark.parametrize(
    "more",
    [
        {"rows": None},
        {"rows": {"rows": [{"feature": 2, "operation": "add", "strength": None}]}},
        {"scope": "everywhere"},
        {"scope": None},
        {"scope": "given", "painted": None},
        {"prompt": None},
        {"sampling": "sampled", "temperature": -1},
    ],
)
def test_a_browser_that_lies_gets_an_error(services: Services, more: dict[str, Any]) -> None:
    with pytest.raises(SubjectError):
        steer.setup_of(services, **asked(services, **more))


def test_a_feature_is_added_at_its_recommended_strength(services: Services) -> None:
    value = steer.on_add(services, asked(services)["rows"], event("3"))
    record = services.store.feature(3)
    assert [row.feature for row in rows_of(value)] == [2, 3]
    assert rows_of(value)[1].strength == pytest.approx(record.recommended_strength, abs=0.05)
    assert value["rows"][1]["words"] == (record.best_text or "")
    for wrong, error in ((value, SubjectError), (None, UnknownFeature)):
        with pytest.raises(error):
            steer.on_add(services, wrong, event("3" if wrong else "10"))
    full = set_value(services, [SteerRow(feature=one, strength=1.0) for one in services.store.feature_ids[:8].tolist()])
    with pytest.raises(SubjectError, match="full"):
        steer.on_add(services, full, event(str(services.store.feature_ids[9])))


def test_the_patches_are_painted_on_the_chosen_image(services: Services) -> None:
    value = steer.on_image(services, {"selected": "black"}, {"patches": [5, 2]})
    assert (value["image"], value["patches"]) == ("black", [2, 5])


def test_an_address_restores_every_part(services: Services, hub: Hub, tab: steer.SteerTab) -> None:
    image = services.store.exemplars(2, pooling="max")[1].image_id
    query = {
        "tab": "steer",
        "feature": "2",
        "steer": "2:set:12.5,3:ablate",
        "patches": "3-5.9",
        "image": image,
        "prompt": "what is near",
        "sampling": "sampled",
        "temperature": "1.2",
        "top_p": "0.5",
        "seed": "8",
    }
    state = parse(query)
    assert state.notices == ()
    updates = steer.opened(services, tab, services.store.feature(2), state) | steer.restore(hub, services, tab, state)
    assert written_rows(rows_of(updates[tab.rows])) == "2:set:12.5,3:ablate"
    assert (updates[tab.scope], updates[tab.painted]["patches"]) == ("given", [3, 4, 5, 9])
    assert updates[tab.painted]["image"] == updates[tab.image]["selected"] == image
    assert updates[tab.prompt] == "what is near"
    told = [updates[one] for one in (tab.sampling, tab.temperature, tab.top_p, tab.seed)]
    assert told == ["sampled", 1.2, 0.5, 8]
    values = {**updates, tab.image: updates[tab.image]}
    one = steer.setup_of(services, *(values[component] for component in tab.asked))
    assert one.rows[0] == SteerRow(feature=2, operation=Operation.SET, strength=12.5)
    assert one.where.patches == (3, 4, 5, 9)


def test_an_address_without_an_open_feature_shows_the_first_of_its_set(
    services: Services, hub: Hub, tab: steer.SteerTab
) -> None:
    updates = steer.restore(hub, services, tab, parse({"steer": "3:add:9"}))
    assert written_rows(rows_of(updates[tab.rows])) == "3:add:9"
    assert "feature 3" in updates[tab.recorded]
    bare = steer.restore(hub, services, tab, parse({}))
    first = starters(services)[0]
    assert bare[tab.rows]["initial"] == written_rows(rows_of(bare[tab.rows])), "the address need not say it"
    assert [row.feature for row in rows_of(bare[tab.rows])] == [first]
    assert f"feature {first}" in bare[tab.recorded]
    assert bare[tab.prompt] == next(iter(steer.prompts(services).values()))
    with pytest.raises(UnknownFeature):
        steer.restore(hub, services, tab, parse({"steer": "10:add:9"}))


def test_a_feature_opened_elsewhere_is_offered_but_steering_it_replaces_the_set(
    services: Services, hub: Hub, tab: steer.SteerTab
) -> None:
    offered = steer.opened(services, tab, services.store.feature(3), None)[tab.rows]
    assert offered["gentle"] and offered["offered"]["feature"] == 3
    pressed = steer.steered(hub, services, tab, "3")
    assert not pressed[tab.rows]["gentle"]
    assert [row.feature for row in rows_of(pressed[tab.rows])] == [3]
    assert pressed[hub.page.tabs].selected == "steer"
    with pytest.raises(UnknownFeature):
        steer.steered(hub, services, tab, "10")


def test_other_tabs_open_a_whole_setup(services: Services, hub: Hub, tab: steer.SteerTab) -> None:
    updates = steer.steered(hub, services, tab, "steer=3:ablate&feature=3&image=noise-2&patches=0-3")
    assert written_rows(rows_of(updates[tab.rows])) == "3:ablate"
    assert updates[tab.image]["selected"] == "noise-2"
    assert (updates[tab.scope], updates[tab.painted]["patches"]) == ("given", [0, 1, 2, 3])
    assert updates[hub.page.tabs].selected == "steer"


def test_places_in_the_line_are_told_in_words() -> None:
    from app.steer_runs import waiting
    from app.subject_worker import Waiting

    assert waiting(Waiting(ahead=1)) == "Waiting: 1 request before yours."
    assert waiting(Waiting(ahead=4)) == "Waiting: 4 requests before yours."
    assert "Loading" in waiting(Waiting(ahead=0, loading=True))
    assert "Your turn" in waiting(Waiting(ahead=0))


def test_the_prompts_of_the_paper_come_first_with_the_steering_one(services: Services) -> None:
    assert next(iter(steer.prompts(services))) == "Steering"
