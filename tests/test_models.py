"""The subject model: cut, continued and answering exactly like the untouched transformers model."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend.errors import SubjectError, SubjectMismatch, SubjectMissing
from backend.hooks import capture_hook_point
from backend.models import load_subject
from backend.models._decoding import decode_tokens, token_texts, trimmed
from backend.models.base import Sampling
from backend.models.gemma3 import Gemma3Subject
from backend.types import HookPoint
from tests.builders_subject import load_tiny_subject, noise_images, reference_ids, said, save_tiny_subject

PROMPT = "What is shown in the image?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_subject(tmp_path_factory.mktemp("subject"))


@pytest.fixture(scope="module")
def subject(folder):
    return load_subject(folder, HookPoint(layer=1))


def embeddings_of(subject, images, n_images=1):
    embeddings = subject.from_hook(subject.residuals(images))
    return embeddings.reshape(len(images) // n_images, n_images, *embeddings.shape[1:])


def test_the_card_and_the_shape_come_from_the_files(subject, folder):
    assert subject.card.name == folder.name
    assert subject.card.family == "gemma3"
    assert (subject.grid.rows, subject.grid.cols, subject.grid.n_prefix_tokens) == (4, 4, 0)
    assert (subject.d_model, subject.d_text, subject.n_image_tokens, subject.image_px) == (32, 32, 4, 32)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_cut_and_continued_equals_the_whole_tower(folder, subject, layer):
    cut = load_subject(folder, HookPoint(layer=layer))
    pixels = cut.preprocess(noise_images(5))
    whole = subject.model.get_image_features(pixels).pooler_output
    torch.testing.assert_close(cut.from_hook(cut.to_hook(pixels)), whole, atol=1e-5, rtol=1e-5)


def test_to_hook_runs_no_block_after_the_hook_point(subject):
    later = subject.model.model.vision_tower.encoder.layers[2]
    with capture_hook_point(later, expected_firings=0), capture_hook_point(subject.hook_module):
        subject.to_hook(subject.preprocess(noise_images(1)))
    with capture_hook_point(later, expected_firings=1), capture_hook_point(subject.hook_module, expected_firings=0):
        subject.from_hook(torch.zeros(1, 16, 32))


def test_preprocessing_is_the_processors_own_and_takes_any_picture(subject):
    pixels = subject.preprocess([Image.new("L", (50, 20), 255), Image.new("RGBA", (32, 32), (0, 0, 0, 255))])
    assert pixels.shape == (2, 3, 32, 32)
    assert (pixels[0] == 1).all()
    assert (pixels[1] == -1).all()


@pytest.mark.parametrize("n_images", [1, 2, 5])
@pytest.mark.parametrize("sliding_window", [512, 8])
def test_answers_are_those_of_transformers_generate(tmp_path, n_images, sliding_window):
    subject = load_tiny_subject(tmp_path, sliding_window=sliding_window)
    images = noise_images(3 * n_images, seed=n_images)
    ids = subject.generate_ids(embeddings_of(subject, images, n_images), PROMPT, max_new_tokens=10).tolist()
    for row in range(3):
        expected = reference_ids(subject, images[row * n_images : (row + 1) * n_images], PROMPT, max_new_tokens=10)
        assert ids[row][: len(expected)] == expected
    assert len({tuple(row) for row in ids}) > 1, "the answers must depend on the images for this test to mean anything"


def test_an_answer_does_not_depend_on_its_batch(subject):
    embeddings = embeddings_of(subject, noise_images(6))
    together = subject.generate(embeddings, PROMPT, max_new_tokens=8)
    alone = [subject.generate(embeddings[row : row + 1], PROMPT, max_new_tokens=8)[0] for row in range(6)]
    assert together == alone


def test_rows_stop_at_end_of_turn_like_transformers(subject, monkeypatch):
    embeddings = embeddings_of(subject, noise_images(6))
    free = subject.generate_ids(embeddings, PROMPT, max_new_tokens=8)
    stop = int(free[0, 3])
    before = free[0].tolist().index(stop)
    monkeypatch.setattr(subject, "_stop_ids", frozenset({stop}))
    ids = subject.generate_ids(embeddings, PROMPT, max_new_tokens=8)
    assert ids[0, : before + 1].tolist() == free[0, : before + 1].tolist()
    assert (ids[0, before + 1 :] == 0).all()
    word = subject.processor.tokenizer.decode([stop])
    for text in subject.generate(embeddings, PROMPT, max_new_tokens=8):
        assert word not in text.split()


def test_stop_ids_hold_eos_and_end_of_turn(subject):
    tokenizer = subject.processor.tokenizer
    assert {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")} <= subject._stop_ids


def test_no_special_token_is_left_in_a_text(subject):
    rows = [[2, 9, 8, 10, 4, 5, 9], [9, 10, 11, 12, 13, 14, 15]]
    texts = [said(subject, row) for row in rows]
    assert texts[0] == "user model"
    assert "<" not in "".join(texts)


def test_a_stream_grows_to_the_whole_answer(subject):
    embeddings = embeddings_of(subject, noise_images(3))
    steps = list(subject.stream(embeddings, PROMPT, max_new_tokens=6))
    assert len(steps) == 6
    assert steps[-1] == subject.generate(embeddings, PROMPT, max_new_tokens=6)
    for earlier, later in pairwise(steps):
        assert all(new.startswith(old) for old, new in zip(earlier, later, strict=True))


def test_a_stream_stops_when_asked(subject):
    seen: list[list[str]] = []
    stream = subject.stream(
        embeddings_of(subject, noise_images(1)), PROMPT, max_new_tokens=30, should_stop=lambda: len(seen) >= 3
    )
    for texts in stream:
        seen.append(texts)
    assert len(seen) == 3


def test_sampling_is_seeded_per_row(subject):
    embeddings = embeddings_of(subject, noise_images(4))
    hot = Sampling(temperature=5.0, top_p=1.0, top_k=40, seed=3)
    once = subject.generate(embeddings, PROMPT, max_new_tokens=8, sampling=hot)
    assert once == subject.generate(embeddings, PROMPT, max_new_tokens=8, sampling=hot)
    assert once[:2] == subject.generate(embeddings[:2], PROMPT, max_new_tokens=8, sampling=hot)
    other = Sampling(temperature=5.0, top_p=1.0, top_k=40, seed=4)
    assert once != subject.generate(embeddings, PROMPT, max_new_tokens=8, sampling=other)
    cold = Sampling(top_k=1)
    assert subject.generate(embeddings, PROMPT, max_new_tokens=8, sampling=cold) == subject.generate(
        embeddings, PROMPT, max_new_tokens=8
    )


def test_paired_rows_that_agree_draw_the_same_words(subject):
    embeddings = embeddings_of(subject, noise_images(1)).repeat(3, 1, 1, 1)
    hot = Sampling(temperature=5.0, top_p=1.0, top_k=40, seed=3)
    assert len(set(subject.generate(embeddings, PROMPT, max_new_tokens=8, sampling=hot))) > 1
    paired = Sampling(temperature=5.0, top_p=1.0, top_k=40, seed=3, paired=True)
    assert len(set(subject.generate(embeddings, PROMPT, max_new_tokens=8, sampling=paired))) == 1


@pytest.mark.parametrize("n_images", [0, 1, 2])
@pytest.mark.parametrize("sliding_window", [512, 8])
def test_answer_probabilities_are_those_of_step_by_step_greedy_decoding(tmp_path, n_images, sliding_window):
    subject = load_tiny_subject(tmp_path, sliding_window=sliding_window)
    embeddings = embeddings_of(subject, noise_images(4 * n_images), n_images) if n_images else torch.zeros(4, 0, 4, 32)
    # The greedy answer of row 2 is put to every row; a row's own steps give the expected numbers.
    said = subject.generate_ids(embeddings[2:3], PROMPT, max_new_tokens=7)[0].tolist()
    answer = subject.processor.tokenizer.decode(said)
    ids = subject.processor.tokenizer.encode(answer, add_special_tokens=False)
    rows = subject.answer_probabilities(embeddings, PROMPT, answer)
    for row, tokens in enumerate(rows):
        expected = step_by_step(subject, embeddings[row : row + 1], ids)
        assert [one.log_probability for one in tokens] == pytest.approx([own for own, _ in expected], abs=1e-4)
        assert [one.likeliest_log_probability for one in tokens] == pytest.approx(
            [top for _, top in expected], abs=1e-4
        )
        assert "".join(one.text for one in tokens) == answer
    assert ids == said
    assert all(one.log_probability == one.likeliest_log_probability for one in rows[2])
    assert all(one.text.strip() == one.likeliest_text for one in rows[2])
    if n_images:
        assert rows[0] != rows[2], "the rows must differ for this test to mean anything"


def step_by_step(subject: Gemma3Subject, embeddings: torch.Tensor, ids: list[int]) -> list[tuple[float, float]]:
    """Log probability of each token and of the likeliest one, from a prompt that grows token by token."""
    found: list[tuple[float, float]] = []
    prepared = subject._prepare(PROMPT, embeddings.shape[1])
    model: Any = subject.model
    hidden = prepared.filled(embeddings)
    for token in ids:
        is_image = torch.cat([prepared.is_image, prepared.is_image.new_zeros(hidden.shape[1] - len(prepared.is_image))])
        with torch.no_grad():
            logits = model(inputs_embeds=hidden, attention_mask=subject._masks(hidden, is_image)).logits[0, -1]
            hidden = torch.cat([hidden, model.get_input_embeddings()(torch.tensor([[token]]))], dim=1)
        log_probabilities = logits.log_softmax(dim=-1)
        found.append((float(log_probabilities[token]), float(log_probabilities.max())))
    return found


def test_an_answer_without_tokens_has_no_probabilities(subject):
    embeddings = embeddings_of(subject, noise_images(2))
    assert subject.answer_probabilities(embeddings, PROMPT, "  ") == [[], []]
    assert subject.answer_probabilities(embeddings[:0], PROMPT, "crab") == []
    with pytest.raises(ValueError, match="image embeddings have the shape"):
        subject.answer_probabilities(torch.zeros(1, 1, 5, 32), PROMPT, "crab")


def test_token_texts_join_to_the_text_even_within_a_character():
    data = "crab 蟹!".encode()
    texts = token_texts(list(data), lambda some: bytes(some).decode("utf-8", errors="replace"))
    assert "".join(texts) == "crab 蟹!"
    assert texts[5:8] == ["", "", "蟹"]


def test_the_same_weights_are_cut_elsewhere_without_a_copy(folder, subject):
    other = subject.cut_at(HookPoint(layer=2))
    assert other.hook_point.layer == 2 and subject.hook_point.layer == 1
    assert other.model is subject.model
    pixels = subject.preprocess(noise_images(2))
    assert torch.equal(other.to_hook(pixels), load_subject(folder, HookPoint(layer=2)).to_hook(pixels))
    with pytest.raises(SubjectMismatch, match="LAYER 0 to 2"):
        subject.cut_at(HookPoint(layer=3))


def test_a_question_without_images_is_answered(subject):
    texts = subject.generate(torch.zeros(2, 0, 4, 32), PROMPT, max_new_tokens=4)
    assert texts[0] == texts[1] != ""


def test_no_rows_and_no_tokens_give_no_text(subject):
    assert subject.generate(torch.zeros(0, 1, 4, 32), PROMPT, max_new_tokens=4) == []
    assert subject.generate(torch.zeros(2, 1, 4, 32), PROMPT, max_new_tokens=0) == ["", ""]


def test_embeddings_of_another_shape_are_refused(subject):
    with pytest.raises(ValueError, match="image embeddings have the shape"):
        subject.generate(torch.zeros(1, 1, 5, 32), PROMPT, max_new_tokens=4)


def test_bfloat16_leaves_float32_outside(folder):
    subject = load_subject(folder, HookPoint(layer=1), dtype="bfloat16")
    assert isinstance(subject, Gemma3Subject)
    residual = subject.residuals(noise_images(2))
    assert residual.dtype == torch.float32
    embeddings = subject.from_hook(residual)
    assert embeddings.dtype == torch.float32
    model: Any = subject.model
    whole = model.get_image_features(subject.preprocess(noise_images(2)).bfloat16()).pooler_output.float()
    assert torch.equal(embeddings, whole)
    assert len(subject.generate(embeddings[:, None], PROMPT, max_new_tokens=3)) == 2


def test_the_fingerprint_follows_the_content_and_not_the_folder(subject, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("not part of the model")
    assert load_subject(copy, HookPoint(layer=2)).fingerprint == subject.fingerprint
    other = load_tiny_subject(tmp_path / "other", seed=1)
    assert other.fingerprint != subject.fingerprint


def test_a_hook_point_the_model_lacks_is_refused(folder):
    for point in (HookPoint(layer=3), HookPoint(layer=-1), HookPoint(layer=0, tower="text")):
        with pytest.raises(SubjectMismatch, match="LAYER 0 to 2"):
            load_subject(folder, point)


def test_a_missing_repository_is_named_with_its_licence_page(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SubjectMissing, match=r"google/gemma-3-4b-it.*https://huggingface.co/google/gemma-3-4b-it"):
        load_subject("google/gemma-3-4b-it", HookPoint(layer=16))


def test_a_missing_or_unsuitable_folder_is_refused(tmp_path):
    with pytest.raises(SubjectMissing, match="save_pretrained"):
        load_subject(tmp_path, HookPoint(layer=0))
    with pytest.raises(SubjectMissing, match="no subject model at"):
        load_subject(str(tmp_path / "nowhere"), HookPoint(layer=0))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(SubjectError, match=r"no adapter for models of type 'bert'.*gemma3"):
        load_subject(tmp_path, HookPoint(layer=0))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(SubjectError, match="names no model_type"):
        load_subject(tmp_path, HookPoint(layer=0))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3"}))
    with pytest.raises(SubjectError, match="cannot load"):
        load_subject(tmp_path, HookPoint(layer=0))


def test_an_unknown_dtype_is_refused(folder):
    with pytest.raises(SubjectError, match="unknown dtype"):
        load_subject(folder, HookPoint(layer=0), dtype="int4")


def test_decoding_pads_ended_rows_and_asks_for_no_logits_in_vain():
    script = iter([[1, 2], [7, 2], [9, 7], [9, 9]])
    asked: list[list[int]] = []

    def logits() -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(next(script)), 10).float()

    def next_logits(tokens: torch.Tensor) -> torch.Tensor:
        asked.append(tokens.tolist())
        return logits()

    steps = list(decode_tokens(logits(), next_logits, stop_ids=frozenset({7}), pad_id=0, max_new_tokens=9))
    assert steps[-1].tolist() == [[1, 7, 0], [2, 2, 7]]
    assert asked == [[1, 2], [7, 2]]
    assert trimmed([1, 7, 0], frozenset({7})) == [1]


def test_top_p_keeps_the_likeliest_tokens_only():
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1]])).repeat(200, 1)
    sampling = Sampling(temperature=1.0, top_p=0.8, top_k=3)
    steps = decode_tokens(logits, lambda _: logits, stop_ids=frozenset(), pad_id=0, max_new_tokens=1, sampling=sampling)
    drawn = next(iter(steps))[:, 0].numpy()
    assert set(np.unique(drawn)) == {0, 1}
    assert 0.55 < (drawn == 0).mean() < 0.8


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": 0}])
def test_sampling_settings_are_checked(settings):
    with pytest.raises(ValueError, match="must"):
        Sampling(**settings)
