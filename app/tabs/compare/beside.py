"""Two atlases side by side: facts, scores, best explanations. A difference is marked if intervals do not meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from app.catalogue import Catalogue
from app.components import addresses
from app.components.markup import Child, Markup, h
from app.components.numbers import count, estimate, missing, n_equals, percent
from app.intervals import Interval, wilson
from app.services import Services
from app.tabs.compare.wins import wins
from backend.types import Arm

Entry = Mapping[str, Any]


def page(catalogue: Catalogue, services: Services, argument: str = "") -> Markup:
    """The view; ``argument`` is the key of the second atlas, "" for the next one served."""
    others = [one for one in catalogue if one.key != services.key]
    head = h("h2", "Two atlases side by side")
    if not others:
        return h("div", h("section", head, _alone()), class_="ico-page")
    second = next((one for one in others if one.key == argument), others[0])
    told = "Two subjects, layers or SAEs, explained in the same way. A difference is marked only where the two 95 % "
    told += "intervals do not meet; an unmarked one may be chance."
    return h(
        "div",
        h("section", head, h("p", told, class_="ico-lede"), _chooser(others, second)),
        h("section", h("h3", "What they are"), _facts(services, second)),
        h("section", h("h3", "Scores: means over features"), _scores(services, second)),
        h("section", h("h3", "Share of features where a method is among the best"), _wins(services, second)),
        class_="ico-page ico-beside",
    )


def _alone() -> Markup:
    told = "Only one atlas is served here. To compare two, serve both: "
    return h("p", told, h("code", "iconoscope serve ATLAS OTHER_ATLAS"), class_="ico-empty")


def _chooser(others: list[Services], chosen: Services) -> Markup:
    links = [
        h(
            "a",
            one.key,
            href=addresses.page(tab="compare", compare="beside", beside=one.key),
            attributes={
                "data_go": "compare",
                "data_value": f"beside:{one.key}",
                "data_set": f"compare=beside&beside={one.key}",
            },
            aria_current="true" if one.key == chosen.key else None,
        )
        for one in others
    ]
    return h("nav", h("span", "Beside it: ", class_="ico-why"), *links, class_="ico-views", aria_label="Second atlas")


def _table(services: Services, second: Services, rows: list[Markup], name: str, last: str = "Difference") -> Markup:
    heads = [h("th", label, scope="col") for label in ("", services.key, second.key, last)]
    table = h("table", h("thead", h("tr", *heads)), h("tbody", *rows), class_="ico-table ico-beside-table")
    return h("div", table, class_="ico-table-scroll", tabindex=0, role="region", aria_label=name)


def key_facts(services: Services) -> dict[str, Child]:
    """What an atlas is about, by name. Absent values say so."""
    meta = services.meta
    sae, hook, kept = (meta.get(name) or {} for name in ("sae", "hook_point", "quality_filter"))

    def whole(value: object) -> Child:
        return count(int(str(value))) if value is not None else missing("not stored")

    explained, n_measured = sae.get("explained_variance"), sae.get("n_held_out_tokens")
    on = f", {n_equals(int(n_measured))} patches" if n_measured is not None else ""
    n_kept = kept.get("kept")
    quality = "" if n_kept is None else _share(int(n_kept), len(services.store))
    return {
        "Subject model": services.subject_name,
        "Hook point": f"{hook.get('tower')} tower, block {hook.get('layer')}, {hook.get('stream')} stream",
        "SAE width (d_sae)": whole(sae.get("d_sae")),
        "Features per patch (k)": whole(sae.get("k")),
        "Explained variance": missing("not stored") if explained is None else percent(float(explained)) + on,
        "Alive features": whole(sae.get("alive")),
        "Passing the quality filter": missing("not stored") if n_kept is None else quality,
        "Artifact": services.version,
    }


def _share(counted: int, n: int) -> str:
    return _interval_words(wilson(counted, n))


def _interval_words(share: Interval) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "none"
    ends = f"[{percent(share.low)}, {percent(share.high)}]"
    return f"{percent(share.value)} {ends}, {count(round(share.value * share.n))} of {count(share.n)}"


def _facts(services: Services, second: Services) -> Markup:
    first, other = key_facts(services), key_facts(second)
    rows = []
    for name, value in first.items():
        rows.append(h("tr", h("th", name, scope="row"), h("td", value), h("td", other[name]), h("td")))
    return _table(services, second, rows, "What the two atlases are", "")


def parted(first: Entry | None, second: Entry | None) -> int | None:
    """1 if the first interval lies above the second, -1 if below, 0 where they meet; None where one is missing."""
    ends = [(one or {}).get(end) for one in (first, second) for end in ("low", "high")]
    if any(end is None for end in ends):
        return None
    low, high, other_low, other_high = (float(end) for end in ends if end is not None)
    return 1 if low > other_high else -1 if high < other_low else 0


def _mark(which: int | None, services: Services, second: Services) -> Markup:
    if which is None:
        return h("td", missing("an interval is missing"))
    if which == 0:
        return h("td", h("span", "intervals meet", class_="ico-why"))
    higher = services if which > 0 else second
    return h("td", h("span", f"higher in {higher.key}", class_="ico-badge", data_sign="▲"))


def _shared_arms(services: Services, second: Services) -> list[Arm]:
    known = [one.store.summary.get("arms", {}) for one in (services, second)]
    return [arm for arm in services.store.arms if all(arm.key in arms for arms in known)]


def _scores(services: Services, second: Services) -> Markup:
    """A row for each arm under each metric that both atlases have."""
    arms = _shared_arms(services, second)
    first, other = (one.store.summary.get("arms", {}) for one in (services, second))
    rows: list[Markup] = []
    for name, card in services.metric_cards.items():
        pairs = [(arm, first[arm.key].get(name), other[arm.key].get(name)) for arm in arms]
        if name not in second.metric_cards or not any(one and two for _, one, two in pairs):
            continue
        rows.append(h("tr", h("th", str(card.get("label") or name), colspan=4, scope="rowgroup"), class_="ico-section"))
        rows += [
            h("tr", _name(arm), h("td", _shown(one)), h("td", _shown(two)), _mark(parted(one, two), services, second))
            for arm, one, two in pairs
        ]
    return _table(services, second, rows, "Scores of the two atlases")


def _name(arm: Arm) -> Markup:
    return h("th", h("span", class_="ico-arm-dot", data_arm=arm.key), arm.label, scope="row")


def _shown(score: Entry | None) -> Markup:
    if not score or score.get("value") is None:
        return missing("nothing to score")
    return estimate(score["value"], score.get("n"), score.get("low"), score.get("high"))


def _wins(services: Services, second: Services) -> Markup:
    """How often each method is among the best: what a seed drew of several that tie is nobody's merit."""
    first, other = wins(services.store), wins(second.store)
    rows = [
        h(
            "tr",
            _name(arm),
            h("td", _interval_words(first.among[arm.key])),
            h("td", _interval_words(other.among[arm.key])),
            _mark(parted(asdict(first.among[arm.key]), asdict(other.among[arm.key])), services, second),
        )
        for arm in services.store.arms
        if arm.key in first.among and arm.key in other.among
    ]
    if not (first.n and other.n):
        return h("p", "One of the two stores no explanations.", class_="ico-why")
    return _table(services, second, rows, "Best explanations in the two atlases")
