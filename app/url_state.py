"""The state of the explorer that lives in the address: the fields of every tab together."""

from __future__ import annotations

from collections.abc import Mapping

from app import url_fields
from app.tabs import TABS
from app.url_fields import Choice, Field, Text, UrlState, Whole

COMMON: tuple[Field, ...] = (Choice("tab", tuple(TABS)), Text("atlas", most=80), Whole("feature"))
"""What belongs to no tab: which one is open, which atlas, which feature."""
FIELDS: Mapping[str, Field] = url_fields.by_name([COMMON, *(module.FIELDS for module in TABS.values())])
"""Every field of the address by name."""


def parse(query: Mapping[str, str]) -> UrlState:
    """Read the fields of an address. Never raises."""
    return url_fields.parse(FIELDS, query)


def state_of(**values: object) -> UrlState:
    """A state from values by field name."""
    return UrlState(FIELDS, values)
