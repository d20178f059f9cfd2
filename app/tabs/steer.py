"""Steer: push the subject model along features and read what it says, beside three controls, live."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr

from app import pictures
from app.components.image_chooser import chooser_value, chosen_image, image_chooser
from app.components.patch_picker import chosen_patches, patch_picker, picker_value
from app.components.steer_set import MAX_ROWS, default_row, row_value, rows_of, set_value, steer_set
from app.hub import QUICK, Hub, Updates, visitor
from app.services import Services
from app.starters import starters
from app.steer_runs import shown_answers, shown_doses
from app.steer_setup import (
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    MIN_TOP_P,
    Patches,
    Rows,
    SteerSetup,
    Where,
)
from app.steer_views import columns, recorded, who_answers
from app.tabs.feature import parse_feature
from app.url_fields import Choice, Field, Number, Text, UrlState, Whole, by_name, parse
from backend.errors import SubjectError
from backend.feature_store import FeatureRecord
from backend.types import Method, PatchScope

TITLE = "Steer"
LEGEND = "Image to steer on"
STEER = Rows("steer")
PATCHES = Patches("patches")
IMAGE = Text("image", most=200)
PROMPT = Text("prompt", most=MAX_PROMPT_CHARACTERS)
SAMPLING = Choice("sampling", ("greedy", "sampled"))
TEMPERATURE = Number("temperature", MIN_TEMPERATURE, MAX_TEMPERATURE)
TOP_P = Number("top_p", MIN_TOP_P, 1.0)
SEED = Whole("seed", MAX_SEED)
FIELDS: tuple[Field, ...] = (STEER, PATCHES, IMAGE, PROMPT, SAMPLING, TEMPERATURE, TOP_P, SEED)
OPENED = ("rows", "recorded", "image")
N_PICTURES = 6
DEFAULT_TEMPERATURE, DEFAULT_TOP_P, DEFAULT_SEED = 0.7, 0.95, 0
SCOPES = [("All", PatchScope.ALL.value), ("Active", PatchScope.ACTIVE.value), ("Painted", PatchScope.GIVEN.value)]
PROMPT_LABELS = {"steering": "Steering", "top_k_masks": "Top-k masks", "top_k_heatmaps": "Top-k heatmaps"}
READY = "Press Start: the model answers four times at once, three of them as controls."
RUNS: dict[str, Any] = {
    "queue": True,
    # Whoever waits is told so by the worker's own line; Gradio's must never be the shorter one.
    "concurrency_id": "steering",
    "concurrency_limit": 48,
    "trigger_mode": "multiple",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerTab:
    """Components of the tab."""

    rows: gr.HTML
    scope: gr.Radio
    painted: gr.HTML
    image: gr.HTML
    preset: gr.Dropdown
    prompt: gr.Textbox
    sampling: gr.Radio
    temperature: gr.Number
    top_p: gr.Number
    seed: gr.Number
    start: gr.Button
    stop: gr.Button
    try_doses: gr.Button
    who: gr.HTML
    """Which model answers; shown where it is not the atlas's own as it is."""
    answers: gr.HTML
    doses: gr.HTML
    recorded: gr.HTML

    @property
    def asked(self) -> list[Any]:
        """What a set-up is read from, in the order of :func:`setup_of`."""
        return [
            self.rows,
            self.scope,
            self.painted,
            self.image,
            self.prompt,
            self.sampling,
            self.temperature,
            self.top_p,
            self.seed,
        ]


# layout -----------------------------------------------------------------------------------------------------------


