"""Cards and links that lead to features: neighbours, explanations with their scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.components import addresses
from app.components.charts import interval_axis, truth_badge
from app.components.markup import Child, Markup, h, join
from app.components.numbers import count, missing, n_equals, number
from app.ranking import Standing
from backend.feature_store import ExplanationRecord, SyntheticRecord
from backend.types import Arm, Score

NO_WORDS = "No method found words for this feature."
AUROC_TOLD = (
    "How well the words predict when the feature fires: the chance that a picture made from them excites it more than "
    "another picture does. 0.5 is guessing, 1 is always."
)


def words(text: str | None, fallback: str = NO_WORDS, class_: str = "ico-words") -> Markup:
    """Text a model wrote, in the face that says so; or why there is none."""
    return h("p", text, class_=class_) if text else h("p", fallback, class_="ico-why")


def feature_link(feature: int, text: str | None, note: str | None = None) -> Markup:
    return h(
        "a",
        h("span", str(feature), class_="ico-id"),
        h("span", text or "no words", class_="ico-words" if text else "ico-why"),
        h("span", note, class_="ico-n") if note else None,
        href=addresses.page(tab="feature", feature=feature),
        class_="ico-feature-link",
        data_go="feature",
        data_value=feature,
    )


def go_button(label: str, action: str, value: str | int, href: str, primary: bool = False) -> Markup:
    """A link that looks like a button: a plain click stays in the page, its address can be copied."""
    classes = "ico-button is-primary" if primary else "ico-button"
    return h("a", label, href=href, class_=classes, data_go=action, data_value=value, role="button")


def absent_note(absent: Mapping[Arm, str]) -> Markup | None:
    """Which arms an atlas could not have, and why; None where it has them all."""
    if not absent:
        return None
    by_reason: dict[str, list[str]] = {}
    for arm, reason in absent.items():
        by_reason.setdefault(reason, []).append(arm.label)
    told = " ".join(f"Not possible here: {', '.join(labels)}; {reason}." for reason, labels in by_reason.items())
    return h("p", told, class_="ico-why ico-absent-arms")


def metric_notes(cards: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Markup:
    """What the named metrics measure, which way is better, and where each comes from; folded."""
    items = [h("li", h("strong", "AUROC"), ": ", AUROC_TOLD)] if any("auroc" in name for name in names) else []
    for name in names:
        card = cards[name]
        better = "higher is better" if card.get("higher_is_better") else "lower is better"
        told = " ".join(part for part in (card.get("description") or "", f"({better}; {card.get('source')})") if part)
        items.append(h("li", h("strong", card["label"]), ": ", told))
    return h("details", h("summary", "What the scores mean"), h("ul", *items), class_="ico-notes")


def score_rows(
    scores: Iterable[Score],
    metrics: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, str | None] | None = None,
) -> Markup:
    """A metric per row, in the order of ``metrics``: value, place on its axis, interval and n; or why it is absent.

    ``places`` (metric to place among the methods, in words) stand before the values.
    """
    rows = []
    order = {name: place for place, name in enumerate(metrics)}
    for score in sorted(scores, key=lambda score: order.get(score.metric, len(order))):
        card = metrics.get(score.metric, {})
        name = h("dt", card.get("label") or score.metric, title=card.get("description") or None)
        if score.value is None:
            rows.append(h("div", name, h("dd", missing(score.reason)), class_="ico-score is-missing"))
            continue
        axis: Child = None
        if card.get("low") is not None and card.get("high") is not None:
            axis = interval_axis(score.value, score.low, score.high, card["low"], card["high"], card.get("chance"))
        place = (places or {}).get(score.metric)
        told = None if place is None else h("span", place, class_="ico-place", title="place among methods")
        value = h("dd", told, h("span", number(score.value), class_="ico-value"))
        spreads = h("dd", spread(score), class_="ico-spread")
        rows.append(h("div", name, value, h("dd", axis, class_="ico-axis"), spreads, class_="ico-score"))
    return h("dl", *rows, class_="ico-scores") if rows else h("p", "No scores were computed.", class_="ico-why")


def spread(score: Score) -> Markup:
    """Interval and n of a score, for the line below its value."""
    interval = None
    if score.low is not None and score.high is not None:
        told = f"[{number(score.low)}, {number(score.high)}]"
        interval = h("span", told, class_="ico-interval", title="95 % interval")
    return join([interval, h("span", n_equals(score.n), class_="ico-n")])


def _synthetic(images: Sequence[SyntheticRecord], feature: int, arm: str, version: str) -> Child:
    if not images:
        return None
    pictures = []
    for place, image in enumerate(images):
        told = "not measured" if image.activation is None else number(image.activation)
        pictures.append(
            h(
                "figure",
                h(
                    "div",
                    h(
                        "img",
                        src=addresses.synthetic(feature, arm, place, version),
                        alt=f"made from: {image.text}",
                        loading="lazy",
                    ),
                    class_="ico-picture",
                ),
                h("figcaption", told),
                class_="ico-exemplar",
            )
        )
    told = f"Images made from these words, with this feature's mean activation on each ({n_equals(len(images))})"
    return h("div", h("p", told, class_="ico-why"), h("div", *pictures, class_="ico-synthetic"))


def _provenance(record: ExplanationRecord) -> Markup:
    lines = []
    if record.strength is not None:
        lines.append(f"strength {number(record.strength)} L2")
    if record.n_patches_edited:
        lines.append(f"{count(record.n_patches_edited)} patches edited")
    if record.image_ids:
        lines.append(f"{len(record.image_ids)} images shown")
    inside = [
        h("p", "; ".join(lines), class_="ico-why") if lines else None,
        h("pre", record.raw_text, class_="ico-raw"),
    ]
    return h("details", h("summary", "Raw answer and how it was made"), *inside)


def _vote(standing: Standing | None, key: str) -> Child:
    mean = standing.overall.get(key) if standing else None
    if standing is None or mean is None:
        return None
    told = f"mean place {number(mean)} of {standing.n_candidates}"
    return h("span", told, class_="ico-why", title="over the metrics that vote")


def arm_card(
    record: ExplanationRecord,
    scores: Sequence[Score],
    images: Sequence[SyntheticRecord],
    metrics: Mapping[str, Mapping[str, Any]],
    version: str,
    standing: Standing | None = None,
) -> Markup:
    """One method's (or control's) explanation with its scores, its places, generated images and raw answer."""
    arm = record.arm
    places = {name: standing.words(name, arm.key) for name in standing.places} if standing else {}
    winner = h("span", "best", class_="ico-badge", data_kind="winner", data_sign="★") if record.is_best else None
    failed = f"No text: {record.failure or 'the model gave none'}"
    return h(
        "article",
        h("div", h("span", arm.label, class_="ico-arm-name"), winner, class_="ico-arm-head"),
        words(record.text, fallback=failed),
        h("div", truth_badge(record.truth_outcome.value), _vote(standing, arm.key), class_="ico-arm-truth"),
        score_rows(scores, metrics, places),
        h("div", _synthetic(images, record.feature, arm.key, version), _provenance(record)),
        class_="ico-arm is-winner" if record.is_best else "ico-arm is-control" if arm.is_control else "ico-arm",
        data_arm=arm.key,
        data_control="yes" if arm.is_control else None,
    )


def arm_columns(cards: Sequence[Markup], name: str) -> Markup:
    """Cards side by side, one column each; where the page is too narrow the strip of cards is swiped, not the page."""
    return h(
        "div",
        *cards,
        class_="ico-arms",
        style=f"--n:{len(cards)}",
        tabindex=0,
        role="region",
        aria_label=name,
    )
