"""Small inline charts: histogram, interval on an axis, truth bar. Each has its numbers in words beside it or inside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from app.components.markup import Markup, h
from app.components.numbers import count, missing, number, percent

TRUTH_KINDS = (("right", "right", "✓"), ("partly", "partly right", "◐"), ("wrong", "wrong", "✗"))


def histogram(counts: Sequence[int], edges: Sequence[float]) -> Markup:
    """Activations of the patches where the feature fires; bar heights are logarithmic, since tails matter here."""
    if not counts or len(edges) != len(counts) + 1:
        return missing("no histogram was stored")
    width, height, base = 360, 92, 76
    step = width / len(counts)
    top = math.log1p(max(counts)) or 1.0
    bars = []
    for i, n in enumerate(counts):
        tall = (base - 8) * math.log1p(n) / top
        title = f"{number(edges[i])} to {number(edges[i + 1])}: {count(n)} patches"
        bars.append(
            h(
                "g",
                h("title", title),
                h(
                    "rect",
                    x=f"{i * step:.2f}",
                    y=f"{base - tall:.2f}",
                    width=f"{step * 0.86:.2f}",
                    height=f"{tall:.2f}",
                ),
            )
        )
    total = sum(counts)
    label = (
        f"Histogram of activations over {count(total)} active patches, from {number(edges[0])} to {number(edges[-1])}"
    )
    return h(
        "svg",
        *bars,
        h("line", x1=0, x2=width, y1=base + 0.5, y2=base + 0.5),
        h("text", number(edges[0]), x=0, y=height - 2),
        h("text", number(edges[-1]), x=width, y=height - 2, text_anchor="end"),
        h(
            "text",
            f"activation, log counts, n = {count(total)} patches",
            x=width / 2,
            y=height - 2,
            text_anchor="middle",
        ),
        attributes={"viewBox": f"0 0 {width} {height}"},
        class_="ico-histogram",
        role="img",
        aria_label=label,
    )


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
            return h("span", f"truth: {words}", class_="ico-badge", data_kind=kind, data_sign=sign)
    return h("span", "truth: not decidable", class_="ico-badge", data_kind="undecidable", data_sign="–")


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
