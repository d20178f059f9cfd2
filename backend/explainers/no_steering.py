"""NO_STEERING: the control that shows what the prompt alone makes the model say about the blank image."""

from __future__ import annotations

from collections.abc import Sequence

from backend.explainers._blank import blank_state
from backend.explainers.base import Explainer, ExplainerContext, ExplanationRequest, Result, image_embeddings


class NoSteering(Explainer):
    """One answer, the same for every feature, so it is generated once."""

    def explain(self, requests: Sequence[ExplanationRequest], context: ExplainerContext) -> list[Result]:
        if not requests:
            return []
        blank = blank_state(context)
        embeddings = image_embeddings(blank.patches, blank.prefix_tokens, context)
        raw = context.subject.generate(
            embeddings[:, None],
            context.prompt(self.arm),
            max_new_tokens=context.max_new_tokens,
            sampling=context.sampling,
        )[0]
        return [self.result(request, raw, context, strength=None, n_patches_edited=0) for request in requests]


METHOD = NoSteering
