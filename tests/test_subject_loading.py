"""Loading a subject of any family: whatever is missing, damaged or wrong is named, with the place and the cure."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.errors import SubjectError, SubjectMismatch, SubjectMissing
from backend.models import load_subject
from backend.types import HookPoint
from tests.builders_families import BUILDERS, MIDDLE, PROMPT
from tests.builders_subject import noise_images


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory) -> Path:
    return BUILDERS[family](tmp_path_factory.mktemp(family))


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("point", [HookPoint(layer=3), HookPoint(layer=-1), HookPoint(layer=0, tower="text")])
def test_a_hook_point_the_model_lacks_is_refused(folder, point):
    with pytest.raises(SubjectMismatch, match=r"has no hook point .*: choose .*LAYER 0 to 2"):
        load_subject(folder, point)


def test_missing_weights_are_named_with_the_cure(copy):
    for file in copy.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(SubjectMissing, match=r"cannot load .*copy: it holds no weights .*save_pretrained"):
        load_subject(copy, MIDDLE)


def test_weights_that_are_only_partly_there_are_not_drawn_at_random(copy):
    file = copy / "model.safetensors"
    weights = load_file(file)
    dropped = sorted(name for name in weights if "encoder" in name and name.endswith("fc1.weight"))[0]
    save_file({name: weight for name, weight in weights.items() if name != dropped}, file, metadata={"format": "pt"})
    with pytest.raises(SubjectMissing, match=r"its files lack 1 weights \(.*fc1\.weight\); write it again"):
        load_subject(copy, MIDDLE)


def test_damaged_weights_are_named(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(SubjectError, match=r"cannot load .*copy: its weights cannot be read"):
        load_subject(copy, MIDDLE)


@pytest.mark.parametrize("kept", ["tokenizer", "processor", "neither"])
def test_a_missing_processor_or_tokenizer_is_named_with_the_cure(copy, kept):
    for file in copy.iterdir():
        belongs = "tokenizer" if "token" in file.name else "processor" if "processor" in file.name else "model"
        if belongs not in {"model", kept}:
            file.unlink()
    with pytest.raises(SubjectMissing, match=r"cannot load .*copy: .*(processor|tokenizer).*save_pretrained"):
        load_subject(copy, MIDDLE)


def test_a_repository_is_fetched_again_by_name(copy, monkeypatch):
    (copy / "model.safetensors").unlink()
    monkeypatch.setattr("backend.models.locate", lambda *_, **__: copy)
    with pytest.raises(SubjectMissing, match=r"hf download some/model"):
        load_subject("some/model", MIDDLE)


def test_a_processor_of_another_model_is_refused(folder):
    subject: Any = load_subject(folder, MIDDLE)
    subject.n_image_tokens = 5
    with pytest.raises(SubjectError, match="belongs to another model"):
        subject.generate(torch.zeros(1, 1, 5, 32), PROMPT, max_new_tokens=1)
    subject.image_px = 64
    with pytest.raises(SubjectError, match="belongs to another model"):
        subject.preprocess(noise_images(1))


def test_an_unknown_dtype_is_refused(folder):
    with pytest.raises(SubjectError, match="unknown dtype"):
        load_subject(folder, MIDDLE, dtype="int4")
