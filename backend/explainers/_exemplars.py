"""Showing exemplar images to the subject, steered or not: shared by TOP_K and STEERING_INFORMED_TOP_K."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from backend.batching import in_batches
from backend.errors import SubjectMismatch
from backend.explainers.base import (
    NOT_FINITE,
    ExemplarInput,
    Explainer,
    ExplainerContext,
    ExplanationRequest,
    Result,
    answers_at_once,
    image_embeddings,
    required_strength,
)
from backend.heatmaps import heatmap_image, masked_image
from backend.steering import edit
from backend.types import Arm, Operation, PatchScope, Variant

NO_EXEMPLARS = "no exemplar images"
NOT_ACTIVE = "the feature is active on none of its exemplar images"


def explain_from_exemplars(
    explainer: Explainer, requests: Sequence[ExplanationRequest], context: ExplainerContext, *, steered: bool
) -> list[Result]:
    """Show each feature's exemplars, masked or heat-mapped, and ask what they share.

    If ``steered``, the feature's direction is also added inside the tower, per image, on the patches of the informed
    scope. The picture that runs through the tower is the masked or heat-mapped one; the patches come from the grid.
    """
    results: dict[int, Result] = {}
    by_count: dict[int, list[int]] = defaultdict(list)
    for at, request in enumerate(requests):
        problem = _problem(request, context, steered=steered)
        if problem:
            results[at] = explainer.failure(request, problem)
        else:
            by_count[len(request.exemplars)].append(at)
    # One batch holds rows with the same number of images.
    for n_images, rows in by_count.items():

        def run(part: slice, rows: Sequence[int] = rows) -> list[tuple[int, Result]]:
            batch = [requests[at] for at in rows[part]]
            return list(zip(rows[part], _explain_batch(explainer, batch, context, steered=steered), strict=True))

        size = answers_at_once(context, context.prompt(explainer.arm), n_images)
        for found in in_batches("prompts", len(rows), size, run):
            results.update(found)
    return [results[at] for at in range(len(requests))]


def shown_image(arm: Arm, exemplar: ExemplarInput, alpha: float) -> Image.Image:
    """The exemplar as the explainer sees it: masked or heat-mapped."""
    if arm.variant is Variant.MASKS:
        return masked_image(exemplar.image, exemplar.grid)
    return heatmap_image(exemplar.image, exemplar.grid, alpha)


def _problem(request: ExplanationRequest, context: ExplainerContext, *, steered: bool) -> str | None:
    grid = context.exemplar_grid or context.subject.grid
    shape = (grid.rows, grid.cols)
    for exemplar in request.exemplars:
        if exemplar.grid.shape != shape:
            raise SubjectMismatch(
                f"the activation grid of image {exemplar.image_id} is {exemplar.grid.shape}, but the subject's patches "
                f"form a grid of {shape}: harvest again with this subject"
            )
    if not request.exemplars:
        return NO_EXEMPLARS
    if steered and not any((exemplar.grid > 0).any() for exemplar in request.exemplars):
        return NOT_ACTIVE
    return None


def _explain_batch(
    explainer: Explainer, batch: Sequence[ExplanationRequest], context: ExplainerContext, *, steered: bool
) -> list[Result]:
    n_images = len(batch[0].exemplars)
    state = context.prefixes.states(
        _pictures(explainer.arm, batch, context), context.subject, batch_size=context.image_batch_size
    )
    residual = state.patches
    strengths: list[float | None] = [None] * len(batch)
    n_edited = [0] * len(batch)
    changed = [True] * len(batch)
    if steered:
        strengths = [required_strength(request, explainer.arm) for request in batch]
        masks = _informed_masks(batch, context).to(residual.device)
        edited = _steer(residual, batch, masks, context)
        changed = rearrange(edited != residual, "(row image) p d -> row (image p d)", image=n_images).any(1).tolist()
        n_edited = rearrange(masks, "(row image) patch -> row (image patch)", image=n_images).sum(1).tolist()
        residual = edited
    embeddings = rearrange(
        image_embeddings(residual, state.prefix_tokens, context),
        "(row image) token d_text -> row image token d_text",
        image=n_images,
    )
    finite = embeddings.isfinite().flatten(1).all(dim=1).tolist()
    raw_texts = context.subject.generate(
        embeddings.nan_to_num(),
        context.prompt(explainer.arm),
        max_new_tokens=context.max_new_tokens,
        sampling=context.sampling,
    )
    results: list[Result] = []
    for at, request in enumerate(batch):
        if not finite[at]:
            results.append(explainer.failure(request, NOT_FINITE))
        elif not changed[at]:
            results.append(explainer.failure(request, "the intervention changed nothing"))
        else:
            results.append(
                explainer.result(request, raw_texts[at], context, strength=strengths[at], n_patches_edited=n_edited[at])
            )
    return results


def _pictures(
    arm: Arm, batch: Sequence[ExplanationRequest], context: ExplainerContext
) -> list[tuple[Hashable, Callable[[], Image.Image]]]:
    return [
        (
            (arm.variant, context.heatmap_alpha, request.feature, exemplar.image_id, exemplar.grid.tobytes()),
            partial(shown_image, arm, exemplar, context.heatmap_alpha),
        )
        for request in batch
        for exemplar in request.exemplars
    ]


def _informed_masks(batch: Sequence[ExplanationRequest], context: ExplainerContext) -> Bool[Tensor, "picture patch"]:
    grids = np.stack([exemplar.grid for request in batch for exemplar in request.exemplars])
    active = torch.from_numpy(np.ascontiguousarray(grids > 0))
    if PatchScope(context.informed_scope) is PatchScope.ALL:
        active = torch.ones_like(active)
    return rearrange(active, "picture row col -> picture (row col)")


def _steer(
    residual: Float[Tensor, "picture patch d_model"],
    batch: Sequence[ExplanationRequest],
    masks: Bool[Tensor, "picture patch"],
    context: ExplainerContext,
) -> Float[Tensor, "picture patch d_model"]:
    n_images = len(batch[0].exemplars)
    directions = torch.stack([context.sae.direction(request.feature) for request in batch]).to(residual.device)
    strengths = torch.tensor([request.strength for request in batch], device=residual.device)
    return edit(
        residual,
        repeat(directions, "row d_model -> (row image) d_model", image=n_images),
        repeat(strengths, "row -> (row image)", image=n_images),
        Operation.ADD,
        masks,
    )
