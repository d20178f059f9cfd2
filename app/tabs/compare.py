"""Compare: the methods over the whole atlas, with intervals, failures, truth and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.charts import truth_bar, truth_key, truth_words
from app.components.markup import Child, Markup, h
from app.components.numbers import count, estimate, missing, number, percent
from app.map_data import ARM_COLOURS
from app.services import Services
from backend.types import ARM_BY_KEY, Arm

EFFECTS = {"wilcoxon": "paired Wilcoxon signed-rank test", "mannwhitney": "Mann–Whitney U test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareTab:
    """Components of the tab."""

    page: gr.HTML


def build(services: Services) -> CompareTab:
    return CompareTab(page=gr.HTML(str(page(services)), elem_id="ico-compare-page", apply_default_css=False))


def page(services: Services) -> Markup:
    summary = services.store.summary
    arms = [arm for arm in services.store.arms if arm.key in summary.get("arms", {})]
    entries: Mapping[str, Any] = summary.get("arms", {})
    metrics = [name for name in services.metric_cards if any(entries[arm.key].get(name) for arm in arms)]
    return h(
        "div",
        h("section", h("h2", "Methods over the whole atlas"), _reading_line(services, arms, entries)),
        h("section", _scores_table(services, arms, entries, metrics), _metric_notes(services, metrics)),
        _truth_section(arms, entries),
        _wins_section(arms, entries),
        _tests_section(services, summary.get("tests") or ()),
        class_="ico-page",
    )


def _share(entry: Mapping[str, Any], kind: str = "right") -> float | None:
    return ((entry.get("truth") or {}).get(kind) or {}).get("value")


def _reading_line(services: Services, arms: Sequence[Arm], entries: Mapping[str, Any]) -> Markup:
    """What the table says, in one or two sentences, controls included."""
    methods = [(arm, _share(entries[arm.key])) for arm in arms if not arm.is_control]
    controls = [(arm, _share(entries[arm.key])) for arm in arms if arm.is_control]
    known = [(arm, share) for arm, share in methods if share is not None]
    told = (
        f"{count(len(services.store))} features, each explained by {len(methods)} methods and {len(controls)} controls."
    )
    if known:
        best, share = max(known, key=lambda pair: pair[1])
        n = ((entries[best.key].get("truth") or {}).get("right") or {}).get("n")
        told += f" {best.label} is right most often: {percent(share)} of the features whose concept is known"
        told += f" (n = {count(int(n))})." if n is not None else "."
        rates = [share for _, share in controls if share is not None]
        if rates:
            told += f" The controls, which know nothing of the feature, are right {percent(min(rates))} to "
            told += f"{percent(max(rates))} of the time."
    return h("p", told, class_="ico-lede")


def _arm_name(arm: Arm) -> Markup:
    colour = ARM_COLOURS.get(arm.key, "var(--ico-control)")
    return h("th", h("span", class_="ico-swatch", style=f"background:{colour}"), arm.label, scope="row")


def _rows(arms: Sequence[Arm], cells: Any, n_columns: int) -> list[Markup]:
    """Methods first, then controls under a line that names them."""
    rows = [h("tr", _arm_name(arm), *cells(arm)) for arm in arms if not arm.is_control]
    controls = [h("tr", _arm_name(arm), *cells(arm), class_="is-control") for arm in arms if arm.is_control]
    if controls:
        told = "Controls: the same procedure without the feature"
        rows.append(h("tr", h("td", told, colspan=n_columns), class_="ico-section"))
    return rows + controls


def _scores_table(
    services: Services, arms: Sequence[Arm], entries: Mapping[str, Any], metrics: Sequence[str]
) -> Markup:
    cards = services.metric_cards

    def cells(arm: Arm) -> list[Markup]:
        entry = entries[arm.key]
        failures: Mapping[str, int] = entry.get("failures") or {}
        why = "; ".join(f"{reason}: {count(n)}" for reason, n in failures.items())
        told: Child = [count(sum(failures.values())), " ", h("span", why, class_="ico-n") if why else None]
        values = [_estimate(entry.get(name)) for name in metrics]
        return [h("td", count(int(entry["n"]))), h("td", told), *(h("td", value) for value in values)]

    heads = [h("th", "Method", scope="col"), h("th", "n", scope="col"), h("th", "failures", scope="col")]
    for name in metrics:
        unit = cards[name].get("unit") or ""
        chance = services.meta.get("chance", {}).get(name, cards[name].get("chance"))
        notes = [unit] + ([f"chance {number(chance)}"] if chance is not None else [])
        heads.append(h("th", cards[name]["label"], h("br"), h("span", ", ".join(notes), class_="ico-n"), scope="col"))
    table = h(
        "table",
        h("caption", "Means over features with 95 % intervals", class_="ico-why"),
        h("thead", h("tr", *heads)),
        h("tbody", *_rows(arms, cells, 3 + len(metrics))),
        class_="ico-table ico-compare",
    )
    return h("div", table, class_="ico-table-scroll", tabindex=0, role="region", aria_label="Scores by method")


def _estimate(score: Mapping[str, Any] | None) -> Markup:
    if not score:
        return missing("not computed")
    return estimate(score.get("value"), score.get("n"), score.get("low"), score.get("high"), score.get("reason"))


def _metric_notes(services: Services, metrics: Sequence[str]) -> Markup:
    items = []
    for name in metrics:
        card = services.metric_cards[name]
        better = "higher is better" if card.get("higher_is_better") else "lower is better"
        told = " ".join(part for part in (card.get("description") or "", f"({better}; {card.get('source')})") if part)
        items.append(h("li", h("strong", card["label"]), ": ", told))
    return h("details", h("summary", "What the scores mean"), h("ul", *items), class_="ico-notes")


def _truth_section(arms: Sequence[Arm], entries: Mapping[str, Any]) -> Child:
    if not any(entries[arm.key].get("truth") for arm in arms):
        return None
    rows = []
    for arm in arms:
        truth = entries[arm.key].get("truth")
        if not truth:
            continue
        chance = entries[arm.key].get("truth_chance")
        told = truth_words(truth) + (f"; right by chance {percent(float(chance))}" if _is_number(chance) else "")
        rows.append(
            h(
                "div",
                h("span", arm.label, class_="ico-arm-name"),
                truth_bar(truth),
                h("span", told, class_="ico-n"),
                class_="ico-truth-row",
            )
        )
    lede = "An explanation is right if it names the concept that its feature detects best on held-out images, partly "
    lede += "right if it names the concept's family. Features that detect no concept well enough are not decidable."
    return h("section", h("h2", "Truth"), h("p", lede, class_="ico-lede"), truth_key(), *rows)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wins_section(arms: Sequence[Arm], entries: Mapping[str, Any]) -> Child:
    wins = [(arm, int(entries[arm.key]["wins"])) for arm in arms if entries[arm.key].get("wins") is not None]
    total = sum(n for _, n in wins)
    if not total:
        return None
    rows = [
        h("tr", _arm_name(arm), h("td", count(n)), h("td", percent(n / total))) for arm, n in wins if not arm.is_control
    ]
    head = h("tr", h("th", "Method", scope="col"), h("th", "wins", scope="col"), h("th", "share", scope="col"))
    lede = f"For how many of {count(total)} features each method's explanation was voted best over the metrics."
    table = h("table", h("thead", head), h("tbody", *rows), class_="ico-table", style="max-width:560px")
    return h("section", h("h2", "Best explanation"), h("p", lede, class_="ico-lede"), table)


def _tests_section(services: Services, tests: Sequence[Mapping[str, Any]]) -> Child:
    if not tests:
        return None
    rows = []
    for test in tests:
        labels = [ARM_BY_KEY[key].label if key in ARM_BY_KEY else key for key in (test["a"], test["b"])]
        metric = services.metric_cards.get(test["metric"], {}).get("label", test["metric"])
        effect = test.get("effect")
        p = test.get("p")
        rows.append(
            h(
                "tr",
                h("th", metric, scope="row"),
                h("td", f"{labels[0]} vs {labels[1]}"),
                h("td", EFFECTS.get(test["test"], test["test"])),
                h("td", missing("not computed") if effect is None else number(float(effect))),
                h("td", missing("not computed") if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"),
                h("td", count(int(test["n"]))),
            )
        )
    names = ("Metric", "Compared", "Test", "Effect", "p", "n")
    head = h("tr", *(h("th", name, scope="col") for name in names))
    table = h("table", h("thead", head), h("tbody", *rows), class_="ico-table")
    lede = "p values are not corrected for the number of tests in this table."
    scroll = h("div", table, class_="ico-table-scroll", tabindex=0, role="region", aria_label="Statistical tests")
    return h("section", h("h2", "Tests"), h("p", lede, class_="ico-lede"), scroll)
