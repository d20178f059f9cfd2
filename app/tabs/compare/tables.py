"""The methods over the whole atlas, as the paper's tables: with intervals, failures, truth, controls and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.components.cards import absent_note, metric_notes
from app.components.charts import interval_axis, truth_bar, truth_key, truth_words
from app.components.markup import Child, Markup, h
from app.components.numbers import count, estimate, missing, number, percent
from app.intervals import wilson
from app.services import Services
from backend.types import ARM_BY_KEY, Arm

TABLE_TOLD = (
    "Means over features with 95 % intervals. The dots of a column share one axis: higher is further right, a bar is "
    "the interval, a dashed line is chance."
)
TEST_NAMES = {"wilcoxon": "paired Wilcoxon signed-rank test", "mannwhitney": "Mann–Whitney U test"}


def page(services: Services) -> Markup:
    summary = services.store.summary
    arms = [arm for arm in services.store.arms if arm.key in summary.get("arms", {})]
    entries: Mapping[str, Any] = summary.get("arms", {})
    metrics = [name for name in services.metric_cards if any(entries[arm.key].get(name) for arm in arms)]
    return h(
        "div",
        h(
            "section",
            h("h2", "Methods over the whole atlas"),
            _reading_line(services, arms, entries),
            absent_note(services.store.absent_arms),
        ),
        h("section", _scores_table(services, arms, entries, metrics), metric_notes(services.metric_cards, metrics)),
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
            low, high = percent(min(rates)), percent(max(rates))
            rate = (
                "never right" if max(rates) == 0 else f"right {low if low == high else f'{low} to {high}'} of the time"
            )
            told += f" The controls, which know nothing of the feature, are {rate}."
    return h("p", told, class_="ico-lede")


def _arm_name(arm: Arm) -> Markup:
    return h("th", h("span", class_="ico-arm-dot", data_arm=arm.key), arm.label, scope="row")


def _rows(arms: Sequence[Arm], cells: Any, n_columns: int) -> list[Markup]:
    """Methods first, then controls under a line that names them."""
    rows = [h("tr", _arm_name(arm), *cells(arm), data_arm=arm.key) for arm in arms if not arm.is_control]
    controls = [
        h("tr", _arm_name(arm), *cells(arm), class_="is-control", data_arm=arm.key) for arm in arms if arm.is_control
    ]
    if controls:
        told = "Controls: the same procedure without the feature"
        rows.append(h("tr", h("td", told, colspan=n_columns), class_="ico-section"))
    return rows + controls


def _scores_table(
    services: Services, arms: Sequence[Arm], entries: Mapping[str, Any], metrics: Sequence[str]
) -> Markup:
    cards = services.metric_cards
    chances = {name: services.meta.get("chance", {}).get(name, cards[name].get("chance")) for name in metrics}
    spans = {name: _span([entries[arm.key].get(name) for arm in arms], chances[name]) for name in metrics}

    def cells(arm: Arm) -> list[Markup]:
        entry = entries[arm.key]
        failures: Mapping[str, int] = entry.get("failures") or {}
        parts = failures.items()
        why = "; ".join(f"{reason}: {count(n)}" if len(failures) > 1 else str(reason) for reason, n in parts)
        told: Child = [count(sum(failures.values())), h("br"), h("span", why, class_="ico-why") if why else None]
        values = [(_estimate(entry.get(name)), _drawn(entry.get(name), spans[name], chances[name])) for name in metrics]
        return [h("td", count(int(entry["n"]))), h("td", told), *(h("td", *value) for value in values)]

    heads = [h("th", "Method", scope="col"), h("th", "n", scope="col"), h("th", "Failures", scope="col")]
    for name in metrics:
        unit = cards[name].get("unit") or ""
        notes = [unit] + ([f"chance {number(chances[name])}"] if chances[name] is not None else [])
        lines = [h("span", note, class_="ico-why") for note in notes if note]
        heads.append(h("th", cards[name]["label"], *([h("br"), line] for line in lines), scope="col"))
    table = h(
        "table",
        h("thead", h("tr", *heads)),
        h("tbody", *_rows(arms, cells, 3 + len(metrics))),
        class_="ico-table ico-compare",
    )
    scroll = h("div", table, class_="ico-table-scroll", tabindex=0, role="region", aria_label="Scores by method")
    return h("div", h("p", TABLE_TOLD, class_="ico-why"), scroll)


def _span(scores: Sequence[Mapping[str, Any] | None], chance: float | None) -> tuple[float, float]:
    """The ends of a column's axis: everything that stands in it, with some room."""
    known = [one[end] for one in scores if one for end in ("value", "low", "high") if one.get(end) is not None]
    known += [chance] if chance is not None else []
    if not known:
        return 0.0, 0.0
    room = 0.04 * (max(known) - min(known))
    return min(known) - room, max(known) + room


