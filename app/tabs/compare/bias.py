"""Contextual bias: features whose images suggest one sort of thing while steering says another.

A crab that is nearly always photographed on sand teaches an observer "crab" for a feature that fires on sand. Steering
has no image to be misled by, but may miss the meaning altogether, so who is right is told where it is known. The view
counts such pairs and shows, in one picture, the region that both texts claim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from app.components import addresses
from app.components.agreement import CAUSAL, CORRELATIONAL
from app.components.cards import go_button
from app.components.exemplars import figure
from app.components.markup import Child, Markup, h, join
from app.components.numbers import count, percent
from app.components.regions import active, outlined, overlap, overlay, shaded
from app.intervals import wilson
from app.services import Services
from app.tabs.compare.columns import outcomes_of, texts_of
from backend.feature_store import ExemplarRecord, FeatureStore
from backend.types import ARM_BY_KEY, TruthOutcome

N_SHOWN = 24
MOST_LISTED = 500
CONTROL = "permuted_direction"
"""The arm that says how often two texts differ by chance."""
BETWEEN = "~"
"""Between the two groups of a cell, in addresses."""
Cell = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Features by what their two texts name: (group by the top images, group by steering)."""

    cells: Mapping[Cell, tuple[int, ...]]
    """On the diagonal, features whose texts share the group; elsewhere, features whose texts share none."""
    differing: tuple[int, ...]
    n_known: int
    n_unknown: int
    """Features of which one text or its groups are missing."""

    @property
    def names(self) -> tuple[str, ...]:
        """All groups, the most frequent first."""
        totals: dict[str, int] = {}
        for (across, down), features in self.cells.items():
            for name in {across, down}:
                totals[name] = totals.get(name, 0) + len(features)
        return tuple(sorted(totals, key=lambda name: (-totals[name], name)))


@lru_cache(maxsize=8)
def groups(store: FeatureStore, other: str = CAUSAL) -> Groups:
    """Sort all features by the groups of their two texts: by the top images, and by the arm ``other``."""
    seen, caused = texts_of(store, CORRELATIONAL), texts_of(store, other)
    known = {text: store.text_groups(text) for text in {*seen.values(), *caused.values()}}
    cells: dict[Cell, list[int]] = {}
    differing: list[int] = []
    n_unknown = 0
    for feature in store.feature_ids.tolist():
        first, second = known.get(seen.get(feature, "")), known.get(caused.get(feature, ""))
        if not first or not second:
            n_unknown += 1
            continue
        shared = [name for name in first if name in second]
        if not shared:
            differing.append(feature)
        for cell in [(name, name) for name in shared] or [(one, other) for one in first for other in second]:
            cells.setdefault(cell, []).append(feature)
    return Groups(
        cells={cell: tuple(features) for cell, features in cells.items()},
        differing=tuple(differing),
        n_known=len(store) - n_unknown,
        n_unknown=n_unknown,
    )


def chosen_cell(found: Groups, text: str) -> Cell | None:
    """The cell that an address names; None where the atlas has no such cell."""
    first, _, second = text.partition(BETWEEN)
    return (first, second) if (first, second) in found.cells else None


def page(services: Services, argument: str = "") -> Markup:
    """The view; ``argument`` is ``<group by the top images>~<group by steering>`` or "" for all disagreements."""
    found = groups(services.store)
    told = "Top-k explains a feature by the images where it fires; steering by what it makes the model say about a "
    told += "blank image. Where the two name different sorts of thing, the images may mislead: what stands beside the "
    told += "thing is taken for the thing itself. Or steering may have said something else than the feature means."
    head = [h("h2", "Where the images say one thing and steering another"), h("p", told, class_="ico-lede")]
    if not found.n_known:
        why = "This atlas does not say what sorts of thing its texts name, so texts cannot be compared by group."
        return h("div", h("section", *head, h("p", why, class_="ico-empty")), class_="ico-page")
    cell = chosen_cell(found, argument)
    features = found.cells[cell] if cell else found.differing
    return h(
        "div",
        h("section", *head, _reading(services.store, found), _matrix(found, cell)),
        h("section", *_list(services, features, cell)),
        class_="ico-page ico-bias",
    )


def _reading(store: FeatureStore, found: Groups) -> Markup:
    """The count, its control, and what is known of who is right."""
    told = (_counted(found), _controlled(store), _judged(store, found))
    return h("p", " ".join(part for part in told if part), class_="ico-reading")


def _counted(found: Groups) -> str:
    share = wilson(len(found.differing), found.n_known)
    told = f"{count(len(found.differing))} of {count(found.n_known)} features name different sorts of thing"
    if share.value is not None and share.low is not None and share.high is not None:
        told += f": {percent(share.value)} [{percent(share.low)}, {percent(share.high)}]"
    if found.n_unknown:
        told += f". For {count(found.n_unknown)} more, what one of the two texts names is not known"
    return told + "."


