"""Explanation methods and controls. One module per method, named like its ``Method``; loaded on demand."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from backend.explainers.cleaning import clean

if TYPE_CHECKING:
    from backend.explainers.base import Explainer
    from backend.types import Arm

__all__ = ["explainer_for", "clean"]


def explainer_for(arm: Arm) -> Explainer:
    """The explainer of an arm (a method with its variant, or a control)."""
    module = importlib.import_module(f"backend.explainers.{arm.method.value}")
    return module.METHOD(arm)
