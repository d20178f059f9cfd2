"""The tabs of the explorer in their order. A tab is one module; app/hub.py says what it offers."""

from __future__ import annotations

from collections.abc import Mapping

from app.hub import TabModule
from app.tabs import about, compare, feature, inspect, map, search, steer

TABS: Mapping[str, TabModule] = {
    "map": map,
    "search": search,
    "feature": feature,
    "inspect": inspect,
    "steer": steer,
    "compare": compare,
    "about": about,
}
"""Name of a tab in addresses to its module."""
