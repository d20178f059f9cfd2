"""What every family of subject models keeps, on its own shrunken checkpoint: it is cut, continued and answers exactly
like the untouched transformers model. What it keeps as a vision tower is in test_tower_contract.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from backend.hooks import capture_hook_point
from backend.models import load_subject
from backend.types import HookPoint
from tests.builders_families import (
    BUILDERS,
    LAST,
    MIDDLE,
    N_IMAGE_TOKENS,
    PROMPT,
    embeddings_of,
    untouched_embeddings,
)
from tests.builders_subject import noise_images, reference_ids, reference_inputs


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory) -> Path:
    return BUILDERS[family](tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def subject(folder) -> Any:
    return load_subject(folder, MIDDLE)


def test_the_family_and_the_shapes_come_from_the_files(subject, family, folder):
    assert (subject.card.family, subject.card.name) == (family, folder.name)
    state = subject.states(noise_images(3))
    assert state.patches.shape == (3, subject.grid.n_patches, subject.d_model) == (3, 16, 32)
    assert state.prefix_tokens.shape == (3, subject.grid.n_prefix_tokens, subject.d_model)
    assert state.patches.dtype == state.prefix_tokens.dtype == torch.float32
    embeddings = subject.from_hook(state.patches, state.prefix_tokens)
    assert embeddings.shape == (3, subject.n_image_tokens, subject.d_text) == (3, N_IMAGE_TOKENS[family], 32)
    assert subject.states([]).patches.shape == (0, 16, 32)
    assert len(subject.fingerprint) == 64


# ------------------------------------------------------------------------------------------ the cut and what follows


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_cut_and_continued_equals_the_untouched_model(subject, layer):
    cut = subject.cut_at(HookPoint(layer=layer))
    images = noise_images(5)
    torch.testing.assert_close(embeddings_of(cut, images)[:, 0], untouched_embeddings(cut, images), atol=1e-5, rtol=0)


def test_the_cut_is_the_output_of_the_hooked_block(subject):
    images = noise_images(3)
    layout = {"n_prefix_tokens": subject.grid.n_prefix_tokens, "patch_order": subject.patch_order}
    with capture_hook_point(subject.hook_module, **layout) as record:
        untouched_embeddings(subject, images)
    assert torch.equal(record.captured[0], subject.residuals(images))


def test_no_block_after_the_hook_point_runs(subject):
    later = subject.cut_at(LAST).hook_module
    with capture_hook_point(later, expected_firings=0), capture_hook_point(subject.hook_module):
        state = subject.state_at_hook(subject.preprocess(noise_images(1)))
    with capture_hook_point(later), capture_hook_point(subject.hook_module, expected_firings=0):
        subject.from_hook(state.patches, state.prefix_tokens)


def test_another_number_of_prefix_tokens_is_refused(subject):
    state = subject.states(noise_images(2))
    extra = torch.cat([state.prefix_tokens, state.patches[:, :1]], dim=1)
    with pytest.raises(ValueError, match=r"prefix tokens past the hook point.*state_at_hook"):
        subject.from_hook(state.patches, extra)


# -------------------------------------------------------------------------------------------------------- answering


@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_batched_answers_are_those_of_transformers_generate(subject, n_images):
    images = noise_images(4 * n_images, seed=n_images)
    ids = subject.generate_ids(embeddings_of(subject, images, n_images), PROMPT, max_new_tokens=10).tolist()
    for row in range(4):
        expected = reference_ids(subject, images[row * n_images : (row + 1) * n_images], PROMPT, max_new_tokens=10)
        assert ids[row][: len(expected)] == expected
    assert len({tuple(row) for row in ids}) > 1, "the answers must depend on the images for this test to mean anything"


def test_a_question_without_images_is_that_of_transformers_generate(subject):
    expected = reference_ids(subject, [], PROMPT, max_new_tokens=6)
    ids = subject.generate_ids(torch.zeros(2, 0, subject.n_image_tokens, 32), PROMPT, max_new_tokens=6).tolist()
    assert [row[: len(expected)] for row in ids] == [expected, expected]


def test_an_image_does_not_depend_on_its_batch(subject):
    images = noise_images(6)
    together, embeddings = subject.residuals(images), embeddings_of(subject, images)
    for at, image in enumerate(images):
        torch.testing.assert_close(subject.residuals([image])[0], together[at], atol=1e-5, rtol=0)
        torch.testing.assert_close(embeddings_of(subject, [image])[0], embeddings[at], atol=1e-5, rtol=0)
    alone = [subject.generate(embeddings[row : row + 1], PROMPT, max_new_tokens=8)[0] for row in range(6)]
    assert subject.generate(embeddings, PROMPT, max_new_tokens=8) == alone


@pytest.mark.parametrize("n_images", [0, 1, 2])
def test_answer_probabilities_are_those_of_the_untouched_model(subject, n_images):
    images = noise_images(2 * n_images, seed=3)
    embeddings = embeddings_of(subject, images, n_images) if n_images else torch.zeros(2, 0, subject.n_image_tokens, 32)
    answer = "crab beach near a house"
    ids = subject.processor.tokenizer.encode(answer, add_special_tokens=False)
    for row, tokens in enumerate(subject.answer_probabilities(embeddings, PROMPT, answer)):
        shown = images[row * n_images : (row + 1) * n_images]
        expected = teacher_forced(subject, shown, ids)
        assert [one.log_probability for one in tokens] == pytest.approx(expected, abs=1e-4)
        assert "".join(one.text for one in tokens) == answer


def teacher_forced(subject: Any, images: list[Image.Image], ids: list[int]) -> list[float]:
    """Log probability of each of ``ids`` after the prompt, from one plain forward pass over pixels and token ids."""
    inputs = reference_inputs(subject, images, PROMPT)
    n_prompt = inputs["input_ids"].shape[1]
    answer = torch.tensor([ids])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for kind in {"token_type_ids", "mm_token_type_ids"} & inputs.keys():
        inputs[kind] = torch.cat([inputs[kind], torch.zeros_like(answer)], dim=1)
    with torch.no_grad():
        logits = subject.model(**inputs).logits[0, n_prompt - 1 : -1]
    return logits.log_softmax(dim=-1).gather(1, answer.T).squeeze(1).tolist()


def test_bfloat16_computes_inside_and_leaves_float32_outside(folder):
    subject: Any = load_subject(folder, MIDDLE, dtype="bfloat16")
    assert subject.model.dtype == torch.bfloat16
    images = noise_images(2)
    embeddings = embeddings_of(subject, images)
    assert subject.residuals(images).dtype == embeddings.dtype == torch.float32
    assert torch.equal(embeddings[:, 0], untouched_embeddings(subject, images))
    assert len(subject.generate(embeddings, PROMPT, max_new_tokens=3)) == 2
