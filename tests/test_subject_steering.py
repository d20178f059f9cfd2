"""Steering a subject of any family: the tokens of its patches are edited and no others, and what it then says is what
the untouched transformers model says with the same edit made by a hook.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend.explainers import explainer_for
from backend.explainers.base import ExemplarInput, ExplainerContext, ExplanationRequest
from backend.heatmaps import masked_image
from backend.hooks import edit_hook_point
from backend.models import load_subject
from backend.models.base import SubjectModel
from backend.steering import SteeringSession
from backend.types import ARM_BY_KEY, Explanation, Intervention, PatchScope
from tests.builders_families import BUILDERS, LAST, MIDDLE, PROMPT, inputs_of, untouched_embeddings
from tests.builders_subject import noise_images, random_sae, reference_ids, said


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def session(request, tmp_path_factory) -> SteeringSession:
    folder = BUILDERS[request.param](tmp_path_factory.mktemp(request.param))
    return SteeringSession(load_subject(folder, MIDDLE), random_sae(layer=1))


@contextmanager
def steered_by_hook(subject: SubjectModel, step: torch.Tensor) -> Iterator[None]:
    """The plain way: ``step`` [patch d_model] is added inside the untouched model, on patches only."""
    with edit_hook_point(
        subject.hook_module,
        lambda residual: residual + step,
        n_prefix_tokens=subject.grid.n_prefix_tokens,
        patch_order=subject.patch_order,
    ):
        yield


@pytest.mark.parametrize("with_image", [False, True])
def test_steered_answers_are_those_of_hooks_through_transformers_generate(session, with_image):
    subject: Any = session.subject
    image = noise_images(1, seed=9)[0] if with_image else None
    shown = image or subject.blank_image()
    some = torch.zeros(16, 1)
    some[[1, 6, 15]] = 1.0
    nowhere, everywhere = torch.zeros(16, 1), torch.ones(16, 1)
    given = {"scope": PatchScope.GIVEN, "patches": (1, 6, 15)}
    rows = [[], [Intervention(feature=3, strength=9.0)], [Intervention(feature=7, strength=-15.0, **given)]]
    steps = [nowhere, 9.0 * everywhere * session.sae.direction(3), -15.0 * some * session.sae.direction(7)]
    answers = session.answers(rows, PROMPT, image, max_new_tokens=8)
    embeddings = session.embeddings(rows, image)
    ids = subject.generate_ids(embeddings[:, None], PROMPT, max_new_tokens=8).tolist()
    for row, step in enumerate(steps):
        with steered_by_hook(subject, step):
            torch.testing.assert_close(embeddings[row], untouched_embeddings(subject, [shown])[0], atol=1e-4, rtol=0)
        with steered_by_hook(subject, step):
            expected = reference_ids(subject, [shown], PROMPT, max_new_tokens=8)
        assert ids[row][: len(expected)] == expected
    untouched = reference_ids(subject, [shown], PROMPT, max_new_tokens=8)
    assert ids[0][: len(untouched)] == untouched
    assert [answer.n_patches_edited for answer in answers] == [0, 16, 3]
    assert len({answer.text for answer in answers}) > 1, "steering must change the answers for this test to mean much"


@pytest.mark.parametrize("patches", [tuple(range(16)), (0,), (5, 10)])
def test_steering_edits_the_tokens_of_its_patches_and_no_prefix_token(session, patches):
    subject = session.subject
    steered = Intervention(feature=3, strength=9.0, scope=PatchScope.GIVEN, patches=patches)
    everywhere = Intervention(feature=3, strength=9.0)
    with inputs_of(subject.cut_at(LAST)) as seen:
        session.embeddings([[], [steered], [everywhere]])
    changed = (seen[0] != seen[0][0]).any(dim=-1)
    tokens = [subject.grid.token(patch // 4, patch % 4) for patch in patches]
    assert changed[1].nonzero().flatten().tolist() == tokens
    assert int(changed[2].sum()) == subject.grid.n_patches
    assert not changed[:, : subject.grid.n_prefix_tokens].any()


def test_explanations_are_those_of_hooks_through_transformers_generate(session):
    subject = session.subject
    prompts = {"steering": "Describe the image.", "top_k_masks": "What is shown in all these images?"}
    context = ExplainerContext(
        subject=subject, sae=session.sae, prompts=prompts, max_new_tokens=8, batch_size=2, image_batch_size=3
    )
    requests = [request_for(feature) for feature in (2, 5, 9)]
    direction = session.sae.direction
    for request in requests:
        blank = [subject.blank_image()]
        check_explanation("no_steering", request, context, blank, torch.zeros(16, 32))
        check_explanation("steering", request, context, blank, 12.0 * direction(request.feature).expand(16, 32))
        shown = [masked_image(one.image, one.grid) for one in request.exemplars]
        check_explanation("top_k_masks", request, context, shown, torch.zeros(16, 32))
        active = torch.from_numpy(np.stack([one.grid for one in request.exemplars]) > 0).flatten(1)
        step = 12.0 * active[..., None] * direction(request.feature)
        check_explanation("steering_informed_top_k_masks", request, context, shown, step)


def request_for(feature: int) -> ExplanationRequest:
    generator = np.random.default_rng(feature)
    grids = np.maximum(generator.normal(size=(2, 4, 4)), 0).astype(np.float32)
    exemplars = tuple(
        ExemplarInput(image_id=f"{feature}-{at}", image=image, grid=grids[at])
        for at, image in enumerate(noise_images(2, seed=feature))
    )
    return ExplanationRequest(feature=feature, strength=12.0, exemplars=exemplars)


def check_explanation(
    key: str, request: ExplanationRequest, context: ExplainerContext, shown: list[Image.Image], step: torch.Tensor
) -> None:
    """An arm's words are those of the untouched model with ``step`` added by a hook."""
    subject: Any = context.subject
    arm, prompt, generate = ARM_BY_KEY[key], context.prompt(ARM_BY_KEY[key]), subject.generate
    read: list[torch.Tensor] = []

    def listening(embeddings: torch.Tensor, *rest: Any, **settings: Any) -> list[str]:
        read.append(embeddings)
        return generate(embeddings, *rest, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "generate", listening)
        (result,) = explainer_for(arm).explain([request], context)
    with steered_by_hook(subject, step):
        torch.testing.assert_close(read[0][0], untouched_embeddings(subject, shown), atol=1e-4, rtol=0)
    with steered_by_hook(subject, step):
        expected = reference_ids(subject, shown, prompt, max_new_tokens=8)
    assert isinstance(result, Explanation), result
    assert result.raw_text == said(subject, expected)
    assert result.n_patches_edited == int((step.reshape(-1, 32) != 0).any(dim=-1).sum())
