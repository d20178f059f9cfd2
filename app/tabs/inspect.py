"""Inspect: a picture, the patches a visitor points at, and the features that fire there, named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import gradio as gr

from app import ablation_views, inspect_views, pictures
from app.ablation import DEFAULT_QUESTION, answers_without
from app.components import addresses
from app.components.image_chooser import chooser_choices, chooser_value, image_chooser
from app.components.patch_picker import inside, patch_picker, picker_value
from app.hub import QUICK, Hub, Updates, visitor
from app.inspecting import RANKINGS, UNUSUAL, inspect
from app.latest import Latest
from app.services import Services
from app.steer_setup import MAX_PROMPT_CHARACTERS, Patches, Where
from app.subject_worker import Waiting
from app.tabs.feature import parse_feature
from app.tabs.map import show_hits
from app.url_fields import BadField, Choice, Field, Text, UrlState, Whole
from backend.errors import IconoscopeError, ImageMissing
from backend.feature_store import FeatureRecord
from backend.types import PatchScope

TITLE = "Inspect"
IMAGE = Text("inspect", most=pictures.MOST_CHARACTERS)
"""An image id; "blank" is the blank image, and "" that nothing was chosen yet."""
SPOT = Patches("spot")
"""The chosen patches; "all" means none was chosen: the whole picture."""
RANKED = Choice("ranked", RANKINGS)
HEAT = Whole("heat")
"""Feature whose heatmap stays on the picture."""
QUESTION = Text("ask", most=MAX_PROMPT_CHARACTERS)
WITHOUT = Whole("without")
"""Feature whose ablation was asked for."""
FIELDS: tuple[Field, ...] = (IMAGE, SPOT, RANKED, HEAT, QUESTION, WITHOUT)
OPENED = ("chooser",)
N_PICTURES = 6
N_LISTED = 30
LEGEND = "Picture to inspect"
RANKING_LABELS = [("Most unusual first", RANKINGS[0]), ("Strongest first", RANKINGS[1])]
FOUND_SCRIPT = """
window.iconoscopeInspect.mount(element, (feature) =>
  trigger('select', {index: feature, value: feature, selected: true}));
"""
RUNS: dict[str, Any] = {
    "queue": True,
    # Whoever waits is told so by the worker's own line; Gradio's must never be the shorter one.
    "concurrency_id": "inspect",
    "concurrency_limit": 48,
    "trigger_mode": "always_last",
}
_latest = Latest()


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectTab:
    """Components of the tab."""

    picker: gr.HTML
    chooser: gr.HTML
    ranked: gr.Radio
    question: gr.Textbox
    asked: gr.Textbox
    """What is inspected, written as a query: every way to ask ends here, and its change asks the server. Hidden."""
    answers: gr.HTML
    found: gr.HTML


def build(services: Services) -> InspectTab:
    with gr.Row(elem_classes="ico-inspect"):
        with gr.Column(scale=2, min_width=320, elem_classes="ico-inspect-picture"):
            picker = patch_picker(elem_id="ico-inspect-patches")
            chooser = image_chooser(elem_id="ico-inspect-image")
        with gr.Column(scale=3, min_width=320, elem_classes="ico-inspect-found"):
            with gr.Row(elem_classes="ico-run-row ico-inspect-bar"):
                ranked = gr.Radio(RANKING_LABELS, value=UNUSUAL, label="Order", elem_id="ico-inspect-ranked")
                question = gr.Textbox(
                    question_of(services),
                    label="Asked with and without a feature (“Answer without it”)",
                    max_length=MAX_PROMPT_CHARACTERS,
                    elem_id="ico-inspect-question",
                )
            answers = gr.HTML("", elem_id="ico-inspect-answers", apply_default_css=False)
            found = gr.HTML(
                str(inspect_views.status(inspect_views.WELCOME)),
                js_on_load=FOUND_SCRIPT,
                elem_id="ico-inspect-list",
                apply_default_css=False,
            )
            # "hidden" keeps it in the page, so that its change reaches the server.
            asked = gr.Textbox("", visible="hidden", elem_id="ico-inspect-asked")
    # Whoever opens this tab before the address is read finds a picture already.
    picker.value = picker_value(services, offered(services))
    chooser.value = chooser_value(services, offered(services), legend=LEGEND)
    return InspectTab(
        picker=picker,
        chooser=chooser,
        ranked=ranked,
        question=question,
        asked=asked,
        answers=answers,
        found=found,
    )


def question_of(services: Services) -> str:
    """What is asked of this atlas's model unless the visitor writes another question."""
    return services.meta["prompts"].get("describe") or DEFAULT_QUESTION