def _of(counted: int, n: int) -> str:
    """``12 of 40 (30 % [18 %, 45 %])``."""
    share = wilson(counted, n)
    told = f"{count(counted)} of {count(n)}"
    if share.value is None or share.low is None or share.high is None:
        return told
    return f"{told} ({percent(share.value)} [{percent(share.low)}, {percent(share.high)}])"


def _judged(store: FeatureStore, found: Groups) -> str | None:
    """Who is right where the two differ, if anybody knows: a difference alone does not say which of them errs."""
    outcomes = {arm: outcomes_of(store, arm) for arm in (CORRELATIONAL, CAUSAL)}
    undecidable = TruthOutcome.UNDECIDABLE
    known = [one for one in found.differing if outcomes[CAUSAL].get(one, undecidable) != undecidable]
    if not known:
        return None
    right = {
        arm: _of(sum(verdicts.get(one) == TruthOutcome.RIGHT for one in known), len(known))
        for arm, verdicts in outcomes.items()
    }
    told = "Which of the two errs? Where they differ and the concept is known, "
    told += f"{ARM_BY_KEY[CORRELATIONAL].label} is right for {right[CORRELATIONAL]} and {ARM_BY_KEY[CAUSAL].label} for "
    return f"{told}{right[CAUSAL]}."


def _controlled(store: FeatureStore) -> str | None:
    """How often they would differ if steering knew nothing of the feature; None where the atlas lacks the control."""
    found = groups(store, CONTROL)
    if not found.n_known:
        return None
    told = f"With {ARM_BY_KEY[CONTROL].label} in place of Steering, which knows nothing of the feature, "
    return f"{told}{_of(len(found.differing), found.n_known)} differ."


def _words(group: str) -> str:
    return group.replace("_", " ")


def _matrix(found: Groups, chosen: Cell | None) -> Markup:
    """Counts by pair of groups. Cells lead to their features; the diagonal, one sort in both, stays pale."""
    names = found.names
    most = max((len(features) for cell, features in found.cells.items() if cell[0] != cell[1]), default=1)
    rows = [
        h("tr", h("th", _words(row), scope="row"), *(_matrix_cell(found, (row, col), most, chosen) for col in names))
        for row in names
    ]
    corner = h("td", h("span", "Top-k ↓"), " ", h("span", "Steering →"), class_="ico-corner")
    table = h(
        "table",
        h(
            "caption",
            "Features by what Top-k (masks) and Steering name. Choose a number to see them.",
            class_="ico-why",
        ),
        h("thead", h("tr", corner, *(h("th", _words(name), scope="col") for name in names))),
        h("tbody", *rows),
        class_="ico-matrix",
    )
    note = "A feature whose texts name several groups stands in several cells. On the outlined diagonal both name the "
    note += "same sort of thing, which need not be the same thing."
    scroll = h("div", table, class_="ico-table-scroll", tabindex=0, role="region", aria_label="Features by group")
    return h("div", scroll, h("p", note, class_="ico-why"))


def _matrix_cell(found: Groups, cell: Cell, most: int, chosen: Cell | None) -> Markup:
    features = found.cells.get(cell, ())
    same = "is-same" if cell[0] == cell[1] else None
    if not features:
        return h("td", h("span", "·", aria_hidden="true"), h("span", "0", class_="ico-hidden"), class_=same)
    address = BETWEEN.join(cell)
    link = h(
        "a",
        count(len(features)),
        href=addresses.page(tab="compare", compare="bias", cell=address),
        data_go="compare",
        data_value=f"bias:{address}",
        data_set=f"compare=bias&cell={address}",
        aria_current="true" if cell == chosen else None,
        aria_label=f"{len(features)} features: Top-k names {_words(cell[0])}, Steering {_words(cell[1])}",
    )
    share = 0.0 if same else len(features) / most
    return h("td", link, class_=same, style=f"--share:{share:.3f}")


