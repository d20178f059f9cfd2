"""TOP_K: show the images on which the feature is most active, masked or heat-mapped, without any intervention."""

from __future__ import annotations

from collections.abc import Sequence

from backend.explainers._exemplars import explain_from_exemplars
from backend.explainers.base import Explainer, ExplainerContext, ExplanationRequest, Result


class TopK(Explainer):
    """arXiv 2603.22593, section 3.1. A strength in the request is ignored."""

    def explain(self, requests: Sequence[ExplanationRequest], context: ExplainerContext) -> list[Result]:
        return explain_from_exemplars(self, requests, context, steered=False)


METHOD = TopK