# wires ---------------------------------------------------------------------------------------------------------------


def wire(hub: Hub, tab: InspectTab) -> None:
    shown = [tab.picker, tab.chooser, tab.ranked, tab.asked]
    ask = "(...values) => window.iconoscopeInspect.ask(...values)"
    gr.on([tab.picker.change, tab.chooser.change, tab.ranked.change], None, shown, tab.asked, js=ask, **QUICK)

    # Whoever opens the tab for the first time sees what fires on the picture that is offered.
    def first(services: Services, asked: str, chooser: Any, ranked: str) -> Updates:
        del services
        image = chooser.get("selected") if isinstance(chooser, dict) else None
        return {} if asked or image is None else {tab.asked: asked_of(str(image), (), ranked)}

    hub.on([hub.page.items["inspect"].select], first, [tab.asked, tab.chooser, tab.ranked], [tab.asked])
    hub.on([tab.asked.change], on_asked, [tab.asked, tab.picker], [tab.picker, tab.found, tab.answers], **RUNS)
    hub.on([tab.found.select], on_without, [tab.asked, tab.question], [tab.answers], **RUNS)
    hub.follow(tab.question, QUESTION, f"(value) => value === {DEFAULT_QUESTION!r} ? '' : value")
    hub.action("inspect", lambda services, value: opened_image(hub, services, tab, value))
    the_map = hub.page.parts["map"].map
    hub.action("inspect-map", lambda _, value: {the_map: on_map(value), **hub.tab("map")})


def on_map(value: str) -> dict[str, Any]:
    """The message that lights the listed features on the map."""
    features = [int(one) for one in value.split(".")[:N_LISTED] if one.isascii() and one.isdigit()]
    return show_hits(features, "what fires on the inspected picture")


def opened_image(hub: Hub, services: Services, tab: InspectTab, image_id: str) -> Updates:
    """The tab with an image of the atlas, or any other picture by its id. Raises ImageMissing."""
    image = pictures.require(services, image_id)
    return {**shown_image(services, tab, image), tab.asked: asked_of(image), **hub.tab("inspect")}


def shown_image(services: Services, tab: InspectTab, image_id: str, patches: tuple[int, ...] = ()) -> Updates:
    return {
        tab.chooser: chooser_value(services, image_id, legend=LEGEND),
        tab.picker: picker_value(services, image_id, patches),
    }


