"""How steered answers look: four columns, the dose-response strip, and what steering changed token by token."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import TYPE_CHECKING

from app import pictures
from app.components.charts import truth_badge
from app.components.markup import Markup, h
from app.components.numbers import count, number
from app.services import Services
from app.steer_answers import COLUMNS, CONTROL_SEED, OWN_DOSE, AnswerFrame, DoseFrame
from app.steer_setup import DOSE_TOKENS, DOSES, SteerSetup, written_patches, written_rows
from backend.feature_store import FeatureRecord
from backend.types import Method, Operation, PatchScope

if TYPE_CHECKING:
    from backend.models.base import AnswerToken

TITLES = {
    "unsteered": ("Unsteered", "the image as it is"),
    "steered": ("Steered", "along the chosen features"),
    "random": ("Random direction", "same edit, a direction that means nothing"),
    "permuted": ("Permuted direction", "same edit, another feature's direction"),
}
SHORT = {"unsteered": "unsteered", "steered": "steered", "random": "random", "permuted": "permuted"}
CHANGED = 0.1
"""A token counts as steering's doing if its probability rose by at least this much."""
EMPTY = "The model said nothing."


def columns(frame: AnswerFrame | None, status: str, *, streaming: bool = False, line: Markup | None = None) -> Markup:
    """The four answers side by side, each labelled and with its count of edited patches, and one line below."""
    cards = [_answer(at, key, frame, streaming) for at, key in enumerate(COLUMNS)]
    return h(
        "div",
        h("div", *cards, class_="ico-columns", aria_live="off"),
        h("p", status, class_="ico-status", role="status"),
        line,
        _tokens(frame.tokens) if frame is not None and frame.tokens else None,
        class_="ico-page ico-steered",
    )


def _answer(at: int, key: str, frame: AnswerFrame | None, streaming: bool) -> Markup:
    title, subtitle = TITLES[key]
    text = frame.texts[at] if frame else ""
    edited = frame.n_patches_edited[at] if frame and frame.n_patches_edited else None
    if text or streaming:
        body = h("p", text, class_="ico-words is-streaming" if streaming else "ico-words")
    else:
        body = h("p", EMPTY if frame and frame.done and not frame.stopped else "", class_="ico-why ico-words")
    told = "no answer yet" if edited is None else f"{count(edited)} patches edited"
    return h(
        "article",
        h("h3", title),
        h("p", subtitle, class_="ico-why ico-answer-what"),
        body,
        h("p", told, class_="ico-n"),
        class_="ico-answer",
        data_column=key,
    )


def done_line(services: Services, setup: SteerSetup, frame: AnswerFrame | DoseFrame) -> Markup:
    """One line that says exactly what was done, so that it can be repeated."""
    end = "Stopped" if frame.stopped else "Done"
    told = f"{end} in {frame.seconds:.1f} s: {described(services, setup)}; one answer each (n = 1); "
    told += f"random direction of seed {CONTROL_SEED}; {services.answering.phrase(services.steered_name)}."
    again = "The address of this page holds this set-up, and Start gives the same words again."
    return h("div", h("p", told, class_="ico-line"), h("p", again, class_="ico-why"), class_="ico-repeat")


def who_answers(services: Services) -> Markup:
    """One line for a page whose answers come from another model, or from rounded weights."""
    return h("p", services.live_answers, class_="ico-why ico-who-answers")


def described(services: Services, setup: SteerSetup) -> str:
    """The set-up as a phrase: what was done to which features, where, on which image, and how tokens were chosen."""
    verbs = {Operation.ADD: "add", Operation.SET: "set", Operation.ABLATE: "ablate"}
    done: list[str] = []
    for row in setup.rows:
        amount = "" if row.operation is Operation.ABLATE else f" at strength {row.strength:.1f} L2"
        done.append(f"{verbs[row.operation]} feature {row.feature}{amount}")
    scope, patches = setup.where
    n_all = services.store.grid.n_patches
    where = {
        PatchScope.ALL: f"all {count(n_all)} patches",
        PatchScope.ACTIVE: "the patches where each feature is active",
        PatchScope.GIVEN: f"{count(len(patches))} of {count(n_all)} patches ({_cut(written_patches(patches))})",
    }[scope]
    drawn = "greedy"
    if setup.temperature is not None:
        drawn = f"sampled at temperature {setup.temperature:g}, top-p {setup.top_p:g}, seed {setup.seed}"
    return f"{', then '.join(done)} on {where} of {pictures.name(setup.image_id)}; {drawn}"


