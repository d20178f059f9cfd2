"""The page of one feature: pictures, explanations beside controls, truth, neighbours. Pure HTML, no Gradio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from app.components import addresses
from app.components.agreement import agreement
from app.components.cards import NO_WORDS, absent_note, arm_card, arm_columns, feature_link, go_button, words
from app.components.charts import histogram, truth_badge
from app.components.citation import cite
from app.components.exemplars import RANKINGS, figure, gallery, overlay_bar
from app.components.glance import glance
from app.components.markup import Child, Markup, h
from app.components.numbers import count, fact, facts, firing_words, missing, n_equals, number, percent, precision_words
from app.feature_document import link
from app.ranking import standing, written_by
from app.services import Services
from app.starters import starters
from backend.feature_store import ExemplarRecord, FeatureRecord

N_EXEMPLARS = 12
N_NEIGHBOURS = 6
NEIGHBOUR_TITLES = {
    "meaning": ("By meaning", "cosine of the best explanations"),
    "direction": ("By direction", "cosine of the decoder rows"),
    "coactivation": ("By co-activation", "patches on which both fire, as a share of those on which either does"),
}
RANKING_LEDES = {
    "mean": "The images of the explaining split with the highest mean activation over all patches",
    "max": "The images of the explaining split with the highest activation of a single patch",
    "decile": "The whole range: an image from each tenth of those on which it fires, from the strongest to the weakest",
    "held_out": "The images of the scoring split, which no explanation saw, with the highest mean activation",
    "silent": "Images of the scoring split on which it does not fire at all, drawn by chance",
}
_SOURCES = {"held_out": ("mean", "score"), "silent": ("silent", "score")}
"""Pooling and split of the rankings that are not those of the explaining split."""


def nothing_chosen(services: Services) -> Markup:
    told = f"None of the {count(len(services.store))} features is open. Choose one on the map, search for a concept, "
    told += "type a number above, or begin with one of these:"
    cards = [_starter(services, feature) for feature in starters(services)]
    return h(
        "div",
        h("div", h("p", told), h("div", *cards, class_="ico-starters"), class_="ico-empty"),
        class_="ico-page",
    )


def _starter(services: Services, feature: int) -> Markup:
    record = services.store.feature(feature)
    pictures = [figure(one, record.maximum, services.version, caption=False) for one in services.pictures(feature, 1)]
    return h(
        "a",
        *pictures,
        words(record.best_text),
        href=addresses.page(tab="feature", feature=feature),
        class_="ico-hit",
        data_go="feature",
        data_value=feature,
    )


def page(services: Services, feature: int) -> Markup:
    """The whole page of one feature. Raises UnknownFeature."""
    record = services.store.feature(feature)
    return h(
        "article",
        _head(services, record),
        _exemplars(services, record),
        *_explanations(services, record),
        _neighbours(services, record),
        class_="ico-page",
        data_feature=feature,
    )


def _head(services: Services, record: FeatureRecord) -> Markup:
    feature = record.feature
    cluster = next((one.label for one in services.store.clusters if one.cluster == record.cluster), None)
    quality = "kept by the quality filter" if record.quality_kept else "below the quality filter"
    eyebrow = h(
        "div",
        h("span", f"Feature {feature}", class_="ico-id"),
        h("span", cluster, class_="ico-badge", data_sign="●") if cluster else None,
        truth_badge(services.best_outcome(feature)),
        h("span", quality, class_="ico-badge", data_sign="✓" if record.quality_kept else "–"),
        class_="ico-eyebrow",
    )
    left = h(
        "div",
        eyebrow,
        h("p", record.best_text, class_="ico-words is-large") if record.best_text else h("p", NO_WORDS),
        h("p", written_by(services, record), class_="ico-why"),
        _facts(record),
        _actions(services, record),
    )
    right = h(
        "div",
        h("h3", "Where it fires"),
        histogram(record.histogram, record.histogram_edges),
        class_="ico-panel",
    )
    return h("div", left, right, class_="ico-feature-head")


def _facts(record: FeatureRecord) -> Markup:
    if record.truth_concept and record.truth_ap is not None:
        truth = Markup(h("span", record.truth_concept.replace("_", " ")))
        note = precision_words(record)
    else:
        truth, note = missing("no concept is detected well enough"), None
    items = [
        fact("Concept it detects (truth)", truth, note),
        fact("Fires on", percent(record.firing_fraction), firing_words(record)),
        fact("Maximum activation", number(record.maximum), _active_words(record)),
    ]
    if record.recommended_strength is not None:
        ratio = f"{record.recommended_strength / record.maximum:.1f} × maximum" if record.maximum else None
        items.append(fact("Recommended strength", f"{record.recommended_strength:.1f} L2", ratio))
    if record.agreement is not None:
        items.append(
            fact("Steering and top images agree", number(record.agreement), "cosine of two texts, one of each")
        )
    return facts(*items)


def _active_words(record: FeatureRecord) -> str:
    n = f", {n_equals(sum(record.histogram))} patches" if record.histogram else ""
    return f"mean when active {number(record.mean_when_active)}{n}"


def _actions(services: Services, record: FeatureRecord) -> Markup:
    feature = record.feature
    document = addresses.data(f"feature/{feature}/document.json", services.version)
    return h(
        "div",
        h(
            "div",
            go_button(
                "Steer this feature", "steer", feature, addresses.page(tab="steer", feature=feature), primary=True
            ),
            go_button("Show on map", "tab", "map", addresses.page(tab="map", feature=feature)),
            go_button("Copy link", "copy", feature, link(services, feature)),
            h("a", "JSON", href=document, class_="ico-button", download=f"{services.key}-feature-{feature}.json"),
            class_="ico-actions",
        ),
        cite(services, record),
    )


def exemplars_by_ranking(services: Services, feature: int) -> dict[str, tuple[ExemplarRecord, ...]]:
    """The pictures of each ranking that has any, in the order of the switch. Raises UnknownFeature."""
    found = {}
    for ranking in RANKINGS:
        pooling, split = _SOURCES.get(ranking, (ranking, "explain"))
        found[ranking] = services.store.exemplars(feature, pooling=pooling, split=split)[:N_EXEMPLARS]
    return {ranking: exemplars for ranking, exemplars in found.items() if exemplars}


def regions_of(services: Services, feature: int, image_ids: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
    """Image id to arm key to the patches that the arm's words speak about, where the atlas holds them."""
    texts = {one.arm.key: one.text for one in services.store.explanations(feature) if one.text is not None}
    found: dict[str, dict[str, np.ndarray]] = {}
    for image_id in dict.fromkeys(image_ids):
        regions = {key: services.store.text_mask(text, image_id) for key, text in texts.items()}
        found[image_id] = {key: region for key, region in regions.items() if region is not None}
    return found


