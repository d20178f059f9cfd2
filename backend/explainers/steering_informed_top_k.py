"""STEERING_INFORMED_TOP_K: show the exemplars and, in the same forward pass, steer along the feature's direction.

The published code edits only the patches where the feature is active (activation above 0), image by image; that is
the default here. Editing every patch is an option of the context (``informed_scope``).
"""

from __future__ import annotations

from collections.abc import Sequence

from backend.explainers._exemplars import explain_from_exemplars
from backend.explainers.base import Explainer, ExplainerContext, ExplanationRequest, Result


class SteeringInformedTopK(Explainer):
    """arXiv 2603.22593, section 3.3."""

    def explain(self, requests: Sequence[ExplanationRequest], context: ExplainerContext) -> list[Result]:
        return explain_from_exemplars(self, requests, context, steered=True)


METHOD = SteeringInformedTopK