def _drawn(score: Mapping[str, Any] | None, span: tuple[float, float], chance: float | None) -> Child:
    if not score or score.get("value") is None:
        return None
    start, end = span
    return interval_axis(score["value"], score.get("low"), score.get("high"), start, end, chance)


def _estimate(score: Mapping[str, Any] | None) -> Markup:
    if not score:
        return missing("not computed")
    reason = score.get("reason") or ("nothing to score" if score.get("n") == 0 else None)
    return estimate(score.get("value"), score.get("n"), score.get("low"), score.get("high"), reason)


def _truth_section(arms: Sequence[Arm], entries: Mapping[str, Any]) -> Child:
    if not any(entries[arm.key].get("truth") for arm in arms):
        return None
    rows = []
    for arm in arms:
        truth = entries[arm.key].get("truth")
        if not truth:
            continue
        chance = entries[arm.key].get("truth_chance")
        told = truth_words(truth) + _chance_words(chance)
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


def _chance_words(chance: Any) -> str:
    """The rate at which a random other explanation would be right; a number, or one with its interval."""
    if isinstance(chance, Mapping):
        value, low, high = chance.get("value"), chance.get("low"), chance.get("high")
    else:
        value, low, high = chance, None, None
    if value is None:
        return ""
    interval = f" [{percent(low)}, {percent(high)}]" if low is not None and high is not None else ""
    return f"; right by chance {percent(float(value))}{interval}"


def _wins_section(arms: Sequence[Arm], entries: Mapping[str, Any]) -> Child:
    """Win shares as bars, each with its Wilson interval, count and n."""
    wins = [(arm, int(entries[arm.key]["wins"])) for arm in arms if entries[arm.key].get("wins") is not None]
    wins = [(arm, n) for arm, n in wins if not arm.is_control]
    total = sum(n for _, n in wins)
    if not total:
        return None
    lede = f"For how many of {count(total)} features each method's explanation was voted best over the metrics. "
    lede += "The lines are 95 % Wilson intervals."
    rows = [part for arm, n in sorted(wins, key=lambda pair: -pair[1]) for part in _win_bar(arm, n, total)]
    return h(
        "section",
        h("h2", "Best explanation"),
        h("p", lede, class_="ico-lede"),
        h("div", *rows, class_="ico-wins"),
    )


def _win_bar(arm: Arm, wins: int, total: int) -> tuple[Markup, Markup, Markup]:
    share = wilson(wins, total)
    value, low, high = share.value or 0.0, share.low or 0.0, share.high or 0.0
    fill = h("span", class_="ico-fill", style=f"width:{100 * value:.2f}%")
    whisker = h("span", class_="ico-whisker", style=f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%")
    told = f"{percent(value)} [{percent(low)}, {percent(high)}], {count(wins)} of {count(total)}"
    return (
        h("span", arm.label, class_="ico-arm-name"),
        h("div", fill, whisker, class_="ico-track", data_arm=arm.key, aria_hidden="true"),
        h("span", told, class_="ico-n"),
    )


def _tests_section(services: Services, tests: Sequence[Mapping[str, Any]]) -> Child:
    if not tests:
        return None
    by_metric: dict[str, list[Mapping[str, Any]]] = {}
    for test in tests:
        by_metric.setdefault(test["metric"], []).append(test)
    known = {name: place for place, name in enumerate(services.metric_cards)}
    groups = []
    for name in sorted(by_metric, key=lambda name: known.get(name, len(known))):
        label = services.metric_cards.get(name, {}).get("label") or name.replace("_", " ").capitalize()
        summary = h(
            "summary", h("strong", label), " ", h("span", f"{count(len(by_metric[name]))} tests", class_="ico-n")
        )
        groups.append(h("details", summary, _tests_table(label, by_metric[name]), class_="ico-tests"))
    lede = f"{count(len(tests))} tests, not corrected for their number: if no two methods differed, about "
    lede += f"{number(0.05 * len(tests), 0)} of them would still have p < 0.05."
    return h("section", h("h2", "Tests"), h("p", lede, class_="ico-lede"), *groups)


def _tests_table(label: str, tests: Sequence[Mapping[str, Any]]) -> Markup:
    rows = []
    for test in tests:
        first, second = (ARM_BY_KEY[key].label if key in ARM_BY_KEY else key for key in (test["a"], test["b"]))
        effect, p = test.get("effect"), test.get("p")
        rows.append(
            h(
                "tr",
                h("th", f"{first} vs {second}", scope="row"),
                h("td", TEST_NAMES.get(test["test"], test["test"])),
                h("td", missing("not computed") if effect is None else number(float(effect))),
                h("td", missing("not computed") if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"),
                h("td", count(int(test["n"]))),
            )
        )
    names = ("Compared", "Test", "Effect", "p", "n")
    head = h("tr", *(h("th", name, scope="col") for name in names))
    table = h("table", h("thead", head), h("tbody", *rows), class_="ico-table")
    return h("div", table, class_="ico-table-scroll", tabindex=0, role="region", aria_label=f"Tests of {label}")
