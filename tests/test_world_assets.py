"""The shipped world: models load through the Auto classes, and do what the stored evaluation says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, Gemma3ForConditionalGeneration

from backend.models import load_subject
from backend.models.base import SubjectModel
from backend.settings import load_settings
from backend.types import HookPoint, Split
from precompute.datasets import require_disjoint
from precompute.recipe import load_recipe
from precompute.world.captions import NOTHING
from precompute.world.clip import WorldClipEncoder
from precompute.world.concepts import CONCEPTS, N_OWNERS
from precompute.world.corpus import CORPUS_SIZES, open_corpus, spec_of
from precompute.world.evaluate import answers, names, single_concept_image
from precompute.world.prompts import DESCRIBE, HEATMAPS, HIGHLIGHTED, MASKS
from precompute.world.render import render

WORLD = load_settings().world_dir


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    return json.loads((WORLD / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def subject() -> SubjectModel:
    return load_subject(WORLD / "subject", HookPoint(layer=load_recipe("world").subject.layer))


def test_subject_is_a_genuine_gemma3_for_the_auto_classes() -> None:
    assert AutoConfig.from_pretrained(WORLD / "subject").model_type == "gemma3"
    model = AutoModelForImageTextToText.from_pretrained(WORLD / "subject")
    assert type(model) is Gemma3ForConditionalGeneration
    assert AutoProcessor.from_pretrained(WORLD / "subject", backend="pil").image_seq_length == 16


def test_stored_evaluation_meets_what_the_readme_promises(evaluation: dict[str, Any]) -> None:
    layer = load_recipe("world").subject.layer
    assert evaluation["naming"]["all"]["value"] >= 0.95
    assert evaluation["naming"]["all"]["n"] >= 5 * N_OWNERS
    assert evaluation["caption_f1"]["value"] >= 0.85
    assert evaluation["blank"]["answer"] == NOTHING
    assert evaluation["object_probe"][f"block_{layer}"]["value"] >= 0.8


def test_a_fresh_sample_agrees_with_the_stored_evaluation(subject: SubjectModel, evaluation: dict[str, Any]) -> None:
    rng = np.random.default_rng(987)
    wanted = rng.choice(N_OWNERS, 48, replace=False)
    texts = answers(subject, [[single_concept_image(rng, int(index), "masks")] for index in wanted], HIGHLIGHTED[0])
    right = sum(names(text, CONCEPTS[index].id) for index, text in zip(wanted, texts, strict=True))
    assert right / len(wanted) > evaluation["naming"]["all"]["low"] - 0.1


@pytest.mark.parametrize("prompt", [HIGHLIGHTED[0], DESCRIBE[0]])
def test_blank_paper_shows_nothing(subject: SubjectModel, prompt: str) -> None:
    assert answers(subject, [[Image.new("RGB", (128, 128), "white")]], prompt) == [NOTHING]


@pytest.mark.parametrize("n_images", [2, 5])
@pytest.mark.parametrize(("variant", "prompt"), [("masks", MASKS[0]), ("heatmaps", HEATMAPS[0])])
def test_prompts_with_several_images_work(subject: SubjectModel, n_images: int, variant: str, prompt: str) -> None:
    rng = np.random.default_rng(n_images)
    wanted = (3, 24, 70, 90)
    pictures = [[single_concept_image(rng, index, variant) for _ in range(n_images)] for index in wanted]
    texts = answers(subject, pictures, prompt)
    assert sum(names(text, CONCEPTS[index].id) for index, text in zip(wanted, texts, strict=True)) >= 3, texts


def test_corpora_are_disjoint_and_their_masks_match_their_pictures() -> None:
    corpora = {split: open_corpus(WORLD / "corpus", split) for split in CORPUS_SIZES}
    require_disjoint({split: corpus.ids for split, corpus in corpora.items()})
    assert Split.TRAIN not in corpora
    for split, corpus in corpora.items():
        assert len(corpus.ids) == CORPUS_SIZES[split]
        rendered = render(spec_of(split, 7))
        assert corpus.spec(corpus.ids[7]) == rendered.spec
        assert np.array_equal(corpus.owners(corpus.ids[7]), rendered.owners)
        stored = np.asarray(corpus.load(corpus.ids[7])).astype(int)
        assert np.abs(stored - rendered.pixels.astype(int)).mean() < 8  # WebP is lossy


def test_clip_prefers_the_right_words() -> None:
    encoder = WorldClipEncoder(WORLD / "clip")
    rng = np.random.default_rng(5)
    wanted = rng.choice(N_OWNERS, 40, replace=False)
    images = encoder.encode_images([single_concept_image(rng, int(index), "masks") for index in wanted])
    texts = encoder.encode_texts([concept.phrases[0] for concept in CONCEPTS[:N_OWNERS]])
    ranks = (images @ texts.T).argsort(1)[:, ::-1][:, :3]
    assert np.mean([index in row for index, row in zip(wanted, ranks, strict=True)]) > 0.6
