"""STEERING: add the feature's direction on every patch of the blank image and ask what is seen."""

from __future__ import annotations

from collections.abc import Sequence

from backend.explainers._blank import explain_on_blank
from backend.explainers.base import Explainer, ExplainerContext, ExplanationRequest, Result


class Steering(Explainer):
    """arXiv 2603.22593, section 3.2. No image of the feature is needed."""

    def explain(self, requests: Sequence[ExplanationRequest], context: ExplainerContext) -> list[Result]:
        return explain_on_blank(self, requests, context, context.sae.direction)


METHOD = Steering
