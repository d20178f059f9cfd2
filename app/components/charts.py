"""Small inline charts: histogram, interval on an axis, truth bar. Each has its numbers in words beside it or inside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from app.components.markup import Markup, h
from app.components.numbers import count, missing, n_equals, number, percent

TRUTH_KINDS = (("right", "right", "✓"), ("partly", "partly right", "◐"), ("wrong", "wrong", "✗"))
TRUTH_TOLD = {
    "right": "The words name the concept that the feature detects best on held-out images.",
    "partly": "The words name the family of the concept that the feature detects best on held-out images.",
    "wrong": "The words name something else than the concept that the feature detects best on held-out images.",
}
UNDECIDABLE_TOLD = "The feature detects no known concept well enough to say whether the words are right."


_WIDTH, _HEIGHT = 400, 170
_LEFT, _BASE, _TOP = 44, 132, 10
"""Pixels of the histogram: the axes meet at (_LEFT, _BASE)."""


def histogram(counts: Sequence[int], edges: Sequence[float]) -> Markup:
    """Activations of the patches where the feature fires; counts on a logarithmic axis, since tails matter here."""
    if not counts or len(edges) != len(counts) + 1:
        return missing("no histogram was stored")
    last = max((i for i, n in enumerate(counts) if n), default=0) + 1
    counts, edges = counts[:last], edges[: last + 1]
    top = math.log10(1 + max(counts)) or 1.0
    step = (_WIDTH - _LEFT) / len(counts)
    bars = []
    for i, n in enumerate(counts):
        tall = (_BASE - _TOP) * math.log10(1 + n) / top
        bar = {"x": f"{_LEFT + i * step:.2f}", "y": f"{_BASE - tall:.2f}", "width": f"{0.86 * step:.2f}"}
        title = h("title", f"{number(edges[i])} to {number(edges[i + 1])}: {count(n)} patches")
        bars.append(h("g", title, h("rect", attributes={**bar, "height": f"{tall:.2f}"})))
    total = sum(counts)
    ends = f"from {number(edges[0])} to {number(edges[-1])}"
    chart = h(
        "svg",
        *_count_axis(max(counts), top),
        *bars,
        *_activation_axis(edges),
        attributes={"viewBox": f"0 0 {_WIDTH} {_HEIGHT}"},
        class_="ico-histogram",
        role="img",
        aria_label=f"Histogram of activations over {count(total)} active patches, {ends}; counts on a log scale",
    )
    told = f"Activation of the patches where it fires; counts on a log scale, {n_equals(total)} patches"
    return h("figure", chart, h("figcaption", told, class_="ico-why"), class_="ico-chart")


def _count_axis(most: int, top: float) -> list[Markup]:
    """Lines and labels at powers of ten, as far as the highest bar."""
    marks = []
    for power in range(int(math.log10(max(1, most))) + 1):
        y = f"{_BASE - (_BASE - _TOP) * math.log10(1 + 10**power) / top:.1f}"
        marks.append(h("line", x1=_LEFT, x2=_WIDTH, y1=y, y2=y, class_="grid"))
        marks.append(h("text", count(10**power), x=_LEFT - 6, y=y, text_anchor="end", dy="0.32em"))
    return marks


def _activation_axis(edges: Sequence[float]) -> list[Markup]:
    """The base line, its ends and its middle, and what it measures."""
    middle = (_LEFT + _WIDTH) / 2
    places = ((_LEFT, edges[0], "start"), (middle, (edges[0] + edges[-1]) / 2, "middle"), (_WIDTH, edges[-1], "end"))
    labels = [h("text", number(value), x=x, y=_BASE + 15, text_anchor=anchor) for x, value, anchor in places]
    name = h("text", "activation (residual-stream L2)", x=middle, y=_HEIGHT - 4, text_anchor="middle")
    return [h("line", x1=_LEFT, x2=_WIDTH, y1=_BASE + 0.5, y2=_BASE + 0.5), *labels, name]


def interval_axis(
    value: float, low: float | None, high: float | None, start: float, end: float, chance: float | None
) -> Markup:
    """Value and interval on the metric's own range, with the chance level dashed. Decorative: numbers stand beside."""
    if not end > start:
        return Markup("")

    def at(x: float) -> str:
        return f"{100 * min(1.0, max(0.0, (x - start) / (end - start))):.2f}%"

    parts = [h("line", x1="0", x2="100%", y1=4, y2=4, class_="axis")]
    if low is not None and high is not None:
        parts.append(h("line", x1=at(low), x2=at(high), y1=4, y2=4, class_="whisker"))
    if chance is not None:
        parts.append(h("line", x1=at(chance), x2=at(chance), y1=0, y2=8, class_="chance"))
    parts.append(h("circle", cx=at(value), cy=4, r=3, class_="dot"))
    return h("svg", *parts, class_="ico-range", aria_hidden="true")


def truth_badge(outcome: str) -> Markup:
    for kind, words, sign in TRUTH_KINDS:
        if outcome == kind:
            told = TRUTH_TOLD[kind]
            return h("span", f"truth: {words}", class_="ico-badge", data_kind=kind, data_sign=sign, title=told)
    told = UNDECIDABLE_TOLD
    return h("span", "truth: not decidable", class_="ico-badge", data_kind="undecidable", data_sign="–", title=told)


def truth_key() -> Markup:
    items = [h("span", h("span", class_="ico-swatch", data_kind=kind), words) for kind, words, _ in TRUTH_KINDS]
    return h("div", *items, class_="ico-key ico-truth-key")


def truth_bar(truth: Mapping[str, Any]) -> Markup:
    """Shares of right, partly right and wrong among the decidable explanations, with counts."""
    parts = []
    for kind, words, _ in TRUTH_KINDS:
        share = truth.get(kind) or {}
        value = share.get("value")
        if value is None:
            continue
        title = f"{words}: {percent(value)}, {count(int(share.get('count') or 0))} of {count(int(share.get('n') or 0))}"
        text = percent(value) if value >= 0.08 else ""
        parts.append(h("span", text, data_kind=kind, style=f"width:{100 * value:.2f}%", title=title))
    return h("div", *parts, class_="ico-stack", role="img", aria_label=truth_words(truth))


def truth_words(truth: Mapping[str, Any]) -> str:
    pieces = []
    for kind, words, _ in TRUTH_KINDS:
        share = truth.get(kind) or {}
        if share.get("value") is None:
            continue
        interval = ""
        if share.get("low") is not None and share.get("high") is not None:
            interval = f" [{percent(share['low'])}, {percent(share['high'])}]"
        pieces.append(f"{words} {percent(share['value'])}{interval}")
    n = next((share["n"] for share in truth.values() if isinstance(share, Mapping) and share.get("n")), 0)
    # How many were left out belongs to the number as much as its n.
    left = int((truth.get("undecidable") or {}).get("count") or 0)
    return f"{', '.join(pieces) or 'nothing decidable'}; n = {count(int(n))}, not decidable {count(left)}"
