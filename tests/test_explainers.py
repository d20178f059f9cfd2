"""Explanation methods and controls: each does to the model what it says, one result per request."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.directions import control_seed, permuted_feature, random_direction
from backend.errors import SubjectMismatch
from backend.explainers import clean, explainer_for
from backend.explainers.base import (
    EMPTY_ANSWER,
    NOT_FINITE,
    ExemplarInput,
    Explainer,
    ExplainerContext,
    ExplanationRequest,
    PrefixCache,
)
from backend.explainers.prompts import PAPER_ANSWER_PREFIXES, PAPER_PROMPTS, prompt_key
from backend.heatmaps import heatmap_image, masked_image
from backend.hooks import edit_hook_point
from backend.steering import SteeringSession
from backend.types import (
    ARM_BY_KEY,
    ARMS,
    Explanation,
    ExplanationFailure,
    Intervention,
    Method,
    PatchScope,
    Variant,
)
from tests.builders_subject import load_tiny_subject, noise_images, random_sae, reference_ids, said

PROMPTS = {
    "steering": "Describe the image.",
    "top_k_masks": "What is shown in all these images?",
    "top_k_heatmaps": "What is the green element of these images?",
}
ALIVE = (2, 5, 9, 11, 20, 33)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    subject = load_tiny_subject(tmp_path_factory.mktemp("subject"), layer=1)
    return ExplainerContext(
        subject=subject,
        sae=random_sae(layer=1),
        prompts=PROMPTS,
        max_new_tokens=8,
        answer_prefixes=(),
        alive_features=ALIVE,
        batch_size=4,
        image_batch_size=3,
    )


def request_for(feature: int, n_images: int = 2, strength: float | None = 12.0) -> ExplanationRequest:
    generator = np.random.default_rng(feature)
    exemplars = []
    for at, image in enumerate(noise_images(n_images, seed=feature)):
        grid = np.maximum(generator.normal(size=(4, 4)), 0).astype(np.float32)
        exemplars.append(ExemplarInput(image_id=f"{feature}-{at}", image=image, grid=grid))
    return ExplanationRequest(feature=feature, strength=strength, exemplars=tuple(exemplars))


REQUESTS = [request_for(feature) for feature in ALIVE]


def explain(key: str, requests: list[ExplanationRequest], context: ExplainerContext) -> list[Explanation]:
    results = explainer_for(ARM_BY_KEY[key]).explain(requests, context)
    assert all(isinstance(result, Explanation) for result in results), results
    return [result for result in results if isinstance(result, Explanation)]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.key)
def test_every_arm_answers_every_request_in_order(arm, context):
    explainer = explainer_for(arm)
    assert isinstance(explainer, Explainer)
    results = explainer.explain(REQUESTS, context)
    assert [result.feature for result in results] == list(ALIVE)
    for result, request in zip(results, REQUESTS, strict=True):
        assert isinstance(result, Explanation)
        assert result.arm == arm
        assert result.raw_text.strip() == result.text != ""
        assert result.image_ids == tuple(exemplar.image_id for exemplar in request.exemplars)
    assert explainer.explain([], context) == []
    assert explainer.explain(REQUESTS, replace(context, prefixes=PrefixCache())) == results


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.key)
def test_an_explanation_does_not_depend_on_its_batch(arm, context):
    explainer = explainer_for(arm)
    alone = [explainer.explain([request], context)[0] for request in REQUESTS]
    assert alone == explainer.explain(REQUESTS, context)


def test_every_method_has_a_module_and_every_module_a_method():
    import pkgutil

    import backend.explainers as package

    shared = {"base", "prompts", "cleaning"}
    modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
    methods = {name for name in modules if not name.startswith("_")} - shared
    assert methods == {method.value for method in Method}
    for name in methods:
        assert issubclass(importlib.import_module(f"backend.explainers.{name}").METHOD, Explainer)


def test_steering_adds_the_direction_on_every_patch_of_the_blank_image(context):
    session = SteeringSession(context.subject, context.sae)
    rows = [[Intervention(feature=feature, strength=12.0)] for feature in ALIVE]
    expected = [answer.text for answer in session.answers(rows, PROMPTS["steering"], max_new_tokens=8)]
    explanations = explain("steering", REQUESTS, context)
    assert [explanation.raw_text for explanation in explanations] == expected
    assert {explanation.n_patches_edited for explanation in explanations} == {16}
    assert {explanation.strength for explanation in explanations} == {12.0}
    assert len(set(expected)) > 2


def test_no_steering_says_the_same_for_every_feature_and_edits_nothing(context):
    explanations = explain("no_steering", REQUESTS, context)
    session = SteeringSession(context.subject, context.sae)
    expected = session.answers([[]], PROMPTS["steering"], max_new_tokens=8)[0].text
    assert {explanation.raw_text for explanation in explanations} == {expected}
    assert {(explanation.strength, explanation.n_patches_edited) for explanation in explanations} == {(None, 0)}


def test_the_permuted_control_says_what_its_partner_feature_makes_the_model_say(context):
    steered = {one.feature: one.raw_text for one in explain("steering", REQUESTS, context)}
    for one in explain("permuted_direction", REQUESTS, context):
        assert one.raw_text == steered[permuted_feature(one.feature, ALIVE)]


def test_the_random_control_follows_its_seed(context):
    expected = []
    for feature in ALIVE:
        direction = random_direction(control_seed(7, feature), 32)
        residual = context.subject.residuals([context.subject.blank_image()]) + 12.0 * direction
        embeddings = context.subject.from_hook(residual)
        expected += context.subject.generate(embeddings[:, None], PROMPTS["steering"], max_new_tokens=8)
    explanations = explain("random_direction", REQUESTS, replace(context, seed=7))
    assert [one.raw_text for one in explanations] == expected


def shown(variant: Variant | None, request: ExplanationRequest) -> list:
    draw = masked_image if variant is Variant.MASKS else heatmap_image
    return [draw(exemplar.image, exemplar.grid) for exemplar in request.exemplars]


def reference_text(context, images, prompt) -> str:
    ids = reference_ids(context.subject, images, prompt, max_new_tokens=8)
    return said(context.subject, ids)


@pytest.mark.parametrize("key", ["top_k_masks", "top_k_heatmaps"])
def test_top_k_equals_transformers_generate_on_the_shown_images(context, key):
    variant = ARM_BY_KEY[key].variant
    for one, request in zip(explain(key, REQUESTS, context), REQUESTS, strict=True):
        assert one.raw_text == reference_text(context, shown(variant, request), PROMPTS[key])
        assert (one.strength, one.n_patches_edited) == (None, 0)


@pytest.mark.parametrize("scope", [PatchScope.ACTIVE, PatchScope.ALL])
@pytest.mark.parametrize("variant", Variant)
def test_informed_top_k_equals_hooks_through_transformers_generate(context, variant, scope):
    key = f"steering_informed_top_k_{variant.value}"
    explanations = explain(key, REQUESTS, replace(context, informed_scope=scope))
    for one, request in zip(explanations, REQUESTS, strict=True):
        grids = np.stack([exemplar.grid for exemplar in request.exemplars]).reshape(2, 16)
        mask = torch.from_numpy(grids > 0) if scope is PatchScope.ACTIVE else torch.ones(2, 16, dtype=torch.bool)
        step = 12.0 * mask[:, :, None] * context.sae.direction(request.feature)
        with edit_hook_point(context.subject.hook_module, lambda residual, step=step: residual + step):
            expected = reference_text(context, shown(variant, request), PROMPTS[f"top_k_{variant.value}"])
        assert one.raw_text == expected
        assert one.n_patches_edited == int(mask.sum())
        assert one.strength == 12.0


def test_requests_with_different_numbers_of_images_keep_their_order(context):
    requests = [request_for(feature, n_images=1 + at % 3) for at, feature in enumerate(ALIVE)]
    results = explain("top_k_masks", requests, context)
    assert [result.feature for result in results] == list(ALIVE)
    assert [len(result.image_ids) for result in results] == [1, 2, 3, 1, 2, 3]
    assert results[2].raw_text == reference_text(context, shown(Variant.MASKS, requests[2]), PROMPTS["top_k_masks"])


@pytest.mark.parametrize("key", ["top_k_masks", "steering_informed_top_k_heatmaps"])
def test_a_feature_without_exemplars_is_a_recorded_failure(context, key):
    lonely = ExplanationRequest(feature=3, strength=5.0)
    results = explainer_for(ARM_BY_KEY[key]).explain([REQUESTS[0], lonely], context)
    assert isinstance(results[0], Explanation)
    assert results[1] == ExplanationFailure(feature=3, arm=ARM_BY_KEY[key], reason="no exemplar images", strength=5.0)


def test_informed_top_k_fails_where_the_feature_is_active_nowhere(context):
    request = request_for(4)
    silent = replace(
        request, exemplars=tuple(replace(one, grid=np.zeros((4, 4), np.float32)) for one in request.exemplars)
    )
    result = explainer_for(ARM_BY_KEY["steering_informed_top_k_masks"]).explain([silent], context)[0]
    assert isinstance(result, ExplanationFailure)
    assert "active on none" in result.reason


@pytest.mark.parametrize("key", ["steering", "random_direction", "steering_informed_top_k_masks"])
def test_text_that_was_not_steered_is_a_failure(context, key):
    requests = [REQUESTS[0], replace(REQUESTS[1], strength=0.0), replace(REQUESTS[2], strength=float("nan"))]
    results = explainer_for(ARM_BY_KEY[key]).explain(requests, context)
    assert isinstance(results[0], Explanation)
    assert isinstance(results[1], ExplanationFailure) and results[1].reason == "the intervention changed nothing"
    assert isinstance(results[2], ExplanationFailure) and results[2].reason == NOT_FINITE
    assert results[0] == explainer_for(ARM_BY_KEY[key]).explain(requests[:1], context)[0]
    with pytest.raises(ValueError, match="needs a strength"):
        explainer_for(ARM_BY_KEY[key]).explain([replace(REQUESTS[0], strength=None)], context)


def test_an_empty_answer_is_a_failure_that_keeps_the_raw_text(context, monkeypatch):
    monkeypatch.setattr(context.subject, "generate", lambda *_, **__: ["The highlighted element is a."])
    spoken = replace(context, answer_prefixes=PAPER_ANSWER_PREFIXES)
    result = explainer_for(ARM_BY_KEY["steering"]).explain(REQUESTS[:1], spoken)[0]
    assert isinstance(result, ExplanationFailure)
    assert (result.reason, result.raw_text) == (EMPTY_ANSWER, "The highlighted element is a.")


def test_a_grid_of_another_shape_is_refused(context):
    exemplar = ExemplarInput(image_id="x", image=noise_images(1)[0], grid=np.ones((3, 5), dtype=np.float32))
    request = ExplanationRequest(feature=1, exemplars=(exemplar,))
    with pytest.raises(SubjectMismatch, match=r"\(3, 5\).*\(4, 4\)"):
        explainer_for(ARM_BY_KEY["top_k_masks"]).explain([request], context)


def test_both_methods_share_the_prefix_of_the_same_pictures(context, monkeypatch):
    fresh = replace(context, prefixes=PrefixCache())
    plain = explain("top_k_masks", REQUESTS, fresh)
    informed = explain("steering_informed_top_k_masks", REQUESTS, context)
    monkeypatch.setattr(context.subject, "state_at_hook", None)
    assert explain("top_k_masks", REQUESTS, fresh) == plain
    assert explain("steering_informed_top_k_masks", REQUESTS, fresh) == informed


def test_a_cache_that_is_too_small_changes_nothing(context):
    tiny = replace(context, prefixes=PrefixCache(max_bytes=3 * 16 * 32 * 4))
    for key in ("top_k_masks", "steering_informed_top_k_masks", "top_k_heatmaps"):
        assert explain(key, REQUESTS, tiny) == explain(key, REQUESTS, context)


def test_a_missing_prompt_is_named(context):
    with pytest.raises(ValueError, match="no prompt 'top_k_masks'"):
        explainer_for(ARM_BY_KEY["top_k_masks"]).explain(REQUESTS, replace(context, prompts={}))


def test_the_paper_has_a_prompt_for_every_arm():
    assert {prompt_key(arm) for arm in ARMS} == set(PAPER_PROMPTS)
    for prompt in PAPER_PROMPTS.values():
        assert "The highlighted element in the image is a" in prompt
        assert "  " not in prompt


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("The highlighted element in the image is a Golden Retriever.", "Golden Retriever."),
        ("The highlighted element in the image is an eye", "eye"),
        ("the Highlighted element in the image is a crab on Bondi Beach", "crab on Bondi Beach"),
        ("The highlighted element in the image is abstract art", "abstract art"),
        (
            "A crab. The highlighted element in the image is a claw",
            "A crab. The highlighted element in the image is a claw",
        ),
        ("  * stars *\n", "* stars *"),
        ("The highlighted element in the image is: grass", "grass"),
        ("The highlighted element in the image is a", ""),
        ("...", ""),
        ("", ""),
    ],
)
def test_cleaning_takes_the_announced_opening_and_nothing_else(raw, text):
    assert clean(raw, PAPER_ANSWER_PREFIXES) == text


@given(raw=st.text(max_size=60), prefixes=st.lists(st.text(max_size=12), max_size=3))
def test_cleaning_only_ever_cuts_from_the_ends(raw, prefixes):
    text = clean(raw, prefixes)
    assert text == "" or raw.strip().endswith(text)
    assert clean(raw) in ("", raw.strip())
