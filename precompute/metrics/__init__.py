"""Metrics: one module each, with its ``CARDS`` and pure scoring functions. The module name is the registry key.

A metric gives a Score with its n, or a Score that is absent with the reason; a missing score is never zero.
"""

from __future__ import annotations

import importlib
import pkgutil

from backend.types import MetricCard


def metric_cards() -> dict[str, MetricCard]:
    """Cards of every metric by name, found by listing this package. Names are unique."""
    cards: dict[str, MetricCard] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda item: item.name):
        for card in importlib.import_module(f"{__name__}.{module.name}").CARDS:
            assert card.name not in cards, f"two metrics are named {card.name!r}"
            cards[card.name] = card
    return cards
