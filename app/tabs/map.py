"""Map: every feature as a point, near others that mean alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.feature_map import feature_map, map_value
from app.hub import Hub, Updates
from app.services import Services
from app.tabs.feature import parse_feature
from app.url_fields import Field, Text, UrlState
from backend.feature_store import FeatureRecord

TITLE = "Map"
FIELDS: tuple[Field, ...] = (Text("colour", most=60, initial="cluster"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTab:
    """Components of the tab."""

    map: gr.HTML


def build(services: Services, static_version: str) -> MapTab:
    return MapTab(map=feature_map(services.version, static_version, elem_id="ico-map"))


def wire(hub: Hub, tab: MapTab) -> None:
    def picked(services: Services, event: gr.SelectData) -> Updates:
        return hub.opened(services, parse_feature(services, event.value)) | hub.tab("feature")

    hub.on([tab.map.select], picked)


def restore(hub: Hub, services: Services, tab: MapTab, state: UrlState) -> Updates:
    """Everything but the hits, which the search lights."""
    del hub
    value = map_value(services.version, selected=state["feature"], colour=state["colour"])
    return {tab.map: value}


def opened(services: Services, tab: MapTab, record: FeatureRecord, state: UrlState | None) -> Updates:
    del services, state
    return {tab.map: {"selected": record.feature}}


def show_hits(hits: Sequence[int], query: str) -> dict[str, Any]:
    """The message that lights the hits of a query on the map; no hits puts all lights out."""
    return {"hits": list(hits), "query": query if hits else ""}
