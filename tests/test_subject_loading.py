"""Loading a model of any family: whatever is missing, damaged or wrong is named, with the place and the cure."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.errors import SubjectError, SubjectMismatch, SubjectMissing
from backend.models import load_subject, load_tower
from backend.types import HookPoint
from tests.builders_families import ALL_FAMILIES, BUILDERS, MIDDLE, PROMPT, TOWERS
from tests.builders_foreign_sae import write_pytorch_model
from tests.builders_subject import noise_images

VISION_WEIGHT = re.compile(r"^(?!.*(text|language)).*(fc1|up_proj)\.weight$")
"""One matrix of every vision block, whatever its family calls it; the other half's weights may be missing."""


@pytest.fixture(scope="module", params=sorted(ALL_FAMILIES))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory) -> Path:
    return ALL_FAMILIES[family](tmp_path_factory.mktemp(family))


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("point", [HookPoint(layer=3), HookPoint(layer=-1), HookPoint(layer=0, tower="text")])
def test_a_hook_point_the_model_lacks_is_refused(folder, point):
    with pytest.raises(SubjectMismatch, match=r"has no hook point .*: choose .*LAYER 0 to 2"):
        load_tower(folder, point)


def test_missing_weights_are_named_with_the_cure(copy):
    for file in copy.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(SubjectMissing, match=r"cannot load .*copy: it holds no weights .*save_pretrained"):
        load_tower(copy, MIDDLE)


def test_weights_that_are_only_partly_there_are_not_drawn_at_random(copy):
    file = copy / "model.safetensors"
    weights = load_file(file)
    dropped = sorted(name for name in weights if VISION_WEIGHT.search(name))[0]
    save_file({name: weight for name, weight in weights.items() if name != dropped}, file, metadata={"format": "pt"})
    with pytest.raises(SubjectMissing, match=r"its files lack 1 weights \(.*(fc1|up_proj)\.weight\); write it again"):
        load_tower(copy, MIDDLE)


def test_weights_in_a_pickle_are_not_read(copy):
    """Even beside a file of safetensors that is none of the model's."""
    write_pytorch_model(copy / "pytorch_model.bin", load_file(copy / "model.safetensors"))
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    with pytest.raises(SubjectError, match="its weights cannot be read"):
        load_tower(copy, MIDDLE)


def test_damaged_weights_are_named(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(SubjectError, match=r"cannot load .*copy: its weights cannot be read"):
        load_tower(copy, MIDDLE)


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ('{"weight_map": "no"}', "has no weight_map"),
        (
            '{"weight_map": {"a": "gone.safetensors"}}',
            r"cannot load .*copy: it lacks gone.safetensors .*save_pretrained",
        ),
    ],
)
def test_a_damaged_index_of_shards_is_named(copy, index, told):
    (copy / "model.safetensors").rename(copy / "model-00001-of-00001.safetensors")
    (copy / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(SubjectMissing, match=told):
        load_tower(copy, MIDDLE)


@pytest.mark.parametrize("kept", ["tokenizer", "processor", "neither"])
def test_a_missing_processor_or_tokenizer_is_named_with_the_cure(family, copy, kept):
    if family in TOWERS:
        kept = "tokenizer"  # it has none, so only the processor can be missing
    for file in copy.iterdir():
        belongs = "tokenizer" if "token" in file.name else "processor" if "processor" in file.name else "model"
        if belongs not in {"model", kept}:
            file.unlink()
    with pytest.raises(SubjectMissing, match=r"cannot load .*copy: .*(processor|tokenizer).*save_pretrained"):
        load_tower(copy, MIDDLE)


def test_a_repository_is_fetched_again_by_name(copy, monkeypatch):
    (copy / "model.safetensors").unlink()
    monkeypatch.setattr("backend.models.locate", lambda *_, **__: copy)
    with pytest.raises(SubjectMissing, match=r"hf download some/model"):
        load_tower("some/model", MIDDLE)


def test_a_processor_of_another_model_is_refused(family, folder):
    model: Any = load_tower(folder, MIDDLE)
    if family in BUILDERS:
        model.n_image_tokens = 5
        with pytest.raises(SubjectError, match="belongs to another model"):
            model.generate(torch.zeros(1, 1, 5, 32), PROMPT, max_new_tokens=1)
    model.image_px = 64
    with pytest.raises(SubjectError, match="belongs to another model"):
        model.preprocess(noise_images(1))


@pytest.mark.parametrize(
    ("family", "size", "told"),
    [
        ("siglip", {"height": 64, "width": 64}, r"images of 64 px, .* reads 32 x 32: .* another model"),
        ("clip", {"height": 64, "width": 64}, r"images of 64 px, .* reads 32 x 32: .* another model"),
        ("dinov2", {"height": 60, "width": 60}, r"images of 60 px, .* no whole number of patches of 8 px"),
        ("siglip", {"height": 32, "width": 64}, r"image processor makes no squares .*save_pretrained"),
        ("dinov3_vit", {"shortest_edge": 32}, r"image processor makes no squares .*save_pretrained"),
    ],
)
def test_an_image_processor_that_makes_other_squares_is_refused(family, size, told, tmp_path):
    folder = TOWERS[family](tmp_path / "model")
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "do_center_crop": False, "size": size}))
    with pytest.raises(SubjectError, match=told):
        load_tower(folder, MIDDLE)


