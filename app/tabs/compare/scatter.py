"""Two methods against each other on one metric: a point per feature, counts on either side, the extremes in words."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
import numpy as np

from app.components import addresses
from app.components.markup import Markup, h
from app.components.numbers import count, n_equals, number, percent
from app.intervals import Interval, median, wilson
from app.map_columns import ARM_COLOURS, on_dark
from app.services import Services
from app.tabs.compare.columns import score_columns, texts_of
from app.url_fields import Field, Text
from backend.types import ARM_BY_KEY

FIELDS: tuple[Field, ...] = (Text("across", most=60), Text("up", most=60), Text("metric", most=60))
FIRST = ("top_k_masks", "steering")
"""Arms across and up where the address does not say."""
N_EXTREMES = 20
CONTROL_COLOUR = "#7d828a"
TEMPLATE = """
<section class="ico-paired" aria-label="Two methods against each other" hidden>
  <div class="ico-paired-bar">
    <label>Up <select data-paired="up"></select></label>
    <label>Across <select data-paired="across"></select></label>
    <button type="button" class="ico-button" data-paired-swap>Swap</button>
    <label>Score <select data-paired="metric"></select></label>
  </div>
  <p class="ico-paired-message" role="status"></p>
  <div class="ico-paired-body">
    <div class="ico-paired-stage"><div class="ico-paired-plot" role="img"></div></div>
    <div class="ico-paired-side">
      <h3 class="ico-paired-title"></h3>
      <ul class="ico-paired-told"></ul>
      <div class="ico-paired-card" aria-live="polite"></div>
    </div>
  </div>
  <div class="ico-two ico-paired-lists"></div>
</section>
"""
SCRIPT = """
window.iconoscopePaired.mount(element.querySelector('.ico-paired'), props, watch);
"""


def component(services: Services) -> gr.HTML:
    """The plot. Its template never changes; its values are messages that say what changes."""
    return gr.HTML(
        value=message(services, "", "", "", False),
        html_template=TEMPLATE,
        js_on_load=SCRIPT,
        elem_id="ico-compare-scatter",
        apply_default_css=False,
    )


def lede() -> Markup:
    told = "One point for each feature that both methods have a score for. On the diagonal they score the same. Point "
    told += "at a feature for both texts; click it to open it. The lists below say the same without the plot."
    head = h("h2", "Two methods, feature by feature")
    return h("div", h("section", head, h("p", told, class_="ico-lede")), class_="ico-page")


def message(services: Services, across: str, up: str, metric: str, shown: bool) -> dict[str, Any]:
    """What the browser needs: where the data is, the choices, and what is chosen. Unknown choices become the first."""
    arms = [arm for arm in services.store.arms if any(key == arm.key for key, _ in score_columns(services.store))]
    keys = [arm.key for arm in arms]
    metrics = [
        name for name in services.metric_cards if any(known == name for _, known in score_columns(services.store))
    ]
    cards = services.metric_cards
    return {
        "shown": shown,
        "base": addresses.data("", services.version),
        "arms": [{"key": arm.key, "label": arm.label, **_colours(arm.key)} for arm in arms],
        "metrics": [{"key": name, "label": str(cards[name].get("label") or name)} for name in metrics],
        "first": {"across": _chosen(FIRST[0], keys), "up": _chosen(FIRST[1], keys), "metric": _chosen("iou", metrics)},
        "across": _chosen(across, keys, FIRST[0]),
        "up": _chosen(up, keys, FIRST[1]),
        "metric": _chosen(metric, metrics, "iou"),
    }


def _chosen(asked: str, options: Sequence[str], otherwise: str = "") -> str:
    for one in (asked, otherwise):
        if one in options:
            return one
    return options[0] if options else ""


def _colours(key: str) -> dict[str, str]:
    colour = ARM_COLOURS.get(key, CONTROL_COLOUR)
    return {"colour": colour, "colour_dark": on_dark([colour])[0]}


def _pair(services: Services, across: str, up: str, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and both values of the features that have both. Raises KeyError for an arm or metric the atlas lacks."""
    columns = score_columns(services.store)
    x, y = columns[across, metric], columns[up, metric]
    both = np.isfinite(x) & np.isfinite(y)
    return services.store.feature_ids[both], x[both], y[both]


