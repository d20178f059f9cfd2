"""The methods over the whole atlas, as the paper's tables: with intervals, failures, truth, controls and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.components.cards import absent_note, metric_notes
from app.components.charts import interval_axis, truth_bar, truth_key, truth_words
from app.components.markup import Child, Markup, h
from app.components.numbers import count, estimate, missing, number, percent
from app.intervals import Interval
from app.services import Services
from app.tabs.compare.wins import wins
from backend.strength_choice import strength_choice
from backend.types import ARM_BY_KEY, Arm
from backend.voting import VOTING

TABLE_TOLD = (
    "Means over features with 95 % intervals. The dots of a column share one axis: higher is further right, a bar is "
    "the interval, a dashed line is chance."
)
TEST_NAMES = {"wilcoxon": "paired Wilcoxon signed-rank test", "mannwhitney": "Mann–Whitney U test"}

EFFECTS = {
    "wilcoxon": "rank-biserial correlation over the features where the two differ, from -1 to 1; 0 is none. n: "
    "features that both have, with and without a difference.",
    "mannwhitney": "how often a score of the first is above one of the second, ties counting half, from 0 to 1; 0.5 is "
    "none. n: the scores of both together.",
}
"""What the two effects are; a value of 0.5 says much in the one and nothing in the other."""

RESAMPLED = (
    "Intervals of means resample features with the same best explanation together, since they are not independent "
    "({n} distinct ones). Shares and tests take features as independent: where many share a concept, their intervals "
    "are too narrow and the tests too sure."
)
INDEPENDENT = (
    "Intervals and tests take features as independent: where many share a concept, the intervals are too narrow and "
    "the tests too sure. Scored anew by this version, features with the same best explanation are resampled together."
)
"""What the numbers assume (decision 021); docs/log.md says how much it matters in the world."""


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
        h(
            "section",
            _scores_table(services, arms, entries, metrics),
            _strength_note(services),
            metric_notes(services.metric_cards, metrics),
        ),
        _truth_section(arms, entries),
        _wins_section(services),
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
    n_resampled = services.store.summary.get("n_best_texts")
    told = INDEPENDENT if n_resampled is None else RESAMPLED.format(n=count(int(n_resampled)))
    return h("div", h("p", f"{TABLE_TOLD} {told}", class_="ico-why"), scroll)


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


def _strength_note(services: Services) -> Markup | None:
    """Who had a choice of strengths: an arm that had one has an advantage over one that had none."""
    inputs = services.store.artifact.manifest.inputs
    told = strength_choice(inputs, services.meta.get("strengths") or {})
    return h("p", told, class_="ico-why") if told else None


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
    lede = "An explanation is right if it names the concept that its feature detects best on held-out images, and at "
    lede += "most one other; partly right if it names the family, something else of the family, or the concept in a "
    lede += "longer list. Features that detect no concept well enough are not decidable."
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


def _wins_section(services: Services) -> Child:
    """How often each method is among the best, as bars with Wilson intervals; the darker part: alone."""
    found = wins(services.store)
    if not found.n:
        return None
    names = ", ".join(str((services.metric_cards.get(name) or {}).get("label") or name) for name in VOTING)
    lede = f"A method is among the best for a feature if no other has a better mean place over {names}. "
    lede += f"For {count(found.n_tied)} of {count(found.n)} features several methods are, mostly with the same words; "
    lede += "where a page or the map names one of them, a seed drew it. Darker: best alone. Lines: 95 % Wilson "
    lede += "intervals of the whole bar."
    arms = [arm for arm in services.store.arms if arm.key in found.among]
    order = sorted(arms, key=lambda arm: -(found.among[arm.key].value or 0.0))
    rows = [part for arm in order for part in _win_bar(arm, found.among[arm.key], found.alone[arm.key])]
    return h(
        "section",
        h("h2", "Best explanation"),
        h("p", lede, class_="ico-lede"),
        h("div", *rows, class_="ico-wins"),
    )


def _win_bar(arm: Arm, share: Interval, alone: int) -> tuple[Markup, Markup, Markup]:
    value, low, high = share.value or 0.0, share.low or 0.0, share.high or 0.0
    among = round(value * share.n)
    fills = [
        h("span", class_=kind, style=f"width:{100 * part:.2f}%")
        for kind, part in (("ico-fill is-shared", value), ("ico-fill", alone / share.n))
    ]
    whisker = h("span", class_="ico-whisker", style=f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%")
    told = f"{percent(value)} [{percent(low)}, {percent(high)}], {count(among)} of {count(share.n)}; "
    told += f"alone {count(alone)}"
    return (
        h("span", arm.label, class_="ico-arm-name"),
        h("div", *fills, whisker, class_="ico-track", data_arm=arm.key, aria_hidden="true"),
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
    lede += f"{number(0.05 * len(tests), 0)} of them would still have p < 0.05. Each is one-sided and asks whether the "
    lede += "first is above the second: p near 1 says that it is below."
    notes = [h("li", h("strong", TEST_NAMES[name]), f": {told}") for name, told in EFFECTS.items()]
    effects = h("details", h("summary", "What effect and n mean"), h("ul", *notes), class_="ico-notes")
    return h("section", h("h2", "Tests"), h("p", lede, class_="ico-lede"), *groups, effects)


def _tests_table(label: str, tests: Sequence[Mapping[str, Any]]) -> Markup:
    rows = []
    for test in tests:
        first, second = (ARM_BY_KEY[key].label if key in ARM_BY_KEY else key for key in (test["a"], test["b"]))
        effect, p = test.get("effect"), test.get("p")
        rows.append(
            h(
                "tr",
                h("th", f"{first} above {second}", scope="row"),
                h("td", TEST_NAMES.get(test["test"], test["test"])),
                h("td", missing("not computed") if effect is None else number(float(effect))),
                h("td", missing("not computed") if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"),
                h("td", count(int(test["n"]))),
            )
        )
    names = ("Claim", "Test", "Effect", "p", "n")
    head = h("tr", *(h("th", name, scope="col") for name in names))
    table = h("table", h("thead", head), h("tbody", *rows), class_="ico-table")
    return h("div", table, class_="ico-table-scroll", tabindex=0, role="region", aria_label=f"Tests of {label}")
