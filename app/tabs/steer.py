"""Steer: push the subject model along one feature and read what it says, beside two controls, live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.cards import words
from app.components.charts import truth_badge
from app.components.exemplars import figure
from app.components.markup import Markup, h
from app.components.numbers import count, number
from app.components.picker import chosen_image, image_picker, picker_value
from app.hub import Hub, Updates, visitor
from app.services import Services
from app.steering_worker import MAX_PROMPT_CHARACTERS, SteerFrame, SteerRequest
from app.tabs.feature import parse_feature
from app.url_fields import Choice, Field, Number, Text, UrlState
from backend.errors import IconoscopeError, InterventionNotApplied
from backend.feature_store import FeatureRecord
from backend.types import Method, Operation, PatchScope

TITLE = "Steer"
OPERATION = Choice("operation", tuple(one.value for one in Operation), Operation.ADD.value)
SCOPE = Choice("scope", (PatchScope.ALL.value, PatchScope.ACTIVE.value))
STRENGTH = Number("strength")
IMAGE = Text("image", most=120)
PROMPT = Text("prompt")
FIELDS: tuple[Field, ...] = (OPERATION, SCOPE, STRENGTH, IMAGE, PROMPT)
N_PICTURES = 6
COLUMN_TITLES = {
    "unsteered": ("Unsteered", "the image as it is"),
    "steered": ("Steered", "along this feature"),
    "random": ("Random direction", "same strength, same patches, a direction that means nothing"),
}
OPERATIONS = [("Add", Operation.ADD.value), ("Set", Operation.SET.value), ("Ablate", Operation.ABLATE.value)]
SCOPES = [("All patches", PatchScope.ALL.value), ("Active patches", PatchScope.ACTIVE.value)]
PROMPT_LABELS = {"steering": "Steering", "top_k_masks": "Top-k masks", "top_k_heatmaps": "Top-k heatmaps"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerTab:
    """Components of the tab."""

    number: gr.Number
    chosen: gr.HTML
    operation: gr.Radio
    scope: gr.Radio
    strength: gr.Slider
    strength_note: gr.HTML
    recommended: gr.Button
    image: gr.HTML
    preset: gr.Dropdown
    prompt: gr.Textbox
    start: gr.Button
    stop: gr.Button
    answers: gr.HTML
    recorded: gr.HTML


def build(services: Services, static_version: str) -> SteerTab:
    presets = prompts(services)
    with gr.Row():
        with gr.Column(scale=1, min_width=320, elem_classes="ico-controls"):
            with gr.Row(equal_height=True):
                feature = gr.Number(label="Feature number", precision=0, minimum=0, elem_id="ico-steer-feature")
            chosen = gr.HTML(str(_no_feature()), apply_default_css=False)
            operation = gr.Radio(OPERATIONS, value=Operation.ADD.value, label="Operation", elem_id="ico-operation")
            strength = gr.Slider(
                0, 100, value=0, step=0.1, label="Strength (residual-stream L2)", elem_id="ico-strength"
            )
            note = gr.HTML("", apply_default_css=False)
            recommended = gr.Button("Recommended strength", size="sm", elem_id="ico-recommended")
            scope = gr.Radio(SCOPES, value=PatchScope.ALL.value, label="Patches", elem_id="ico-scope")
            image = image_picker(static_version, elem_id="ico-picker")
            preset = gr.Dropdown(list(presets), value=next(iter(presets), None), label="Prompt preset")
            prompt = gr.Textbox(
                value=next(iter(presets.values()), ""),
                label="Prompt",
                lines=2,
                max_length=MAX_PROMPT_CHARACTERS,
                elem_id="ico-prompt",
            )
        with gr.Column(scale=3, min_width=320):
            with gr.Row(elem_classes="ico-run-row"):
                start = gr.Button("Start", variant="primary", scale=0, min_width=140, elem_id="ico-start")
                stop = gr.Button("Stop", scale=0, min_width=100, elem_id="ico-stop")
            answers = gr.HTML(str(columns(None, "Press Start.")), elem_id="ico-answers", apply_default_css=False)
            recorded = gr.HTML("", elem_id="ico-recorded", apply_default_css=False)
    return SteerTab(
        number=feature,
        chosen=chosen,
        operation=operation,
        scope=scope,
        strength=strength,
        strength_note=note,
        recommended=recommended,
        image=image,
        preset=preset,
        prompt=prompt,
        start=start,
        stop=stop,
        answers=answers,
        recorded=recorded,
    )


def wire(hub: Hub, tab: SteerTab) -> None:
    presets = prompts(hub.catalogue.default)
    hub.on([tab.number.submit], lambda services, value: _numbered(hub, services, value), [tab.number])
    note_inputs = [tab.number, tab.strength, tab.operation]
    hub.on([tab.strength.change, tab.operation.change], _on_strength, note_inputs, [tab.strength_note])
    hub.on([tab.recommended.click], _on_recommended, [tab.number], [tab.strength])
    hub.on([tab.preset.change], lambda _, name: presets.get(name, ""), [tab.preset], [tab.prompt])
    hub.on(
        [tab.start.click],
        _on_start,
        [tab.number, tab.strength, tab.operation, tab.scope, tab.image, tab.prompt],
        [tab.answers],
        queue=True,
        # Waiting visitors see the worker's own line; the worker's lock lets one in at a time.
        concurrency_id="steering",
        concurrency_limit=8,
        trigger_mode="multiple",
    )
    hub.on([tab.stop.click], _on_stop, [], [])
    hub.follow(tab.operation, OPERATION)
    hub.follow(tab.scope, SCOPE)
    hub.follow(tab.strength, STRENGTH)
    hub.follow(tab.image, IMAGE, "(value) => value?.selected ?? ''")
    hub.follow(tab.prompt, PROMPT)


def _numbered(hub: Hub, services: Services, value: float | None) -> Updates:
    return {} if value is None else hub.opened(services, parse_feature(services, value))


def _on_strength(services: Services, value: float | None, strength: float | None, operation: str) -> str:
    known = value is not None and int(value) in services.store
    record = services.store.feature(int(value or 0)) if known else None
    return str(strength_note(record, strength, operation))


def _on_recommended(services: Services, value: float | None) -> Any:
    return gr.Slider(**state_for(services.store.feature(parse_feature(services, value)), None))


def _on_start(
    services: Services,
    value: float | None,
    strength: float | None,
    operation: str,
    scope: str,
    image: Any,
    prompt: str,
    request: gr.Request,
) -> Iterator[str]:
    asked = request_of(services, value, strength, operation, scope, image, prompt)
    for page in answers(services, visitor(request), asked):
        yield str(page)


def _on_stop(services: Services, request: gr.Request) -> None:
    services.worker.stop(visitor(request))


def restore(hub: Hub, services: Services, tab: SteerTab, state: UrlState) -> Updates:
    del hub
    updates: Updates = {tab.operation: state["operation"], tab.scope: state["scope"]}
    presets = prompts(services)
    updates[tab.preset] = gr.Dropdown(choices=list(presets), value=next(iter(presets), None))
    updates[tab.prompt] = state["prompt"] or next(iter(presets.values()), "")
    return updates


def opened(services: Services, tab: SteerTab, record: FeatureRecord, state: UrlState | None) -> Updates:
    """The tab prepared for a feature, with what the address says or the recommended strength."""
    slider = state_for(record, state["strength"] if state else None)
    operation = state["operation"] if state else Operation.ADD.value
    return {
        tab.number: record.feature,
        tab.chosen: str(chosen_card(services, record)),
        tab.strength: gr.Slider(**slider),
        tab.strength_note: str(strength_note(record, slider["value"], operation)),
        tab.image: pictures(services, record, state["image"] if state else ""),
        tab.recorded: str(recorded(services, record)),
        tab.answers: str(columns(None, "Press Start: the model answers three times at once.", feature=record.feature)),
    }


def prompts(services: Services) -> dict[str, str]:
    """Prompt presets by the name a visitor sees; the steering prompt first, as the one that fits a blank image."""
    texts: Mapping[str, str] = services.meta["prompts"]
    keys = sorted(texts, key=lambda key: key != Method.STEERING.value)
    return {PROMPT_LABELS.get(key) or key.replace("_", " "): texts[key] for key in keys}


def slider_maximum(record: FeatureRecord) -> float:
    """Far enough to see a feature overshoot: three times what is recommended, or eight times its maximum."""
    wanted = 3 * record.recommended_strength if record.recommended_strength else 8 * record.maximum
    return max(10.0, round(wanted / 10 + 0.5) * 10.0)


def default_strength(record: FeatureRecord) -> float:
    """The recommended strength, or four times the feature's maximum where none was selected."""
    value = record.recommended_strength if record.recommended_strength is not None else 4 * record.maximum
    return round(float(value), 1)


