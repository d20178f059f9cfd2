"""LLaVA-OneVision alone: an image is one tile, the whole picture, and its last token is the newline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend.errors import SubjectError
from backend.models import load_subject
from backend.models.llava_onevision import LlavaOnevisionSubject
from precompute.shrunken.llava_onevision import build
from tests.builders_families import MIDDLE, PROMPT, embeddings_of
from tests.builders_subject import noise_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def subject(folder) -> Any:
    subject = load_subject(folder, MIDDLE)
    assert isinstance(subject, LlavaOnevisionSubject)
    return subject


@pytest.mark.parametrize("shape", [(32, 32), (70, 50), (40, 90)])
def test_the_tile_is_the_one_that_shows_the_whole_picture(subject, shape):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8))
    tiles = subject.processor.image_processor(images=[picture], return_tensors="pt")["pixel_values"][0]
    assert len(tiles) > 1, "the processor's files switch tiling on"
    assert torch.equal(subject.preprocess([picture])[0], tiles[0])
    assert torch.equal(subject.preprocess([picture, picture])[1], tiles[0])


def test_the_last_token_of_an_image_is_the_newline_whatever_it_shows(subject):
    embeddings = embeddings_of(subject, noise_images(3))[:, 0]
    newline = subject.model.model.image_newline
    assert torch.equal(embeddings[:, -1], newline.expand(3, -1))
    assert not torch.isclose(embeddings[:, :-1], newline).all(dim=-1).any()


def test_a_single_image_is_laid_out_like_each_of_several(subject):
    one, two = (subject._token_ids(PROMPT, n)[0] for n in (1, 2))
    mark = subject.model.config.image_token_id
    assert int((one == mark).sum()) == subject.n_image_tokens == 17
    assert int((two == mark).sum()) == 2 * 17
    assert one[one != mark].tolist() == two[two != mark].tolist()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"vision_feature_layer": -2}, r"projects layer -2 .*only layer -1 by 'full'"),
        ({"vision_feature_select_strategy": "default"}, r"by the strategy 'default'"),
    ],
)
def test_a_projection_that_cannot_be_continued_is_refused(folder, tmp_path, changed, told):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **changed}))
    with pytest.raises(SubjectError, match=told):
        load_subject(copy, MIDDLE)


def test_a_processor_that_counts_other_tokens_is_refused(folder):
    subject: Any = load_subject(folder, MIDDLE)
    subject.processor.num_image_tokens = 25
    with pytest.raises(SubjectError, match=r"gave 26 image tokens for 1 images.*another model"):
        subject.generate(torch.zeros(1, 1, 17, 32), PROMPT, max_new_tokens=1)
