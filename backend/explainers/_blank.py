"""Steering on the blank image, every patch: shared by STEERING and its direction controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from backend.batching import in_batches
from backend.explainers.base import (
    NOT_FINITE,
    Explainer,
    ExplainerContext,
    ExplanationRequest,
    Result,
    answers_at_once,
    image_embeddings,
    required_strength,
)
from backend.models.base import TowerState
from backend.steering import edit
from backend.types import Operation

BLANK_KEY = "blank"


def blank_state(context: ExplainerContext) -> TowerState:
    """The blank image at the hook point; the same for every feature, so it is computed once."""
    pictures = [(BLANK_KEY, context.subject.blank_image)]
    return context.prefixes.states(pictures, context.subject, batch_size=1)


def explain_on_blank(
    explainer: Explainer,
    requests: Sequence[ExplanationRequest],
    context: ExplainerContext,
    direction_for: Callable[[int], Float[Tensor, " d_model"]],
) -> list[Result]:
    """ADD the strength along ``direction_for(feature)`` on every patch of the blank image, and ask."""
    prompt = context.prompt(explainer.arm)
    blank = blank_state(context)
    base = blank.patches[0]

    def run(part: slice) -> list[Result]:
        batch = requests[part]
        strengths = [required_strength(request, explainer.arm) for request in batch]
        residual = edit(
            base.expand(len(batch), -1, -1),
            torch.stack([direction_for(request.feature).to(base.device) for request in batch]),
            torch.tensor(strengths, device=base.device),
            Operation.ADD,
            torch.ones(len(batch), base.shape[0], dtype=torch.bool, device=base.device),
        )
        changed = (residual != base).flatten(1).any(dim=1).tolist()
        embeddings = image_embeddings(residual, blank.prefix_tokens.expand(len(batch), -1, -1), context)
        finite = embeddings.isfinite().flatten(1).all(dim=1).tolist()
        raw_texts = context.subject.generate(
            embeddings.nan_to_num()[:, None], prompt, max_new_tokens=context.max_new_tokens, sampling=context.sampling
        )
        results: list[Result] = []
        for request, raw, strength, has_changed, is_finite in zip(
            batch, raw_texts, strengths, changed, finite, strict=True
        ):
            if not is_finite:
                results.append(explainer.failure(request, NOT_FINITE))
            elif not has_changed:
                results.append(explainer.failure(request, "the intervention changed nothing"))
            else:
                results.append(
                    explainer.result(request, raw, context, strength=strength, n_patches_edited=base.shape[0])
                )
        return results

    size = answers_at_once(context, prompt, n_images=1)
    return [result for results in in_batches("prompts", len(requests), size, run) for result in results]