def strength_note(record: FeatureRecord | None, strength: float | None, operation: str) -> Markup:
    """The strength in words: as a multiple of the feature's maximum, and against the recommendation."""
    if operation == Operation.ABLATE.value:
        return h("p", "Ablate takes the feature's own activation out; strength is not used.", class_="ico-strength")
    if record is None or strength is None:
        return h("p", "", class_="ico-strength")
    parts = []
    if record.maximum:
        parts.append(f"{strength / record.maximum:.1f} × the feature's maximum ({number(record.maximum)})")
    if record.recommended_strength is not None:
        parts.append(f"recommended {record.recommended_strength:.1f}")
    return h("p", "; ".join(parts), class_="ico-strength")


def chosen_card(services: Services, record: FeatureRecord) -> Markup:
    exemplars = services.pictures(record.feature, 1)
    pictures = [figure(one, record.maximum, services.version, caption=False) for one in exemplars]
    truth = None
    if record.truth_concept and record.truth_ap is not None:
        truth = f"truth: {record.truth_concept.replace('_', ' ')}, AP {number(record.truth_ap)}"
    return h(
        "div",
        *pictures,
        h("div", words(record.best_text), h("p", truth, class_="ico-why") if truth else None),
        class_="ico-chosen ico-page",
    )


def recorded(services: Services, record: FeatureRecord) -> Markup:
    """What the atlas recorded for this feature under steering and its controls, to read beside the live answers."""
    rows = []
    for one in services.store.explanations(record.feature):
        if one.arm.method is not Method.STEERING and not one.arm.is_control:
            continue
        strength = "–" if one.strength is None else f"{one.strength:.1f} L2"
        text = one.text or f"no text: {one.failure or 'the model gave none'}"
        cells = [h("th", one.arm.label, scope="row"), h("td", text, class_="ico-words" if one.text else "ico-why")]
        rows.append(h("tr", *cells, h("td", strength), h("td", truth_badge(one.truth_outcome.value))))
    head = h("tr", *(h("th", name, scope="col") for name in ("Recorded", "Answer", "Strength", "Verdict")))
    table = h("table", h("thead", head), h("tbody", *rows), class_="ico-table")
    told = "From the atlas, made with the steering prompt on the blank image (n = 1 answer each)."
    return h(
        "div",
        h("div", h("p", told, class_="ico-why"), h("div", table, class_="ico-table-scroll"), class_="ico-recorded"),
        class_="ico-page",
    )