def _list(services: Services, features: Sequence[int], cell: Cell | None) -> list[Child]:
    if cell is None:
        title, back = "All features where they differ", None
    else:
        first, second = (_words(name) for name in cell)
        title = f"Both name {first}" if cell[0] == cell[1] else f"Top-k names {first}, steering names {second}"
        all_of = {"data_go": "compare", "data_value": "bias", "data_set": "compare=bias&cell="}
        href = addresses.page(tab="compare", compare="bias")
        back = h("a", "All that differ", href=href, class_="ico-button", attributes=all_of)
    ordered = _ordered(services, features)
    walk = None
    if ordered:
        ids = ".".join(str(one) for one in ordered[:MOST_LISTED])
        href = addresses.page(tab="feature", feature=ordered[0], list=ids)
        walk = h(
            "a",
            "Walk through them",
            href=href,
            class_="ico-button",
            attributes={"data_go": "feature", "data_value": ordered[0], "data_set": f"list={ids}"},
        )
    shown = ordered[:N_SHOWN]
    told = f"The first {len(shown)} of {count(len(ordered))}" if len(shown) < len(ordered) else f"n = {len(ordered)}"
    lede = f"{told}; features that pass the quality filter first, then those that fire on most images."
    cards = [_card(services, feature) for feature in shown]
    return [
        h("div", h("h2", title), back, walk, class_="ico-list-head"),
        h("p", lede, class_="ico-lede"),
        _key(),
        h("div", *cards, class_="ico-bias-list") if cards else h("p", "No feature is here.", class_="ico-empty"),
    ]


def _ordered(services: Services, features: Sequence[int]) -> list[int]:
    table = services.store.features
    rows = np.flatnonzero(np.isin(services.store.feature_ids, np.asarray(features, dtype=np.int64)))
    kept = table["quality_kept"].to_numpy(zero_copy_only=False)[rows].astype(bool)
    images = table["n_images_active"].to_numpy()[rows]
    order = np.lexsort((-images, ~kept))
    return services.store.feature_ids[rows[order]].tolist()


def _key() -> Markup:
    items = (
        ("correlational", f"named by {ARM_BY_KEY[CORRELATIONAL].label}"),
        ("causal", f"named by {ARM_BY_KEY[CAUSAL].label}"),
        ("both", "claimed by both"),
    )
    swatches = [h("span", h("span", class_="ico-region-swatch", data_region=role), words) for role, words in items]
    heat = h("span", h("span", class_="ico-region-swatch", data_region="heat"), "where the feature fires")
    return h("div", *swatches, heat, class_="ico-key")


def _card(services: Services, feature: int) -> Markup:
    store = services.store
    record = store.feature(feature)
    seen, caused = texts_of(store, CORRELATIONAL)[feature], texts_of(store, CAUSAL)[feature]
    said = [
        join([h("dt", ARM_BY_KEY[key].label, data_arm=key), h("dd", text, class_="ico-words")])
        for key, text in ((CORRELATIONAL, seen), (CAUSAL, caused))
    ]
    head = go_button(f"Feature {feature}", "feature", feature, addresses.page(tab="feature", feature=feature))
    picture, told = _picture(services, feature, seen, caused, record.maximum)
    return h(
        "article",
        picture,
        h("div", h("dl", *said), told, head),
        class_="ico-bias-card",
        data_feature=feature,
    )


def _picture(services: Services, feature: int, seen: str, caused: str, maximum: float) -> tuple[Child, Markup]:
    """The exemplar that shows both claims best, with both outlines; and its counts."""
    store = services.store
    exemplars = (*store.exemplars(feature), *store.exemplars(feature, split="score"))
    found = [(one, store.text_mask(seen, one.image_id), store.text_mask(caused, one.image_id)) for one in exemplars]
    both = [(one, first, second) for one, first, second in found if first is not None and second is not None]
    if not both:
        lone = figure(exemplars[0], maximum, services.version, caption=False) if exemplars else None
        why = "The regions that these texts name were not stored, so they cannot be outlined."
        return lone, h("p", why, class_="ico-why")
    one, first, second = max(both, key=lambda pair: int(pair[1].any()) + int(pair[2].any()))
    layers = overlay(
        shaded(first & second, "both"),
        outlined(first, "correlational"),
        outlined(second, "causal"),
        rows=first.shape[0],
        cols=first.shape[1],
    )
    shown = h("div", figure(one, maximum, services.version, caption=False), layers, class_="ico-bias-picture")
    return shown, _counts(one, first, second)


def _counts(exemplar: ExemplarRecord, first: np.ndarray, second: np.ndarray) -> Markup:
    """Patches of each region in this picture, and on how many of them the feature fires."""
    claims, fires = overlap(first, second), active(exemplar.grid)
    regions = (("Top-k names", first), ("Steering names", second), ("Both claim", first & second))
    rows = [
        h(
            "tr",
            h("th", name, scope="row"),
            h("td", count(int(np.count_nonzero(region)))),
            h("td", count(int(np.count_nonzero(region & fires)))),
        )
        for name, region in regions
    ]
    everywhere = h("tr", h("th", "All", scope="row"), h("td", count(claims.n)), h("td", count(int(fires.sum()))))
    head = h("tr", h("td", ""), h("th", "patches", scope="col"), h("th", "of them fire", scope="col"))
    return h("table", h("thead", head), h("tbody", *rows, everywhere), class_="ico-counts")
