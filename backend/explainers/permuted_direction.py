"""PERMUTED_DIRECTION: the control that steers along another alive feature's direction, chosen by a fixed rotation."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from backend.directions import permuted_feature
from backend.explainers._blank import explain_on_blank
from backend.explainers.base import Explainer, ExplainerContext, ExplanationRequest, Result


class PermutedDirection(Explainer):
    """STEERING with the list of alive features rotated by half its length.

    Stricter than a random direction: the model does say something sensible, but about another feature.
    """

    def explain(self, requests: Sequence[ExplanationRequest], context: ExplainerContext) -> list[Result]:
        def direction_for(feature: int) -> Float[Tensor, " d_model"]:
            return context.sae.direction(permuted_feature(feature, context.alive_features))

        return explain_on_blank(self, requests, context, direction_for)


METHOD = PermutedDirection
