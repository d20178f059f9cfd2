"""Feature: everything the atlas knows about one feature, methods and controls side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from app.components import addresses
from app.components.cards import NO_WORDS, arm_card, feature_link, go_button
from app.components.charts import histogram, truth_badge
from app.components.exemplars import gallery, overlay_bar
from app.components.markup import Markup, h, join
from app.components.numbers import count, fact, facts, missing, n_equals, number, percent
from app.hub import Hub, Updates
from app.services import Services
from app.url_fields import Field, UrlState, Whole
from backend.errors import UnknownFeature
from backend.feature_store import ExemplarRecord, FeatureRecord

TITLE = "Feature"
FIELDS: tuple[Field, ...] = ()
N_EXEMPLARS = 12
N_NEIGHBOURS = 6
NEIGHBOUR_TITLES = {
    "meaning": ("By meaning", "cosine of the best explanations"),
    "direction": ("By direction", "cosine of the decoder rows"),
    "coactivation": ("By co-activation", "how much more often they fire together than by chance"),
}


POOLING_LEDES = {
    "mean": "The images of the explaining split with the highest mean activation over all patches",
    "max": "The images of the explaining split with the highest activation of a single patch",
    "decile": "A fair sample of the images on which it fires, from the highest mean activation to the lowest",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTab:
    """Components of the tab."""

    number: gr.Number
    previous: gr.Button
    next: gr.Button
    page: gr.HTML


def build(services: Services, static_version: str) -> FeatureTab:
    del static_version  # this tab has no script of its own
    with gr.Row(elem_classes="ico-feature-row", equal_height=True):
        chosen = gr.Number(
            value=None, label="Feature number", precision=0, minimum=0, scale=0, min_width=150, elem_id="ico-feature"
        )
        previous = gr.Button("← Previous", scale=0, min_width=110, elem_id="ico-previous")
        following = gr.Button("Next →", scale=0, min_width=110, elem_id="ico-next")
    page = gr.HTML(str(nothing_chosen(services)), elem_id="ico-feature-page", apply_default_css=False)
    return FeatureTab(number=chosen, previous=previous, next=following, page=page)


def wire(hub: Hub, tab: FeatureTab) -> None:
    hub.follow(tab.number, Whole("feature"))
    hub.on([tab.number.submit], lambda services, value: _opened_number(hub, services, value), [tab.number])
    for button, step in ((tab.previous, -1), (tab.next, 1)):
        hub.on([button.click], lambda services, value, step=step: _stepped(hub, services, value, step), [tab.number])


def _opened_number(hub: Hub, services: Services, value: float | None) -> Updates:
    return {} if value is None else hub.opened(services, parse_feature(services, value))


def _stepped(hub: Hub, services: Services, value: float | None, step: int) -> Updates:
    return hub.opened(services, neighbour_id(services, None if value is None else int(value), step))


def restore(hub: Hub, services: Services, tab: FeatureTab, state: UrlState) -> Updates:
    del hub
    return {} if state.says("feature") else {tab.page: str(nothing_chosen(services))}


def opened(services: Services, tab: FeatureTab, record: FeatureRecord, state: UrlState | None) -> Updates:
    del state
    return {tab.number: record.feature, tab.page: str(page(services, record.feature))}


def parse_feature(services: Services, value: object) -> int:
    """A feature id of this atlas from whatever the browser sent. Raises UnknownFeature."""
    if value is None or value == "":
        raise UnknownFeature("No feature is chosen. Type a feature number, or choose one on the map.")
    try:
        feature = int(str(value).strip()) if not isinstance(value, float) else int(value)
    except (ValueError, OverflowError) as error:
        raise UnknownFeature(f"{str(value)[:40]!r} is not a feature number. Type a whole number.") from error
    return services.store.feature(feature).feature


def neighbour_id(services: Services, feature: int | None, step: int) -> int:
    """The id ``step`` places on in the atlas, around the end; the first one if none is chosen."""
    ids = services.store.feature_ids.tolist()
    if feature not in ids:
        return int(ids[0])
    return int(ids[(ids.index(feature) + step) % len(ids)])


def nothing_chosen(services: Services) -> Markup:
    firsts = services.store.feature_ids[:5].tolist()
    buttons = [go_button(str(one), "feature", one, addresses.page(tab="feature", feature=one)) for one in firsts]
    told = f"Choose a feature on the map, from a search, or by its number. This atlas has {count(len(services.store))}."
    return h(
        "div",
        h("div", h("p", told), h("div", *buttons, class_="ico-examples"), class_="ico-empty"),
        class_="ico-page",
    )


def page(services: Services, feature: int) -> Markup:
    """The whole page of one feature. Raises UnknownFeature."""
    record = services.store.feature(feature)
    return h(
        "article",
        _head(services, record),
        _exemplars(services, record),
        _explanations(services, record),
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
    by = f"Best explanation, by {record.best_arm.label}" if record.best_arm else "No best explanation"
    left = h(
        "div",
        eyebrow,
        h("p", record.best_text, class_="ico-words is-large") if record.best_text else h("p", NO_WORDS),
        h("p", by, class_="ico-why"),
        _facts(record),
        _actions(feature),
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
        note = f"AP {number(record.truth_ap)}"
    else:
        truth, note = missing("no concept is detected well enough"), None
    items = [
        fact("Concept it detects (truth)", truth, note),
        fact("Fires on", percent(record.firing_fraction), f"of patches, {n_equals(record.n_images_active)} images"),
        fact("Maximum activation", number(record.maximum), f"mean when active {number(record.mean_when_active)}"),
    ]
    if record.recommended_strength is not None:
        ratio = f"{record.recommended_strength / record.maximum:.1f} × maximum" if record.maximum else None
        items.append(fact("Recommended strength", f"{record.recommended_strength:.1f} L2", ratio))
    if record.agreement is not None:
        items.append(fact("Steering and top images agree", number(record.agreement), "cosine of the texts"))
    return facts(*items)


def _actions(feature: int) -> Markup:
    return h(
        "div",
        go_button("Steer this feature", "steer", feature, addresses.page(tab="steer", feature=feature), primary=True),
        go_button("Show on map", "tab", "map", addresses.page(tab="map", feature=feature)),
        go_button("Copy link", "copy", feature, addresses.page(tab="feature", feature=feature)),
        class_="ico-actions",
    )


def _exemplars(services: Services, record: FeatureRecord) -> Markup:
    found = {
        pooling: services.store.exemplars(record.feature, pooling=pooling)[:N_EXEMPLARS] for pooling in POOLING_LEDES
    }
    found = {pooling: exemplars for pooling, exemplars in found.items() if exemplars}
    if not found:
        return h("section", h("h2", "Exemplars"), h("p", "No exemplars were stored.", class_="ico-why"))
    galleries = [
        gallery(
            exemplars,
            record.maximum,
            services.version,
            pooling,
            f"{POOLING_LEDES[pooling]} (n = {len(exemplars)}). Colours share one scale: the feature's maximum."
            + _seen_by_methods(services, record.feature, exemplars),
        )
        for pooling, exemplars in found.items()
    ]
    return h("section", h("h2", "Exemplars"), overlay_bar("feature", list(found)), *galleries)


def _seen_by_methods(services: Services, feature: int, exemplars: Sequence[ExemplarRecord]) -> str:
    """Which of these pictures the methods that look at pictures were given, if they are the first ones."""
    given = max((one.image_ids for one in services.store.explanations(feature)), key=len, default=())
    first = tuple(exemplar.image_id for exemplar in exemplars[: len(given)])
    return f" The Top-k methods were shown the first {len(given)}." if given and first == given else ""


def _explanations(services: Services, record: FeatureRecord) -> Markup:
    store = services.store
    scores = store.scores(record.feature)
    cards: dict[bool, list[Markup]] = {False: [], True: []}
    for one in store.explanations(record.feature):
        images = store.synthetic(record.feature, one.arm)
        cards[one.arm.is_control].append(
            arm_card(one, scores.get(one.arm, ()), images, services.metric_cards, services.version)
        )
    lede = "The same feature explained by each method, each scored on images that no explanation saw. "
    lede += "Dots are values, bars 95 % intervals, dashes chance. Words in this face were written by the model."
    controls = "The same prompts without the feature: what the scores look like when there is nothing to find."
    return join(
        [
            h(
                "section",
                h("h2", "Explanations"),
                h("p", lede, class_="ico-lede"),
                h("div", *cards[False], class_="ico-arms"),
            ),
            h(
                "section",
                h("h2", "Controls"),
                h("p", controls, class_="ico-lede"),
                h("div", *cards[True], class_="ico-arms"),
            )
            if cards[True]
            else None,
        ]
    )


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