@pytest.mark.parametrize("family", sorted(TOWERS))
def test_an_image_encoder_is_no_subject_and_says_what_a_recipe_needs(family, tmp_path):
    folder = TOWERS[family](tmp_path / "model")
    with pytest.raises(SubjectError, match=r"model is an image encoder without a language model.*\[explainer\]"):
        load_subject(folder, MIDDLE)


def test_an_unknown_dtype_is_refused(folder):
    with pytest.raises(SubjectError, match="unknown dtype"):
        load_tower(folder, MIDDLE, dtype="int4")


# X

PROCESSORS = {
    "gemma3": "Gemma3Processor",
    "internvl": "InternVLProcessor",
    "llava_onevision": "LlavaOnevisionProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {family: build(tmp_path_factory.mktemp(family)) for family, build in BUILDERS.items()}


@pytest.mark.parametrize("other", sorted(BUILDERS))
@pytest.mark.parametrize("own", sorted(BUILDERS))
def test_another_familys_processor_is_refused_by_name(folders, own, other, tmp_path):
    copy = Path(shutil.copytree(folders[own], tmp_path / "copy"))
    shutil.copy(folders[other] / "processor_config.json", copy)
    if own == other:
        assert load_subject(copy, MIDDLE).card.family == own
        return
    told = rf"processor is a {PROCESSORS[other]}, but models of type {own} have a {PROCESSORS[own]}; .*save_pretrained"
    with pytest.raises(SubjectError, match=told):
        load_subject(copy, MIDDLE)


@pytest.mark.parametrize("other", sorted(BUILDERS))
@pytest.mark.parametrize("own", sorted(BUILDERS))
def test_another_familys_image_processor_is_refused_before_it_makes_wrong_pixels(folders, own, other, tmp_path):
    copy = Path(shutil.copytree(folders[own], tmp_path / "copy"))
    ours, theirs = (json.loads((folders[one] / "processor_config.json").read_text()) for one in (own, other))
    (copy / "processor_config.json").write_text(json.dumps({**ours, "image_processor": theirs["image_processor"]}))
    images = noise_images(2, side_px=40)
    try:
        pixels = load_subject(copy, MIDDLE).preprocess(images)
    except SubjectError as error:
        assert "another model" in str(error)
    else:  # squares of the same size are what the tower reads, whoever makes them
        assert pixels.shape == (2, 3, 32, 32)
        assert own == other or "qwen2_5_vl" not in {own, other}


def test_models_are_loaded_in_several_threads_at_once(tmp_path: Path) -> None:
    """As by the replicas of several cards."""
    folder = BUILDERS["gemma3"](tmp_path / "model")
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(lambda _: load_subject(folder, MIDDLE), range(12)))
    assert len({subject.fingerprint for subject in loaded}) == 1