def build(services: Services) -> SteerTab:
    with gr.Row(elem_classes="ico-steer"):
        with gr.Column(scale=1, min_width=320, elem_classes="ico-controls"):
            rows = steer_set(elem_id="ico-steer-set")
            with gr.Column(elem_classes="ico-steer-where"):
                scope = gr.Radio(SCOPES, value=PatchScope.ALL.value, label="Patches", elem_id="ico-scope")
                painted = patch_picker(elem_id="ico-steer-patches")
            image = image_chooser(elem_id="ico-steer-image")
        with gr.Column(scale=3, min_width=320, elem_classes="ico-steer-main"):
            asking = _asking(services)
            who = gr.HTML(elem_id="ico-who-answers", apply_default_css=False, **_who(services))
            output = gr.HTML(str(columns(None, ready(services))), elem_id="ico-answers", apply_default_css=False)
            can = services.store.cannot_steer is None
            try_doses = gr.Button("Try ten strengths", elem_id="ico-try-doses", scale=0, min_width=180, interactive=can)
            strip = gr.HTML("", elem_id="ico-doses", apply_default_css=False)
            from_atlas = gr.HTML("", elem_id="ico-recorded", apply_default_css=False)
    return SteerTab(
        rows=rows,
        scope=scope,
        painted=painted,
        image=image,
        try_doses=try_doses,
        who=who,
        answers=output,
        doses=strip,
        recorded=from_atlas,
        **asking,
    )


def _who(services: Services) -> dict[str, Any]:
    """What the line about the answering model shows, and whether it does."""
    return {"value": str(who_answers(services)), "visible": not services.answering.is_own}


def _asking(services: Services) -> dict[str, Any]:
    """The question, how it is answered, and the two buttons."""
    presets = prompts(services)
    with gr.Row(elem_classes="ico-steer-ask"):
        preset = gr.Dropdown(
            list(presets), value=next(iter(presets), None), label="Prompt of the paper", scale=1, min_width=170
        )
        prompt = gr.Textbox(
            value=next(iter(presets.values()), ""),
            label="Prompt",
            lines=1,
            max_lines=4,
            max_length=MAX_PROMPT_CHARACTERS,
            elem_id="ico-prompt",
            scale=4,
            min_width=260,
        )
    with gr.Row(elem_classes="ico-run-row ico-steer-run"):
        can = services.store.cannot_steer is None
        start = gr.Button("Start", variant="primary", scale=0, min_width=140, elem_id="ico-start", interactive=can)
        stop = gr.Button("Stop", scale=0, min_width=100, elem_id="ico-stop")
        sampling = gr.Radio(
            [("Greedy", "greedy"), ("Sampled", "sampled")], value="greedy", label="Tokens", elem_id="ico-sampling"
        )
        temperature = gr.Number(
            DEFAULT_TEMPERATURE, label="Temperature", minimum=MIN_TEMPERATURE, maximum=MAX_TEMPERATURE, step=0.1
        )
        top_p = gr.Number(DEFAULT_TOP_P, label="Top-p", minimum=MIN_TOP_P, maximum=1, step=0.05)
        seed = gr.Number(DEFAULT_SEED, label="Seed", minimum=0, maximum=MAX_SEED, precision=0)
    names = ("preset", "prompt", "start", "stop", "sampling", "temperature", "top_p", "seed")
    parts = (preset, prompt, start, stop, sampling, temperature, top_p, seed)
    return dict(zip(names, parts, strict=True))


def ready(services: Services) -> str:
    """What stands below the columns before anything is asked: how to begin, or why nothing can be asked."""
    why = services.store.cannot_steer
    return READY if why is None else f"Nothing can be steered here. {why}."


def prompts(services: Services) -> dict[str, str]:
    """Prompt presets by the name a visitor sees; the steering prompt first, as the one that fits a blank image."""
    texts: Mapping[str, str] = services.meta["prompts"]
    keys = sorted(texts, key=lambda key: key != Method.STEERING.value)
    return {PROMPT_LABELS.get(key) or key.replace("_", " "): texts[key] for key in keys}


def preset_of(services: Services, prompt: str) -> str | None:
    """The name of the preset that says this; None for a visitor's own words."""
    return next((name for name, text in prompts(services).items() if text == prompt), None)


# wires ------------------------------------------------------------------------------------------------------------


def wire(hub: Hub, tab: SteerTab) -> None:
    hub.on([tab.start.click, tab.prompt.submit], on_start, tab.asked, [tab.answers], **RUNS)
    hub.on([tab.try_doses.click], on_doses, tab.asked, [tab.doses], **RUNS)
    hub.on([tab.stop.click], on_stop, [], [])
    hub.on([tab.rows.select], on_add, [tab.rows], [tab.rows])
    hub.on([tab.image.change], on_image, [tab.image, tab.painted], [tab.painted])
    hub.on([tab.preset.input], lambda services, name: prompts(services).get(name, ""), [tab.preset], [tab.prompt])
    hub.on([tab.prompt.blur], preset_of, [tab.prompt], [tab.preset])
    hub.action("steer", lambda services, value: steered(hub, services, tab, value))
    _follow(hub, tab)


