"""Feature: everything the atlas knows about one feature, methods and controls side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from app.components.built import built
from app.components.exemplars import RANKINGS
from app.feature_page import nothing_chosen, page
from app.hub import Hub, Updates
from app.services import Services
from app.url_fields import BadField, Choice, Field, Ids, Text, UrlState, Whole
from backend.errors import UnknownFeature
from backend.feature_store import FeatureRecord

TITLE = "Feature"
FIELDS: tuple[Field, ...] = (
    Choice("overlay", ("heat", "raw", "mask")),
    Whole("opacity", high=100),
    Choice("ranking", tuple(RANKINGS)),
    Text("outline", most=60),
)
"""How pictures are shown, for every feature alike. Scripts write and read them: exemplars.js, exemplar_regions.js."""
OPENED = ("number", "page")
MOST_LISTED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTab:
    """Components of the tab."""

    number: gr.Number
    previous: gr.Button
    next: gr.Button
    listed: gr.Textbox
    """Carries the list of the address to the server; hidden."""
    page: gr.HTML


def build(services: Services) -> FeatureTab:
    with gr.Row(elem_classes="ico-feature-row", equal_height=True):
        chosen = gr.Number(
            value=None,
            label="Feature number",
            placeholder="number",  # the label is not shown on a phone
            precision=0,
            minimum=0,
            scale=0,
            min_width=150,
            elem_id="ico-feature",
        )
        previous = gr.Button("← Previous", scale=0, min_width=110, elem_id="ico-previous")
        following = gr.Button("Next →", scale=0, min_width=110, elem_id="ico-next")
        gr.HTML('<p class="ico-list-place" role="status"></p>', apply_default_css=False)
    listed = gr.Textbox("", visible="hidden", elem_id="ico-listed")
    shown = built(nothing_chosen(services), elem_id="ico-feature-page")
    return FeatureTab(number=chosen, previous=previous, next=following, listed=listed, page=shown)


def wire(hub: Hub, tab: FeatureTab) -> None:
    hub.follow(tab.number, Whole("feature"))
    hub.opens([tab.number.submit], lambda services, value: _opened_number(hub, services, value), [tab.number])
    # The list a visitor walks is in the address; the script hands it over with the click.
    js = "(key, value, _) => [key, value, window.iconoscope.getField('list')]"
    for button, step in ((tab.previous, -1), (tab.next, 1)):

        def walk(services: Services, value: float | None, listed: str, step: int = step) -> Updates:
            return _stepped(hub, services, value, listed, step)

        hub.opens([button.click], walk, [tab.number, tab.listed], js=js)


def _opened_number(hub: Hub, services: Services, value: float | None) -> Updates:
    return {} if value is None else hub.opened(services, parse_feature(services, value))


def _stepped(hub: Hub, services: Services, value: float | None, listed: str, step: int) -> Updates:
    chosen = None if value is None else int(value)
    return hub.opened(services, neighbour_id(services, chosen, step, listed_ids(services, listed)))


def restore(hub: Hub, services: Services, tab: FeatureTab, state: UrlState) -> Updates:
    del hub
    # Gradio draws a number without a value as 0, which is a feature; a value that arrives later it leaves out.
    return {} if state.says("feature") else {tab.number: None, tab.page: str(nothing_chosen(services))}


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


def listed_ids(services: Services, text: object) -> list[int]:
    """The features of the address field ``list`` that this atlas has; none if it cannot be understood."""
    try:
        ids = Ids("list", most=MOST_LISTED).parse(str(text or ""))
    except BadField:
        return []
    return [one for one in dict.fromkeys(ids) if one in services.store]


def neighbour_id(services: Services, feature: int | None, step: int, listed: Sequence[int] = ()) -> int:
    """The id ``step`` places on in ``listed`` (else in the atlas), around the end; the first one from outside it."""
    ids = list(listed) or services.store.feature_ids.tolist()
    if feature is None or feature not in ids:
        return int(ids[0])
    return int(ids[(ids.index(feature) + step) % len(ids)])
