"""Map: every feature as a point, near others that mean alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components.feature_map import feature_map, map_value
from app.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTab:
    """Components of the tab."""

    map: gr.HTML


def build(services: Services, static_version: str) -> MapTab:
    return MapTab(map=feature_map(services.version, static_version, elem_id="ico-map"))


def show_feature(value: dict[str, Any], feature: int | None) -> dict[str, Any]:
    """The map's value with another feature marked."""
    return {**value, "selected": feature}


def show_hits(services: Services, value: dict[str, Any], hits: Sequence[int], query: str) -> dict[str, Any]:
    """The map's value with the hits of a query lit; no hits puts all lights out."""
    return map_value(
        services.version,
        selected=value.get("selected"),
        hits=list(hits),
        query=query if hits else "",
        colour=str(value.get("colour") or "cluster"),
    )