def _follow(hub: Hub, tab: SteerTab) -> None:
    """The address: the set writes its own field, since only the browser knows what is its default."""
    where = "(scope, painted) => { window.iconoscopeSteerSet?.keepPatches(scope, painted); }"
    gr.on([tab.scope.change, tab.painted.change], None, [tab.scope, tab.painted], None, js=where, **QUICK)
    hub.follow(tab.image, IMAGE, "(value) => value?.selected ?? ''")
    first_prompts = {next(iter(prompts(services).values()), "") for services in hub.catalogue}
    # Where atlases start with different prompts, the address always says which one is meant.
    hub.follow(tab.prompt, PROMPT, _unless_default(first_prompts.pop() if len(first_prompts) == 1 else ""))
    hub.follow(tab.sampling, SAMPLING)
    defaults = ((tab.temperature, TEMPERATURE, DEFAULT_TEMPERATURE), (tab.top_p, TOP_P, DEFAULT_TOP_P))
    for component, field, default in (*defaults, (tab.seed, SEED, DEFAULT_SEED)):
        hub.follow(component, field, _unless_default(default))


def _unless_default(default: str | float) -> str:
    """A script that writes a value unless it is what the page starts with."""
    return f"(value) => value === {json.dumps(default)} ? '' : value"


# handlers ---------------------------------------------------------------------------------------------------------


def setup_of(
    services: Services,
    rows: Any,
    scope: Any,
    painted: Any,
    image: Any,
    prompt: Any,
    sampling: Any,
    temperature: Any,
    top_p: Any,
    seed: Any,
) -> SteerSetup:
    """Check what the browser sent. Raises SubjectError."""
    if scope not in set(PatchScope):
        raise SubjectError("Choose which patches to edit: all, active or painted ones.")
    given = PatchScope(scope) is PatchScope.GIVEN
    sampled = sampling == "sampled"
    return SteerSetup(
        rows=rows_of(rows),
        where=Where(PatchScope(scope), chosen_patches(painted, services.store.grid) if given else ()),
        image_id=chosen_image(image),
        prompt=str(prompt or ""),
        temperature=_number(temperature, DEFAULT_TEMPERATURE) if sampled else None,
        top_p=_number(top_p, DEFAULT_TOP_P) if sampled else DEFAULT_TOP_P,
        seed=int(_number(seed, DEFAULT_SEED)) if sampled else DEFAULT_SEED,
    )