def _no_feature() -> Markup:
    return h("p", "Type a feature number, or press “Steer this feature” on its page.", class_="ico-why")


def columns(frame: SteerFrame | None, status: str, *, streaming: bool = False, feature: int | None = None) -> Markup:
    """The three answers side by side, each labelled and with its count of edited patches."""
    cards = []
    for place, (key, (title, subtitle)) in enumerate(COLUMN_TITLES.items()):
        subtitle = subtitle if feature is None else subtitle.replace("this feature", f"feature {feature}")
        text = frame.texts[place] if frame else ""
        edited = frame.n_patches_edited[place] if frame else None
        if text or streaming:
            body = h("p", text, class_="ico-words is-streaming" if streaming else "ico-words")
        else:
            body = h("p", "The model said nothing." if frame else "", class_="ico-why ico-words")
        told = "no answer yet" if edited is None else f"{count(edited)} patches edited"
        cards.append(
            h(
                "article",
                h("h3", title),
                h("span", subtitle, class_="ico-why"),
                body,
                h("span", told, class_="ico-n"),
                class_="ico-answer",
                data_column=key,
            )
        )
    return h(
        "div",
        h("div", *cards, class_="ico-columns", aria_live="off"),
        h("p", status, class_="ico-status", role="status"),
        class_="ico-page",
    )