def points(services: Services, across: str, up: str, metric: str) -> bytes:
    """uint32 n, then uint32 feature[n], float32 x[n] (across), float32 y[n] (up); little-endian. Raises KeyError."""
    ids, x, y = _pair(services, across, up, metric)
    columns = (ids.astype("<u4"), x.astype("<f4"), y.astype("<f4"))
    return struct.pack("<I", len(ids)) + b"".join(column.tobytes() for column in columns)


def summary(services: Services, across: str, up: str, metric: str) -> dict[str, Any]:
    """What the plot says, in words and lists, as plain data. Raises KeyError."""
    ids, x, y = _pair(services, across, up, metric)
    card = services.metric_cards[metric]
    return {
        "label": str(card.get("label") or metric),
        "unit": str(card.get("unit") or ""),
        "n": len(ids),
        "told": _told(services, across, up, metric, x, y),
        "lists": [
            {"title": f"{_label(up)} higher", "rows": _extremes(services, across, up, ids, x, y)},
            {"title": f"{_label(across)} higher", "rows": _extremes(services, up, across, ids, y, x)},
        ],
    }


def _label(key: str) -> str:
    return ARM_BY_KEY[key].label


def _told(services: Services, across: str, up: str, metric: str, x: np.ndarray, y: np.ndarray) -> list[str]:
    """The counts on either side with their intervals, the medians with theirs, and what was left out."""
    n = len(x)
    left = len(services.store) - n
    if not n:
        return ["No feature has a score from both."]
    lines = [
        f"{_label(up)} is higher for {_share(int((y > x).sum()), n)}",
        f"{_label(across)} is higher for {_share(int((x > y).sum()), n)}",
        f"The same for {_share(int((x == y).sum()), n)}",
        f"Median {_label(up)}: {_median(median(y))}; {_label(across)}: {_median(median(x))}",
        f"Median difference (up minus across): {_median(median(y - x))}",
    ]
    tested = [
        _test_words(test) for test in services.store.summary.get("tests") or () if _is_of(test, across, up, metric)
    ]
    if left:
        tested.append(f"{count(left)} of {count(len(services.store))} features lack a score from one of the two.")
    return lines + tested


def _share(counted: int, n: int) -> str:
    share = wilson(counted, n)
    assert share.value is not None and share.low is not None and share.high is not None
    return (
        f"{count(counted)} of {count(n)} features: {percent(share.value)} [{percent(share.low)}, {percent(share.high)}]"
    )


def _median(found: Interval) -> str:
    if found.value is None:
        return "none"
    ends = f" [{number(found.low)}, {number(found.high)}]" if found.low is not None and found.high is not None else ""
    return f"{number(found.value)}{ends}, {n_equals(found.n)}"


def _is_of(test: Mapping[str, Any], across: str, up: str, metric: str) -> bool:
    return test.get("metric") == metric and {test.get("a"), test.get("b")} == {across, up}


def _test_words(test: Mapping[str, Any]) -> str:
    names = {"wilcoxon": "Paired Wilcoxon test", "mannwhitney": "Mann\N{EN DASH}Whitney test"}
    p = test.get("p")
    told = "not computed" if p is None else "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
    which = f"{_label(test['a'])} above {_label(test['b'])}"
    return f"{names.get(test['test'], test['test'])}, one-sided, {which}: {told}, {n_equals(int(test['n']))}"


def _extremes(
    services: Services, lower: str, higher: str, ids: np.ndarray, below: np.ndarray, above: np.ndarray
) -> list[dict[str, Any]]:
    """The features where ``higher`` is furthest above ``lower``, with both texts."""
    difference = above - below
    order = [row for row in np.argsort(-difference, kind="stable")[:N_EXTREMES].tolist() if difference[row] > 0]
    said = {key: texts_of(services.store, key) for key in (higher, lower)}
    return [
        {
            "feature": int(ids[row]),
            "texts": [
                {"label": _label(key), "value": number(float(values[row])), "text": said[key].get(int(ids[row]))}
                for key, values in ((higher, above), (lower, below))
            ],
        }
        for row in order
    ]


def said(services: Services, feature: int) -> dict[str, Any]:
    """What every arm says of a feature, with its scores, for the card beside the plot. Raises UnknownFeature."""
    store = services.store
    scores = store.scores(feature)
    return {
        "feature": feature,
        "arms": {
            one.arm.key: {
                "text": one.text,
                "failure": one.failure,
                "scores": {
                    score.metric: f"{number(score.value)}, {n_equals(score.n)}"
                    for score in scores.get(one.arm, ())
                    if score.value is not None
                },
            }
            for one in store.explanations(feature)
        },
    }
