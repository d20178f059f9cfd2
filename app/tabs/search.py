"""Search: from words, from a feature or from a picture to features; every hit says why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import pictures, search_views, searching
from app.components.built import built
from app.components.image_chooser import chooser_choices, chooser_value, image_chooser
from app.components.markup import Markup
from app.hub import NO_CHANGE, QUICK, Hub, Updates, visitor
from app.latest import Latest
from app.services import Services
from app.starters import starters
from app.subject_worker import Waiting
from app.tabs.map import show_hits
from app.url_fields import Choice, Field, Text, UrlState
from backend.errors import IconoscopeError, ImageMissing
from backend.feature_store import FeatureRecord
from backend.lexical import has_words
from backend.types import ARMS

TITLE = "Search"
METHODS = tuple(arm for arm in ARMS if not arm.is_control)
QUERY = Text("q", most=1000)
ARM = Choice("arm", ("", *(arm.key for arm in METHODS)))
"""The only method whose words are searched; "" is all of them."""
LIKE = Text("like", most=40)
"""``<kind>:<feature>``."""
IMAGE = Text("qimage", most=pictures.MOST_CHARACTERS)
"""An image id; "blank" is the blank image, and "" that no picture is searched by."""
FIELDS: tuple[Field, ...] = (QUERY, ARM, LIKE, IMAGE)
OPENED = ("chooser",)
N_OFFERED = 8
LEGEND = "Picture to search by"
LOOKS: dict[str, Any] = {
    "queue": True,
    "concurrency_id": "search-image",
    "concurrency_limit": 48,
    "trigger_mode": "always_last",
}
_latest = Latest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTab:
    """Components of the tab. The ``shown`` ones hold what the results answer, and are hidden; one of them at most."""

    query: gr.Textbox
    button: gr.Button
    arm: gr.Dropdown
    typed: gr.Textbox
    """The query once the visitor pauses; its change asks. Hidden."""
    chooser: gr.HTML
    results: gr.HTML
    shown_query: gr.Textbox
    shown_like: gr.Textbox
    shown_image: gr.Textbox
    """Its change asks the model."""


def build(services: Services) -> SearchTab:
    with gr.Row(elem_classes="ico-search-row", equal_height=True):
        query = gr.Textbox(
            label="Search for what a feature shows",
            placeholder="depth, striped pattern, a red car …",
            max_lines=1,
            max_length=QUERY.most,
            scale=6,
            elem_id="ico-query",
        )
        methods = [("All methods", ""), *((arm.label, arm.key) for arm in METHODS)]
        arm = gr.Dropdown(methods, value="", label="Words of", scale=2, min_width=200, elem_id="ico-search-arm")
        button = gr.Button("Search", variant="primary", scale=0, min_width=120, elem_id="ico-search")
    with gr.Accordion("Search by a picture", open=False, elem_id="ico-search-picture"):
        chooser = image_chooser(elem_id="ico-search-image")
    results = built(search_views.welcome(services), elem_id="ico-results")
    # "hidden" keeps them in the page, so that their changes reach the address and the server.
    typed, shown_query, shown_like, shown_image = (
        gr.Textbox("", visible="hidden", elem_id=f"ico-{name}")
        for name in ("typed-query", "shown-query", "shown-like", "shown-image")
    )
    return SearchTab(
        query=query,
        button=button,
        arm=arm,
        typed=typed,
        chooser=chooser,
        results=results,
        shown_query=shown_query,
        shown_like=shown_like,
        shown_image=shown_image,
    )


# wires ---------------------------------------------------------------------------------------------------------------


def wire(hub: Hub, tab: SearchTab) -> None:
    the_map = hub.page.parts["map"].map
    shown = [tab.results, tab.shown_query, tab.shown_like, tab.shown_image, the_map]
    nothing: Updates = {tab.results: gr.skip()}

    def searched(services: Services, query: str, arm: str = "") -> Updates:
        return {**on_words(hub, services, tab, query, arm), tab.query: query.strip()}

    def typed(services: Services, query: str, arm: str, now: str) -> Updates:
        # What is being typed need not be a query yet, and must not be written back under the visitor's fingers.
        stays = query.strip() == now or not has_words(query)
        return nothing if stays else on_words(hub, services, tab, query, arm)

    def narrowed(services: Services, arm: str, now: str) -> Updates:
        return on_words(hub, services, tab, now, arm) if now else nothing

    hub.on([tab.query.submit, tab.button.click], searched, [tab.query, tab.arm], [*shown, tab.query])
    settled = "(query) => window.iconoscopeSearch.settled(query)"
    gr.on([tab.query.input], None, [tab.query], tab.typed, js=settled, **QUICK)
    asked = [tab.typed, tab.arm, tab.shown_query]
    hub.on([tab.typed.change], typed, asked, shown, trigger_mode="always_last")
    hub.on([tab.arm.input], narrowed, [tab.arm, tab.shown_query], shown)
    # The picture is looked at when the hidden field changes, whoever changed it: the chooser, or an address.
    chosen = f"(value) => value?.selected || {NO_CHANGE}"
    gr.on([tab.chooser.change], None, [tab.chooser], tab.shown_image, js=chosen, **QUICK)
    # Once something else is searched, no picture is chosen, so that the same one can be chosen again.
    let_go = f"(shown, value) => shown || !value?.selected ? {NO_CHANGE} : {{ ...value, selected: '' }}"
    gr.on([tab.shown_image.change], None, [tab.shown_image, tab.chooser], tab.chooser, js=let_go, **QUICK)
    hub.on([tab.shown_image.change], on_picture(hub, tab), [tab.shown_image], [*shown, tab.query], **LOOKS)
    for component, field in (
        (tab.shown_query, QUERY),
        (tab.arm, ARM),
        (tab.shown_like, LIKE),
        (tab.shown_image, IMAGE),
    ):
        hub.follow(component, field)
    hub.action("search", lambda services, value: {**searched(services, value), tab.arm: "", **hub.tab("search")})
    hub.action("show", lambda services, value: {**searched(services, value), tab.arm: "", **hub.tab("map")})
    hub.action("clear", lambda services, _: searched(services, ""))
    hub.action("lit", lambda _services, _value: hub.tab("map"))
    hub.action("like", lambda services, value: {**on_like(hub, services, tab, value), **hub.tab("search")})


def results(hub: Hub, tab: SearchTab, page: Markup, features: tuple[int, ...], name: str, **shown: str) -> Updates:
    """A page of results; its hits are lit on the map, and the address says what they answer."""
    return {
        tab.results: str(page),
        tab.shown_query: shown.get("query", ""),
        tab.shown_like: shown.get("like", ""),
        tab.shown_image: shown.get("image", ""),
        hub.page.parts["map"].map: show_hits(features, name),
    }


def on_words(hub: Hub, services: Services, tab: SearchTab, query: str, arm: str) -> Updates:
    """Hits of a query; an empty one shows the welcome instead. Raises what Search.query raises."""
    text = query.strip()
    if not text:
        return results(hub, tab, search_views.welcome(services), (), "")
    found = searching.by_words(services, text, arm or "")
    page = search_views.by_words(services, text, arm or "", found)
    return results(hub, tab, page, found.features, text, query=text)


def on_like(hub: Hub, services: Services, tab: SearchTab, value: str) -> Updates:
    """Features like another; the query makes room. Raises QueryError and what Search.like raises."""
    kind, feature = searching.read_like(services, value)
    found = searching.by_likeness(services, kind, feature)
    page = search_views.by_likeness(services, kind, feature, found)
    name = f"like feature {feature} {searching.LIKE_WORDS[kind]}"
    return {**results(hub, tab, page, found.features, name, like=f"{kind}:{feature}"), tab.query: ""}


def on_picture(hub: Hub, tab: SearchTab) -> Any:
    """The handler that looks at a picture and yields what it finds."""

    def looked(services: Services, image: str, request: gr.Request) -> Iterator[Updates]:
        if not image:
            return
        wanted, who = pictures.normal(image), visitor(request)
        turn = _latest.begin(who)
        try:
            for step in searching.by_picture(services, who, wanted):
                if not _latest.is_on(who, turn):
                    return
                if isinstance(step, Waiting):
                    yield {tab.results: str(search_views.waiting(search_views.in_line(step)))}
                else:
                    page = search_views.by_picture(services, wanted, step)
                    name = f"what fires on {searching.picture_name(wanted)}"
                    yield {**results(hub, tab, page, step.features, name, image=image), tab.query: ""}
        except ImageMissing as error:
            # Nothing is searched by now, so that the picture counts as a new wish when it is uploaded again.
            yield {tab.results: str(search_views.problem(services, str(error))), tab.shown_image: ""}
        except IconoscopeError as error:
            yield {tab.results: str(search_views.problem(services, f"This picture cannot be searched by: {error}"))}

    return looked


# the address, and other tabs -----------------------------------------------------------------------------------------


def restore(hub: Hub, services: Services, tab: SearchTab, state: UrlState) -> Updates:
    """What the address asks for: a picture before a likeness before words. Raises what they raise."""
    image, like = state["qimage"], state["like"]
    chooser = _to_search(chooser_value(services, image, exemplars=offered(services), legend=LEGEND))
    begun: Updates = {tab.arm: state["arm"], tab.chooser: chooser}
    if image:
        waiting = search_views.waiting("Looking at the picture …")
        return {**begun, **results(hub, tab, waiting, (), "", image=image), tab.query: ""}
    if like:
        return {**begun, **on_like(hub, services, tab, like)}
    if not state["q"] and services is hub.catalogue.default:
        # A visitor may have searched before the address was read: what it does not speak of stays.
        return begun if state["arm"] else {tab.chooser: chooser}
    return {**begun, **on_words(hub, services, tab, state["q"], state["arm"]), tab.query: state["q"].strip()}


def opened(services: Services, tab: SearchTab, record: FeatureRecord, state: UrlState | None) -> Updates:
    """A search stays as it is when a feature opens; its pictures are offered to search by."""
    if state is not None:
        return {}  # restore() has said it all
    exemplars = services.pictures(record.feature, N_OFFERED)
    choices = chooser_choices(services, exemplars=exemplars, maximum=record.maximum, legend=LEGEND)
    return {tab.chooser: _to_search(choices)}


def _to_search(value: dict[str, Any]) -> dict[str, Any]:
    """A chooser without the blank image: here that would mean no picture at all."""
    return {**value, "choices": [choice for choice in value["choices"] if choice["id"] != pictures.BLANK]}


def offered(services: Services) -> tuple[Any, ...]:
    """Pictures to begin with: the strongest exemplar of each feature to begin with."""
    return tuple(one for feature in starters(services) for one in services.pictures(feature, 1))