def request_of(
    services: Services,
    feature: float | None,
    strength: float | None,
    operation: str,
    scope: str,
    image: Any,
    prompt: str,
) -> SteerRequest:
    """Check what the browser sent. Raises UnknownFeature or SubjectError."""
    return SteerRequest(
        feature=parse_feature(services, feature),
        strength=float(strength or 0.0),
        operation=Operation(operation),
        scope=PatchScope(scope),
        image_id=chosen_image(image),
        prompt=prompt or "",
    )


def answers(services: Services, visitor: str, request: SteerRequest) -> Iterator[Markup]:
    """The three columns after each token, and at last with what was done. Raises what the worker raises."""
    ahead = services.worker.n_taken
    waiting = "Starting …" if services.worker.ready else "Loading the subject model …"
    waiting = f"Waiting: {count(ahead)} before you." if ahead else waiting
    yield columns(None, waiting, streaming=True, feature=request.feature)
    try:
        for frame in services.worker.run(visitor, request):
            if frame.done:
                yield columns(frame, summary(services, request, frame), feature=request.feature)
            else:
                yield columns(frame, f"Answering … {frame.seconds:.1f} s", streaming=True, feature=request.feature)
    except InterventionNotApplied as error:
        told = not_applied(request, error)
        yield columns(None, f"No answer: {told}", feature=request.feature)
        raise InterventionNotApplied(told) from error
    except IconoscopeError as error:
        # Half an answer must not stand there as if it were one.
        yield columns(None, f"No answer: {error}", feature=request.feature)
        raise


def not_applied(request: SteerRequest, error: InterventionNotApplied) -> str:
    """Why nothing was edited, and what to do about it."""
    needs_activity = request.operation is Operation.ABLATE or request.scope is PatchScope.ACTIVE
    if needs_activity and request.image_id is None:
        return f"feature {request.feature} is not active on the blank image. Choose one of its exemplars as the image."
    return f"{error}."


def summary(services: Services, request: SteerRequest, frame: SteerFrame) -> str:
    """One line that says exactly what was done, so that it can be repeated."""
    amount = "" if request.operation is Operation.ABLATE else f" at strength {request.strength:.1f} L2"
    where = "the blank image" if request.image_id is None else f"image {request.image_id}"
    end = "Stopped" if frame.stopped else "Done"
    patches = "all patches" if request.scope is PatchScope.ALL else "active patches"
    told = f"{end} in {frame.seconds:.1f} s: {request.operation.value} feature {request.feature}{amount} on {patches} "
    return f"{told}of {where}; greedy; one answer each (n = 1); {services.subject_name}."


def state_for(record: FeatureRecord, strength: float | None) -> dict[str, Any]:
    """Slider settings for a feature; a strength beyond the slider widens it."""
    value = default_strength(record) if strength is None else strength
    return {"maximum": max(slider_maximum(record), value), "value": value}


def pictures(services: Services, record: FeatureRecord, selected: str) -> dict[str, Any]:
    """The image picker's value: blank and the first exemplars, with ``selected`` chosen if it is among them."""
    exemplars = services.pictures(record.feature, N_PICTURES)
    return picker_value(exemplars, selected, record.maximum, services.version)