def _cut(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


# token by token ---------------------------------------------------------------------------------------------------


def _tokens(rows: Sequence[Sequence[AnswerToken]]) -> Markup | None:
    """Each token of the steered answer over its probabilities in the four columns."""
    tokens = list(zip(*rows, strict=True))
    if not tokens:
        return None
    n_raised = sum(_raised(token) for token in tokens)
    told = (
        f"The steered answer has {count(len(tokens))} tokens; steering made {count(n_raised)} of them likelier by "
        f"{CHANGED:g} or more. Bars are the probability of each token after the words before it; the numbers are that "
        f"without and with steering (n = 1 answer)."
    )
    key = h("p", *(h("span", h("i", data_row=name), SHORT[name]) for name in COLUMNS), class_="ico-token-key")
    return h(
        "section",
        h("h3", "What steering changed, token by token"),
        h("p", told, class_="ico-why"),
        key,
        h("div", *(_token(token) for token in tokens), class_="ico-tokens", aria_hidden="true"),
        h("details", h("summary", "The numbers as a table"), _token_table(tokens), class_="ico-token-table"),
        class_="ico-token-view",
    )


def _raised(token: Sequence[AnswerToken]) -> bool:
    unsteered, steered = exp(token[0].log_probability), exp(token[1].log_probability)
    return steered - unsteered >= CHANGED


def _token(token: Sequence[AnswerToken]) -> Markup:
    bars = [
        h("i", data_row=name, style=f"--p:{exp(one.log_probability):.3f}")
        for name, one in zip(COLUMNS, token, strict=True)
    ]
    lines = [
        h("span", f"{SHORT[name]} {probability(one.log_probability)}", _rather(one))
        for name, one in zip(COLUMNS, token, strict=True)
    ]
    return h(
        "span",
        h("span", *bars, class_="ico-token-bars"),
        h("span", token[1].text.strip() or "␣", class_="ico-token-text"),
        h("span", _step(token), class_="ico-token-step"),
        h("span", *lines, class_="ico-token-tip"),
        class_="ico-token is-raised" if _raised(token) else "ico-token",
    )


def _step(token: Sequence[AnswerToken]) -> str:
    """From unsteered to steered."""
    return f"{probability(token[0].log_probability)} → {probability(token[1].log_probability)}"


def _rather(one: AnswerToken) -> Markup | None:
    """What the column would rather have said, where it would."""
    if one.likeliest_log_probability <= one.log_probability:
        return None
    other = one.likeliest_text or "the end"
    return h("em", f" would say “{other}” {probability(one.likeliest_log_probability)}")


def _token_table(tokens: Sequence[Sequence[AnswerToken]]) -> Markup:
    head = h("tr", *(h("th", name, scope="col") for name in ("Token", *(SHORT[name] for name in COLUMNS))))
    body = [
        h(
            "tr",
            h("th", token[1].text.strip() or "space", scope="row", class_="ico-words"),
            *(h("td", probability(one.log_probability), _rather(one)) for one in token),
        )
        for token in tokens
    ]
    table = h("table", h("thead", head), h("tbody", *body), class_="ico-table")
    return h("div", table, class_="ico-table-scroll")


def probability(log_probability: float) -> str:
    """A probability to two decimals; small ones say that they are not zero."""
    value = exp(log_probability)
    return "<\N{NO-BREAK SPACE}0.01" if value < 0.01 else f"{value:.2f}"


# strengths --------------------------------------------------------------------------------------------------------


def dose_strip(services: Services, setup: SteerSetup, frame: DoseFrame | None, status: str, streaming: bool) -> Markup:
    """Short answers along an axis of strength, each above what a random direction of that strength gives."""
    if frame is None and not streaming:
        return h("section", h("p", status, class_="ico-status", role="status"), class_="ico-page ico-dose-strip")
    told = (
        "Each answer has its own edit; the line below it is the same edit along a random direction. "
        "Press one to take its strength over."
    )
    cells = [_dose(setup, frame or DoseFrame(), at, streaming) for at in range(len(DOSES))]
    zero = h(
        "li",
        h(
            "div",
            h("span", "0", class_="ico-dose-amount"),
            h("span", "unsteered", class_="ico-n"),
            class_="ico-dose-at",
        ),
        h("p", frame.unsteered if frame else "", class_="ico-words"),
        class_="ico-dose is-zero",
    )
    line = None
    if frame is not None and frame.done:
        what = f"{described(services, setup)}, at {len(DOSES)} strengths"
        seconds = f"{'Stopped' if frame.stopped else 'Done'} in {frame.seconds:.1f} s: "
        line = h("p", f"{seconds}{what}; at most {DOSE_TOKENS} tokens, n = 1 answer each.", class_="ico-line")
    return h(
        "section",
        h("p", told, class_="ico-why"),
        _dose_key() if frame is not None and frame.p_own else None,
        h("ol", zero, *cells, class_="ico-doses", aria_label="Answers by strength"),
        h("p", status, class_="ico-status", role="status") if status else None,
        line,
        class_="ico-page ico-dose-strip",
    )


def _dose_key() -> Markup:
    parts = (("own", "still gives the answer of 1×"), ("unsteered", "still gives the unsteered answer"))
    names = [h("span", h("i", data_curve=name), text) for name, text in parts]
    return h(
        "p", *names, h("span", "geometric mean of its tokens' probabilities", class_="ico-n"), class_="ico-token-key"
    )


def _dose(setup: SteerSetup, frame: DoseFrame, at: int, streaming: bool) -> Markup:
    factor = DOSES[at]
    scaled = setup.scaled(factor)
    amounts = [row.strength for row in scaled.rows if row.operation is not Operation.ABLATE]
    amount = number(amounts[0]) if len(amounts) == 1 else f"{factor:g}×"
    text, control = frame.steered[at], frame.random[at]
    state = "same" if frame.done and text == frame.unsteered else "changed"
    if streaming:
        state = "streaming"
    curves = []
    if frame.p_own and frame.p_unsteered:
        told = f"1× answer {frame.p_own[at]:.2f}, unsteered answer {frame.p_unsteered[at]:.2f}"
        bars = [
            h("i", data_curve="own", style=f"--p:{frame.p_own[at]:.3f}"),
            h("i", data_curve="unsteered", style=f"--p:{frame.p_unsteered[at]:.3f}"),
        ]
        curves.append(h("span", *bars, class_="ico-dose-curves", role="img", aria_label=told, title=told))
    body = [
        h(
            "span",
            h("span", amount, class_="ico-dose-amount"),
            h("span", f"L2 · {factor:g}×" if len(amounts) == 1 else "of each strength", class_="ico-n"),
            class_="ico-dose-at",
        ),
        *curves,
        h("span", text or ("" if streaming or not frame.done else "nothing said"), class_="ico-words"),
        h("span", h("b", "random: "), control, class_="ico-dose-control"),
    ]
    button = h(
        "button",
        *body,
        type="button",
        data_steer_take=written_rows(scaled.rows),
        title=f"Take over {factor:g} times the strength",
    )
    return h("li", button, class_="ico-dose is-own" if at == OWN_DOSE else "ico-dose", data_state=state)


# what the atlas recorded ------------------------------------------------------------------------------------------


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
    told = "Made with the steering prompt on the blank image, every patch edited (n = 1 answer each)."
    return h(
        "section",
        h("h3", f"Recorded in the atlas for feature {record.feature}"),
        h("p", told, class_="ico-why"),
        h("div", table, class_="ico-table-scroll"),
        class_="ico-page ico-recorded",
    )
