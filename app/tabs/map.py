"""Map: every feature as a point, near others that mean alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import map_files
from app.components.feature_map import feature_map, map_value
from app.hub import Hub, Updates
from app.map_data import MOST_WORDS
from app.services import METRIC_ORDER, Services
from app.tabs.feature import parse_feature
from app.url_fields import Choice, Field, Flag, Ids, Number, Numbers, UrlState, Whole
from backend.feature_store import FeatureRecord
from backend.types import ARMS, TruthOutcome

TITLE = "Map"
COLOURS = ("cluster", "best_arm", *METRIC_ORDER, "agreement", "firing_fraction", "verdict", "truth_group")
_METHODS = tuple(arm.key for arm in ARMS if not arm.is_control)
_VERDICTS = tuple(one.value for one in TruthOutcome if one is not TruthOutcome.UNDECIDABLE)
FIELDS: tuple[Field, ...] = (
    Choice("colour", COLOURS),
    Flag("quality"),
    Choice("winner", ("", *_METHODS)),
    Choice("verdict", ("", *_VERDICTS)),
    Whole("cluster"),
    Number("min_firing", 0, 1),
    Number("min_agreement", -1, 1),
    Number("min_auroc", 0, 1),
    Numbers("camera", n=4),
    Ids("list", most=MOST_WORDS),
)
"""Written and read by static/map.js, which knows which features the atlas has; here they are only checked."""
OPENED = ("map",)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTab:
    """Components of the tab."""

    map: gr.HTML


def build(services: Services) -> MapTab:
    map_files.prepare(services)
    return MapTab(map=feature_map(services.version, elem_id="ico-map"))


def wire(hub: Hub, tab: MapTab) -> None:
    def picked(services: Services, event: gr.SelectData) -> Updates:
        return hub.opened(services, parse_feature(services, event.value)) | hub.tab("feature")

    def listed(services: Services, value: str) -> Updates:
        return {tab.map: show_list(services, value)} | hub.tab("map")

    hub.opens([tab.map.select], picked)
    hub.action("list", listed)


def restore(hub: Hub, services: Services, tab: MapTab, state: UrlState) -> Updates:
    """Everything but the hits, which the search lights."""
    del hub
    value = map_value(services.version, selected=state["feature"], colour=state["colour"], restored=True)
    return {tab.map: value}


def opened(services: Services, tab: MapTab, record: FeatureRecord, state: UrlState | None) -> Updates:
    del services, state
    return {tab.map: {"selected": record.feature}}


def show_hits(hits: Sequence[int], query: str) -> dict[str, Any]:
    """The message that lights the hits of a query on the map; no hits puts all lights out.

    A query without hits is told above the map.
    """
    return {"hits": list(hits), "query": query}


def show_list(services: Services, value: str) -> dict[str, Any]:
    """The message that lists features on the map. ``value``: ids joined by dots, then optionally a space and a name.

    What no feature of the atlas answers to is left out. The message differs each time, so that the same list can be
    asked for again after a visitor has cleared it.
    """
    ids, _, name = value.partition(" ")
    parts = [part for part in ids.split(".")[:MOST_WORDS] if part.isascii() and part.isdigit() and len(part) <= 10]
    known = [int(part) for part in parts if int(part) in services.store]
    return {"list": known, "list_name": name[:120], "asked": time.monotonic_ns()}
