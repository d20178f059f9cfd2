"""How every family reads a prompt: what a token of an image sees, which marks a question may not hold, and how likely
the tokens were that the model itself gave.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backend.errors import SubjectError
from backend.models import load_subject
from tests.builders_families import BUILDERS, MIDDLE, PROMPT, embeddings_of
from tests.builders_subject import noise_images


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def subject(request, tmp_path_factory) -> Any:
    return load_subject(BUILDERS[request.param](tmp_path_factory.mktemp(request.param)), MIDDLE)


# ----------------------------------------------------------------------------------------- what an image's token sees


@torch.no_grad()
def seen(subject: Any, changed: int, embeddings: torch.Tensor) -> list[int]:
    """Positions among the tokens of all images [image token d_text] whose logits notice another image token."""
    flat = embeddings.flatten(0, 1)
    other = flat.clone()
    other[changed] = flat[changed].flip(0) + 1.0
    both = torch.stack([flat, other]).unflatten(1, embeddings.shape[:2])
    prepared = subject._prepare(PROMPT, len(embeddings))
    filled = prepared.filled(both)
    logits = subject.model(
        inputs_embeds=filled, attention_mask=prepared.masks, **prepared.placed(2, first=0, end=filled.shape[1])
    ).logits[:, prepared.image_positions]
    return ((logits[0] - logits[1]).abs().amax(dim=-1) > 1e-5).nonzero().flatten().tolist()


def test_a_token_of_an_image_sees_what_the_mask_mode_says(subject):
    embeddings = embeddings_of(subject, noise_images(3, seed=2))[:, 0]
    n = subject.n_image_tokens
    everything = list(range(3 * n))
    last_of_second, first_of_third = 2 * n - 1, 2 * n
    sees_later_of_its_own = seen(subject, last_of_second, embeddings)
    if subject.mask_mode == "causal":
        assert sees_later_of_its_own == everything[last_of_second:]
    else:
        assert subject.mask_mode == "bidirectional within an image"
        assert sees_later_of_its_own == everything[n:], "all of the second image, and the third after it"
    # No image sees a later one, in neither mode.
    assert seen(subject, first_of_third, embeddings) == everything[first_of_third:]


# -------------------------------------------------------------------------------------------------- marks of images


def test_a_question_with_the_models_own_image_mark_is_refused(subject):
    embeddings = embeddings_of(subject, noise_images(1))
    tokenizer = subject.processor.tokenizer
    assert subject.processor.image_token in subject.image_marks
    assert tokenizer.convert_ids_to_tokens(subject.model.config.image_token_id) in subject.image_marks
    for mark in subject.image_marks:
        assert mark in tokenizer.all_special_tokens, "a mark that the tokenizer does not know is no mark"
        with pytest.raises(SubjectError, match=rf"the prompt holds {mark.replace('|', '[|]')}, .*leave it out"):
            subject.generate(embeddings, f"what is {mark} here ?", max_new_tokens=1)
        with pytest.raises(SubjectError, match="leave it out"):
            subject.answer_probabilities(embeddings, mark, "crab")
    assert subject.generate(embeddings, "what is < image > here ?", max_new_tokens=2) != [""]


# ---------------------------------------------------------------------------------------- the tokens the model gave


def test_token_ids_are_followed_as_they_were_given(subject):
    embeddings = embeddings_of(subject, noise_images(3, seed=4))
    *_, given = subject.stream_ids(embeddings, PROMPT, max_new_tokens=6)
    whole = subject.generate_ids(embeddings, PROMPT, max_new_tokens=6).tolist()
    assert given == [row[: len(ids)] for row, ids in zip(whole, given, strict=True)]
    for at, ids in enumerate(given):
        tokens = subject.answer_probabilities(embeddings, PROMPT, ids)[at]
        assert len(tokens) == len(ids)
        assert all(one.log_probability == one.likeliest_log_probability for one in tokens), "greedy, so the likeliest"
        assert "".join(one.text for one in tokens).strip() == subject.text_of(ids)


def test_a_special_token_inside_an_answer_keeps_its_place(subject):
    embeddings = embeddings_of(subject, noise_images(2, seed=5))
    tokenizer = subject.processor.tokenizer
    word, other, special = (tokenizer.convert_tokens_to_ids(one) for one in ("crab", "beach", "<unk>"))
    with_it = subject.answer_probabilities(embeddings, PROMPT, [word, special, other])[0]
    shorter = subject.answer_probabilities(embeddings, PROMPT, [word, special])[0]
    from_text = subject.answer_probabilities(embeddings, PROMPT, subject.text_of([word, special, other]))[0]
    first_two, alone = ([one.log_probability for one in tokens[:2]] for tokens in (with_it, shorter))
    assert first_two == pytest.approx(alone, abs=1e-5)
    assert len(with_it) == 3 and len(from_text) == 2, "read from its text, the answer has lost a token"
    assert with_it[2].log_probability != pytest.approx(from_text[1].log_probability, abs=1e-4)
    assert subject.answer_probabilities(embeddings, PROMPT, []) == [[], []]


def test_bfloat16_answers_from_almost_the_same_embeddings(subject):
    images = noise_images(3, seed=6)
    half: Any = load_subject(subject._checkpoint.folder, MIDDLE, dtype="bfloat16")
    exact, rounded = embeddings_of(subject, images), embeddings_of(half, images)
    error = (exact - rounded).norm(dim=-1) / exact.norm(dim=-1)
    assert float(error.mean()) < 0.03
    assert all(half.generate(rounded, PROMPT, max_new_tokens=4))