def _number(value: Any, default: float) -> float:
    """A number the browser sent; an emptied box means the default."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def on_start(
    services: Services,
    rows: Any,
    scope: Any,
    painted: Any,
    image: Any,
    prompt: Any,
    sampling: Any,
    temperature: Any,
    top_p: Any,
    seed: Any,
    request: gr.Request,
) -> Iterator[str]:
    """Four columns after each token, and at last with what was done."""
    setup = setup_of(services, rows, scope, painted, image, prompt, sampling, temperature, top_p, seed)
    yield from map(str, shown_answers(services, visitor(request), setup))


def on_doses(
    services: Services,
    rows: Any,
    scope: Any,
    painted: Any,
    image: Any,
    prompt: Any,
    sampling: Any,
    temperature: Any,
    top_p: Any,
    seed: Any,
    request: gr.Request,
) -> Iterator[str]:
    """The dose-response strip after each token."""
    setup = setup_of(services, rows, scope, painted, image, prompt, sampling, temperature, top_p, seed)
    yield from map(str, shown_doses(services, visitor(request), setup))


def on_stop(services: Services, request: gr.Request) -> None:
    services.worker.stop(visitor(request))


def on_add(services: Services, value: Any, event: gr.SelectData) -> dict[str, Any]:
    """One more feature in the set, at its recommended strength. Raises UnknownFeature or SubjectError."""
    record = services.store.feature(parse_feature(services, event.value))
    rows = rows_of(value)
    if len(rows) >= MAX_ROWS:
        raise SubjectError(f"The set is full: at most {MAX_ROWS} features can be steered at once.")
    if any(row.feature == record.feature for row in rows):
        raise SubjectError(f"Feature {record.feature} is in the set already.")
    known = [row_value(services, row) for row in rows]
    return {**value, "rows": [*known, row_value(services, default_row(record))], "gentle": False}


def on_image(services: Services, image: Any, painted: Any) -> dict[str, Any]:
    """The patches are painted on the image that is chosen."""
    return picker_value(services, chosen_image(image), chosen_patches(painted, services.store.grid))


# the address, and other tabs --------------------------------------------------------------------------------------


def restore(hub: Hub, services: Services, tab: SteerTab, state: UrlState) -> Updates:
    """Everything an address says; a feature that is open comes from :func:`opened`."""
    presets = prompts(services)
    prompt = state["prompt"] or next(iter(presets.values()), "")
    scope, patches = state["patches"]
    image = pictures.normal(state["image"])
    updates: Updates = {
        tab.who: gr.HTML(**_who(services)),
        tab.scope: scope.value,
        tab.painted: picker_value(services, image, patches),
        tab.preset: gr.Dropdown(choices=list(presets), value=preset_of(services, prompt)),
        tab.prompt: prompt,
        tab.sampling: state["sampling"],
        tab.temperature: DEFAULT_TEMPERATURE if state["temperature"] is None else state["temperature"],
        tab.top_p: DEFAULT_TOP_P if state["top_p"] is None else state["top_p"],
        tab.seed: DEFAULT_SEED if state["seed"] is None else state["seed"],
        **steerable(hub, services, tab),
    }
    if state["feature"] is None:
        # The first of the set lends its exemplars and its recorded answers; without a set there is one to begin with.
        first = [row.feature for row in state["steer"]] or starters(services)
        if not first:
            return {**updates, tab.image: chooser_value(services, image, legend=LEGEND)}
        updates |= opened(services, tab, services.store.feature(first[0]), state)
        if not state["steer"]:
            # A visitor may have chosen another one before the address was read: theirs stays.
            updates[tab.rows] = {**updates[tab.rows], "gentle": True}
    return updates


def steerable(hub: Hub, services: Services, tab: SteerTab) -> Updates:
    """The buttons answer, or the tab says why they do not; nothing where every atlas served can be steered."""
    if not any(one.store.cannot_steer for one in hub.catalogue):
        return {}
    can = services.store.cannot_steer is None
    buttons = {button: gr.Button(interactive=can) for button in (tab.start, tab.try_doses)}
    return {**buttons, tab.answers: str(columns(None, ready(services)))}


def opened(services: Services, tab: SteerTab, record: FeatureRecord, state: UrlState | None) -> Updates:
    """The tab prepared for a feature: what the address says, or the recommended strength.

    A set that the visitor has changed by hand stays, and the feature is offered beside it.
    """
    rows = state["steer"] if state else ()
    image = pictures.normal(state["image"]) if state else ""
    updates: Updates = {
        tab.rows: set_value(services, rows, record, gentle=state is None),
        tab.recorded: str(recorded(services, record)),
    }
    exemplars = services.pictures(record.feature, N_PICTURES)
    chooser = chooser_value(services, image, exemplars=exemplars, maximum=record.maximum, legend=LEGEND)
    return {**updates, tab.image: chooser}


def steered(hub: Hub, services: Services, tab: SteerTab, value: str) -> Updates:
    """The Steer tab for a feature number, or for a whole set-up written as an address (``steer=97:ablate&image=…``).

    Raises UnknownFeature.
    """
    if "=" not in value:
        record = services.store.feature(parse_feature(services, value))
        updates = hub.opened(services, record.feature)
        return {**updates, tab.rows: set_value(services, (), record), **hub.tab("steer")}
    fields = by_name([FIELDS, (Whole("feature"),)])
    state = parse(fields, dict(parse_qsl(value[:8000], keep_blank_values=True)))
    updates = restore(hub, services, tab, state)
    if state["feature"] is not None:
        updates = {**hub.opened(services, state["feature"], None), **updates}
        updates |= opened(services, tab, services.store.feature(state["feature"]), state)
    return {**updates, **hub.tab("steer")}
