"""RANDOM_DIRECTION: the control that steers along a random direction of the same norm, seeded per feature."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from backend.directions import control_seed, random_direction
from backend.explainers._blank import explain_on_blank
from backend.explainers.base import Explainer, ExplainerContext, ExplanationRequest, Result


class RandomDirection(Explainer):
    """STEERING in every respect but the direction."""

    def explain(self, requests: Sequence[ExplanationRequest], context: ExplainerContext) -> list[Result]:
        def direction_for(feature: int) -> Float[Tensor, " d_model"]:
            return random_direction(control_seed(context.seed, feature), context.sae.d_model)

        return explain_on_blank(self, requests, context, direction_for)


METHOD = RandomDirection
