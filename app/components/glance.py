"""Scores at a glance: methods and controls against metrics, the best of each marked, and how the vote came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.components.cards import metric_notes
from app.components.charts import TRUTH_KINDS
from app.components.markup import Child, Markup, h
from app.components.numbers import n_equals, number
from app.ranking import Standing
from backend.feature_store import ExplanationRecord
from backend.types import Arm, Score

Scores = Mapping[Arm, Sequence[Score]]


def glance(
    records: Sequence[ExplanationRecord],
    scores: Scores,
    cards: Mapping[str, Mapping[str, Any]],
    standing: Standing,
) -> Markup:
    """The matrix. Metrics without any value for this feature are named below it instead of standing empty."""
    found = {(arm.key, one.metric): one for arm, rows in scores.items() for one in rows if one.value is not None}
    shown = [name for name in cards if any(metric == name for _, metric in found)]
    counts = {name: {one.n for (_, metric), one in found.items() if metric == name} for name in shown}
    heads = [h("th", "Method", scope="col"), *(_head(cards[name], counts[name]) for name in shown)]
    heads += [h("th", "Vote", h("span", "mean place", class_="ico-why"), scope="col"), h("th", "Truth", scope="col")]
    rows = [_row(one, found, shown, counts, standing) for one in records]
    methods = [row for one, row in zip(records, rows, strict=True) if not one.arm.is_control]
    controls = [row for one, row in zip(records, rows, strict=True) if one.arm.is_control]
    if controls:
        told = "Controls: the same procedure without the feature. They do not compete."
        controls.insert(0, h("tr", h("td", told, colspan=len(heads)), class_="ico-section"))
    table = h(
        "table",
        h("thead", h("tr", *heads)),
        h("tbody", *methods, *controls),
        class_="ico-table ico-glance",
    )
    scroll = h("div", table, class_="ico-table-scroll", tabindex=0, role="region", aria_label="Scores at a glance")
    return h("div", scroll, h("p", _vote_words(standing, cards, shown), class_="ico-why"), metric_notes(cards, shown))


def _head(card: Mapping[str, Any], counts: set[int]) -> Markup:
    n = n_equals(next(iter(counts))) if len(counts) == 1 else None
    return h("th", str(card.get("label")), h("span", n, class_="ico-why") if n else None, scope="col")


def _row(
    record: ExplanationRecord,
    found: Mapping[tuple[str, str], Score],
    shown: Sequence[str],
    counts: Mapping[str, set[int]],
    standing: Standing,
) -> Markup:
    key = record.arm.key
    name = h("th", h("span", class_="ico-arm-dot", data_arm=key), record.arm.label, scope="row")
    cells = [_cell(found.get((key, metric)), len(counts[metric]) == 1, metric, key, standing) for metric in shown]
    mean = standing.overall.get(key)
    vote: Child = "–" if mean is None else number(mean)
    if record.is_best:
        vote = [vote, " ", h("span", "best", class_="ico-badge", data_kind="winner", data_sign="★")]
    elif key in standing.leaders:
        vote = [vote, " ", h("span", "tied", class_="ico-badge", data_sign="=")]
    signs = {kind: f"{sign} {words}" for kind, words, sign in TRUTH_KINDS}
    truth = signs.get(record.truth_outcome.value, "–")
    classes = "is-control" if record.arm.is_control else "is-winner" if record.is_best else None
    return h("tr", name, *cells, h("td", vote), h("td", truth, data_kind=record.truth_outcome.value), class_=classes)


def _cell(score: Score | None, n_in_head: bool, metric: str, key: str, standing: Standing) -> Markup:
    if score is None or score.value is None:
        return h("td", h("span", "–", aria_hidden="true"), h("span", "no value", class_="ico-hidden"))
    place = standing.words(metric, key)
    told = None if place is None else h("span", place, class_="ico-place")
    n = None if n_in_head else h("span", n_equals(score.n), class_="ico-n")
    interval = None
    if score.low is not None and score.high is not None:
        interval = h(
            "span", f"[{number(score.low)}, {number(score.high)}]", class_="ico-interval", title="95 % interval"
        )
    value = h("span", number(score.value), class_="ico-value")
    return h("td", value, told, n, interval, class_=_best_class(metric, key, standing))


def _best_class(metric: str, key: str, standing: Standing) -> str | None:
    """``is-top`` for the best place; where all methods tie there is no best one."""
    known = standing.places.get(metric, {})
    return "is-top" if key in known and len(set(known.values())) > 1 and known[key] == min(known.values()) else None


def _vote_words(standing: Standing, cards: Mapping[str, Mapping[str, Any]], shown: Sequence[str]) -> str:
    left_out = [str(card.get("label")) for name, card in cards.items() if name not in shown]
    told = (
        "Places (1st, 2nd …) are among the methods that have a value, left out where all tie; the best is underlined."
    )
    if standing.metrics:
        names = ", ".join(str(cards[name].get("label")) for name in standing.metrics)
        told += f" The vote is the mean place over {names} (n = {standing.n_candidates} methods)."
        if len(standing.leaders) > 1:
            told += f" {len(standing.leaders)} of them tie, so a stored seed drew the best one by lot."
    elif standing.n_candidates:
        told += " No metric has a value for every method, so none could vote: the seed chose."
    if left_out:
        told += f" Without a value for this feature: {', '.join(left_out)}."
    return told
