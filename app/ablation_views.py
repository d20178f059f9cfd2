"""How the Inspect tab shows what the model says about a picture with and without one feature, beside controls."""

from __future__ import annotations

from difflib import SequenceMatcher

from app.ablation import AblationAnswers
from app.components.markup import Child, Markup, h, join
from app.components.numbers import count, percent
from app.inspect_views import frame as page
from app.services import Services


def differences(before: str, after: str) -> Markup:
    """``after``, with the words it gained marked and those it lost struck through."""
    old, new = before.split(), after.split()
    parts: list[Child] = []
    for kind, a, b, c, d in SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(" ".join(new[c:d]))
            continue
        if b > a:
            parts.append(h("del", " ".join(old[a:b])))
        if d > c:
            parts.append(h("mark", " ".join(new[c:d])))
    return join(parts, " ")


def ablation(services: Services, feature: int, frame: AblationAnswers | None, question: str, told: str) -> Markup:
    """Three answers side by side: as it is, without the feature, and a control of the same size."""
    record = services.store.feature(feature)
    named = record.best_text or "no words"
    streaming = frame is not None and not frame.done
    shown = frame or AblationAnswers()
    edited = "" if shown.n_edited is None else f"{count(shown.n_edited)} patches edited"
    cards = (
        ("given", "As it is", "nothing taken out", _answer(shown.given, None, streaming), "0 patches edited"),
        ("without", "Without it", named, _answer(shown.without, shown.given, streaming), edited),
        (
            "random",
            "Random control",
            "the same amount along a direction that means nothing",
            _answer(shown.random[0], shown.given, streaming),
            edited,
        ),
    )
    columns = [
        h(
            "article",
            h("h4", title),
            h("span", subtitle, class_="ico-why"),
            body,
            h("span", note if frame else "no answer yet", class_="ico-n"),
            class_="ico-answer",
            data_column=key,
        )
        for key, title, subtitle, body, note in cards
    ]
    return page(
        h("h3", f"“{question}” with and without feature {feature}", class_="ico-ablation-title"),
        h("div", *columns, class_="ico-columns ico-ablation", aria_live="off"),
        h("p", told or _verdict(feature, shown), class_="ico-status", role="status"),
        _others(shown) if shown.done else None,
    )


def ask_again(feature: int) -> Markup:
    """After a page was loaded anew: the question is not put to the model again by itself."""
    button = h(
        "button", f"Ask again without feature {feature}", type="button", class_="ico-button", data_without=feature
    )
    return page(h("div", button, class_="ico-actions"))


def _answer(text: str, before: str | None, streaming: bool) -> Markup:
    if not text and not streaming:
        return h("p", "", class_="ico-words")
    # While words still arrive, two answers differ in length only because one is ahead.
    body: Child = text if streaming or before is None else differences(before, text)
    return h("p", body, class_="ico-words is-streaming" if streaming else "ico-words")


def _verdict(feature: int, frame: AblationAnswers) -> str:
    if not frame.done:
        return ""
    share = frame.random_changes
    n_changed = sum(text != frame.given for text in frame.random)
    own = "changes the answer" if frame.changed else "does not change the answer"
    told = f"Taking feature {feature} out {own} (n = 1, greedy). Of {len(frame.random)} random directions of the same "
    told += f"size, {n_changed} {'does' if n_changed == 1 else 'do'}"
    if share.low is not None and share.high is not None and share.value is not None:
        told += f" ({percent(share.value)}, 95 % interval {percent(share.low)} to {percent(share.high)})"
    told += "."
    if frame.changed and n_changed > len(frame.random) / 2:
        told += " So the change says little about this feature: any edit of this size would do."
    return f"{told} {frame.seconds:.1f} s."


def _others(frame: AblationAnswers) -> Markup:
    items = [h("li", h("span", differences(frame.given, text), class_="ico-words")) for text in frame.random]
    return h(
        "details",
        h("summary", f"All {len(frame.random)} random controls"),
        h("ol", *items),
        class_="ico-ablation-controls",
    )
