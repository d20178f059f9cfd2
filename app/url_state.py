"""The state of the explorer that lives in the address: read when a page loads, written by the browser.

Everything here comes from strangers: a field that cannot be understood is dropped with a notice, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from app.components import addresses
from backend.types import Operation, PatchScope

TABS = ("map", "search", "feature", "steer", "compare", "about")
SCOPES = (PatchScope.ALL, PatchScope.ACTIVE)
MAX_TEXT = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlState:
    """One view of the explorer. ``None`` and "" mean: not said, use the default."""

    tab: str = "map"
    feature: int | None = None
    q: str = ""
    colour: str = "cluster"
    operation: Operation = Operation.ADD
    scope: PatchScope = PatchScope.ALL
    strength: float | None = None
    image: str = ""
    """Image id for steering; empty is the blank image."""
    prompt: str = ""
    notices: tuple[str, ...] = ()
    """What of the address was not understood, for the visitor."""


def parse(query: Mapping[str, str]) -> UrlState:
    """Read the fields of an address. Never raises."""
    notices: list[str] = []

    def choice(name: str, allowed: tuple[str, ...], default: str) -> str:
        value = query.get(name)
        if value is None or value in allowed:
            return value or default
        notices.append(f"{name}={value[:40]} is not one of {', '.join(allowed)}")
        return default

    def numeral(name: str) -> float | None:
        value = query.get(name)
        if not value:
            return None
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not math.isfinite(found) or abs(found) > 1e9:
            notices.append(f"{name}={value[:40]} is not a usable number")
            return None
        return found

    feature = numeral("feature")
    if feature is not None and (feature != int(feature) or feature < 0):
        notices.append(f"feature={query['feature'][:40]} is not a feature number")
        feature = None
    return UrlState(
        tab=choice("tab", TABS, "map"),
        feature=None if feature is None else int(feature),
        q=query.get("q", "")[:MAX_TEXT],
        colour=query.get("colour", "cluster")[:MAX_TEXT] or "cluster",
        operation=Operation(choice("operation", tuple(Operation), Operation.ADD)),
        scope=PatchScope(choice("scope", tuple(SCOPES), PatchScope.ALL)),
        strength=numeral("strength"),
        image=query.get("image", "")[:MAX_TEXT],
        prompt=query.get("prompt", "")[:MAX_TEXT],
        notices=tuple(notices),
    )


def to_query(state: UrlState) -> str:
    """The address of a state, defaults left out, starting with ``?``."""
    default = UrlState()
    fields: dict[str, str | int | float | None] = {"tab": state.tab}
    for name in ("feature", "q", "colour", "operation", "scope", "strength", "image", "prompt"):
        value = getattr(state, name)
        if value != getattr(default, name):
            fields[name] = str(value) if name in {"operation", "scope"} else value
    return addresses.page(**fields)