def _exemplars(services: Services, record: FeatureRecord) -> Markup:
    found = exemplars_by_ranking(services, record.feature)
    if not found:
        return h("section", h("h2", "Exemplars"), h("p", "No exemplars were stored.", class_="ico-why"))
    regions = regions_of(services, record.feature, (one.image_id for shown in found.values() for one in shown))
    outlined = {key for known in regions.values() for key in known}
    arms = [arm for arm in services.store.arms if arm.key in outlined]
    galleries = [
        gallery(
            exemplars,
            record.maximum,
            services.version,
            ranking,
            f"{RANKING_LEDES[ranking]} (n = {len(exemplars)}). Colours share one scale: the feature's maximum."
            + (_seen_by_methods(services, record.feature, exemplars) if ranking in ("mean", "max") else ""),
            regions,
        )
        for ranking, exemplars in found.items()
    ]
    told = "Outlines show where the segmenter finds what a method's words name. IoU compares that region with the "
    told += "patches where the feature fires, in this picture alone; the scores below use held-out images at full size."
    note = h("p", told, class_="ico-why ico-outline-note") if arms else None
    bar = overlay_bar("feature", list(found), arms)
    return h("section", h("h2", "Exemplars"), bar, note, *galleries, class_="ico-exemplars")


def _seen_by_methods(services: Services, feature: int, exemplars: Sequence[ExemplarRecord]) -> str:
    """Which of these pictures the methods that look at pictures were given, if they are the first ones."""
    given = max((one.image_ids for one in services.store.explanations(feature)), key=len, default=())
    first = tuple(exemplar.image_id for exemplar in exemplars[: len(given)])
    return f" The Top-k methods were shown the first {len(given)}." if given and first == given else ""


def _explanations(services: Services, record: FeatureRecord) -> list[Child]:
    ranks = standing(services, record.feature)
    store = services.store
    scores, records = store.scores(record.feature), store.explanations(record.feature)
    cards: dict[bool, list[Markup]] = {False: [], True: []}
    for one in records:
        images = store.synthetic(record.feature, one.arm)
        card = arm_card(one, scores.get(one.arm, ()), images, services.metric_cards, services.version, ranks)
        cards[one.arm.is_control].append(card)
    lede = "The same feature explained by each method, each scored on images that no explanation saw. "
    lede += "Dots are values, bars 95 % intervals, dashes chance. Words in this face were written by the model."
    controls = "The same prompts without the feature: what the scores look like when there is nothing to find."
    at_a_glance = h("div", h("h3", "At a glance"), glance(records, scores, services.metric_cards, ranks))
    return [
        h(
            "section",
            h("h2", "Explanations"),
            h("p", lede, class_="ico-lede"),
            absent_note(store.absent_arms),
            at_a_glance,
            arm_columns(cards[False], "The methods side by side"),
        ),
        agreement(services, record),
        h("section", h("h2", "Controls"), h("p", controls, class_="ico-lede"), arm_columns(cards[True], "The controls"))
        if cards[True]
        else None,
    ]


def _neighbours(services: Services, record: FeatureRecord) -> Markup:
    columns = []
    for kind, (title, unit) in NEIGHBOUR_TITLES.items():
        near = services.search.similar(record.feature, kind)[:N_NEIGHBOURS]
        items = [
            h("li", feature_link(one.feature, services.store.feature(one.feature).best_text, number(one.value)))
            for one in near
            if one.feature in services.store
        ]
        body = h("ul", *items) if items else h("p", "None were stored.", class_="ico-why")
        columns.append(h("div", h("h3", title), h("span", unit, class_="ico-why"), body))
    return h("section", h("h2", "Nearest features"), h("div", *columns, class_="ico-near"))