def asked_of(image_id: str, patches: tuple[int, ...] = (), ranked: str = UNUSUAL, heat: int | None = None) -> str:
    """What is to be inspected, as the script writes it too."""
    given = Where(PatchScope.GIVEN, patches) if patches else Where()
    fields = {"inspect": image_id or "blank", "spot": SPOT.write(given), "ranked": ranked, "heat": heat}
    return addresses.page(**fields)[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the page asks for; from strangers, hence checked."""

    image_id: str
    patches: tuple[int, ...]
    ranked: str
    heat: int | None


def read_asked(services: Services, text: Any) -> Asked:
    """Inverse of :func:`asked_of`. What is not understood counts as not said."""
    said = {name: values[-1] for name, values in parse_qs(str(text or "")[:40_000]).items()}
    try:
        where = SPOT.parse(said["spot"]) if said.get("spot") else Where()
    except BadField:
        where = Where()
    heat = said.get("heat", "")
    return Asked(
        image_id=pictures.normal(said.get("inspect")),
        patches=inside(where.patches, services.store.grid),
        ranked=said["ranked"] if said.get("ranked") in RANKINGS else UNUSUAL,
        heat=int(heat) if heat.isascii() and heat.isdigit() and len(heat) < 10 else None,
    )


# handlers ------------------------------------------------------------------------------------------------------------


def on_asked(services: Services, asked: Any, picker: Any, request: gr.Request) -> Iterator[Any]:
    """The features on the picture; picture, list and answers of components in this order."""
    keep: Any = gr.skip()
    if not asked:
        yield keep, keep, keep
        return
    wish = read_asked(services, asked)
    picture, cleared = keep, keep
    if not isinstance(picker, dict) or picker.get("image") != wish.image_id:
        picture, cleared = picker_value(services, wish.image_id, wish.patches), ""
    who = visitor(request)
    turn = _latest.begin(who)
    try:
        for step in inspect(services, who, wish.image_id, wish.patches, by=wish.ranked, most=N_LISTED):
            if not _latest.is_on(who, turn):
                yield keep, keep, keep
                return
            if isinstance(step, Waiting):
                yield picture, str(inspect_views.status(inspect_views.waiting(step))), cleared
            else:
                yield picture, str(inspect_views.found(services, step, wish.ranked, wish.heat)), cleared
    except ImageMissing as error:
        yield picture, str(inspect_views.problem(str(error))), ""
    except IconoscopeError as error:
        yield picture, str(inspect_views.problem(f"This picture cannot be inspected: {error}")), ""
        raise


def on_without(
    services: Services, asked: Any, question: str, request: gr.Request, event: gr.SelectData
) -> Iterator[str]:
    """The answers with and without the feature, after each token."""
    wish = read_asked(services, asked)
    feature = parse_feature(services, event.value)
    text = str(question or "").strip() or question_of(services)
    yield str(ablation_views.ablation(services, feature, None, text, "Starting …"))
    try:
        for step in answers_without(services, visitor(request), wish.image_id, feature, text):
            if isinstance(step, Waiting):
                yield str(ablation_views.ablation(services, feature, None, text, inspect_views.waiting(step)))
            else:
                told = "" if step.done else f"Answering … {step.seconds:.1f} s"
                yield str(ablation_views.ablation(services, feature, step, text, told))
    except IconoscopeError as error:
        # Half an answer must not stand there as if it were one.
        yield str(ablation_views.ablation(services, feature, None, text, f"No answer: {error}"))
        raise


# the address, and other tabs -----------------------------------------------------------------------------------------


def offered(services: Services, record: FeatureRecord | None = None) -> str:
    """The picture shown before one is chosen: the open feature's first exemplar, or an image of the atlas."""
    exemplars = services.pictures(record.feature, 1) if record else ()
    if exemplars:
        return exemplars[0].image_id
    ids = services.store.image_ids
    return ids[0] if ids else pictures.BLANK


def restore(hub: Hub, services: Services, tab: InspectTab, state: UrlState) -> Updates:
    """What the address says, or a picture to begin with; it is looked at once the tab is seen.

    A visitor may be there before the address is read: what nothing in the address speaks of stays as it is.
    """
    said = state.says("inspect")
    record = None
    if state["feature"] is not None and state["feature"] in services.store:
        record = services.store.feature(state["feature"])
    image = pictures.normal(state["inspect"]) if said else offered(services, record)
    patches = inside(state["spot"].patches, services.store.grid)
    updates: Updates = {
        **shown_image(services, tab, image, patches),
        tab.ranked: state["ranked"],
        tab.question: state["ask"] or question_of(services),
    }
    if said or state["tab"] == "inspect":
        updates[tab.asked] = asked_of(image, patches, state["ranked"], state["heat"])
    elif services is not hub.catalogue.default:
        updates[tab.asked] = ""  # whoever was quicker than the address asked about another atlas's picture
    if record is not None:
        updates[tab.chooser] = _with_exemplars(services, image, record)
    if state["without"] is not None and state["without"] in services.store:
        updates[tab.answers] = str(ablation_views.ask_again(state["without"]))
    return updates


def opened(services: Services, tab: InspectTab, record: FeatureRecord, state: UrlState | None) -> Updates:
    """The chooser offers the feature's exemplars; the inspected picture stays."""
    if state is not None:
        return {}  # restore() has said it all
    exemplars = services.pictures(record.feature, N_PICTURES)
    return {tab.chooser: chooser_choices(services, exemplars=exemplars, maximum=record.maximum, legend=LEGEND)}


def _with_exemplars(services: Services, image: str, record: FeatureRecord) -> dict[str, Any]:
    exemplars = services.pictures(record.feature, N_PICTURES)
    return chooser_value(services, image, exemplars=exemplars, maximum=record.maximum, legend=LEGEND)
