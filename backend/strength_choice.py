"""How the strengths of an atlas were chosen, in words: whoever compares its methods must know who had a choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.types import Method


def strength_choice(inputs: Mapping[str, Any], strengths: Mapping[str, float]) -> str | None:
    """A sentence on the choice; None where nothing was steered or the choice was not recorded.

    Args:
        inputs: those of the atlas's manifest, whose lineage holds the settings of the stage ``explain``.
        strengths: entry ``strengths`` of meta.json, by arm in residual-stream L2 units.
    """
    explain = inputs.get("lineage", {}).get("explain", {}).get("config", {}).get("explain", {})
    names = ("strengths", "informed_strengths", "n_selection_features", "per_feature_strength")
    if Method.STEERING.value not in strengths or any(name not in explain for name in names):
        return None
    own, informed = len(explain["strengths"]), len(explain["informed_strengths"])
    where = "by IoU on images of the select split"
    if not explain["per_feature_strength"]:
        n = int(explain["n_selection_features"])
        return (
            f"Strengths were chosen {where} and {n:,} features: Steering and its controls had the best of {own} for "
            f"all features, Steering-informed Top-k the best of {informed}."
        )
    return (
        f"Steering had, for each feature, the best of its answers at {own} strengths, chosen {where}; its controls had "
        f"the same strength. Steering-informed Top-k had one of {informed} for all features, Top-k no choice."
    )
