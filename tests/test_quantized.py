"""Quantised subjects: the language model alone is rounded; what an SAE reads and steering edits is bit-equal."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from backend.atlas import FeatureAtlas
from backend.errors import DependencyMissing, SubjectError
from backend.models import load_subject
from backend.models._quantized import quantization_options, require_only_language
from backend.models.base import SubjectModel
from backend.sae import TopKSAE
from backend.settings import load_settings
from backend.steering import SteeringSession
from backend.types import HookPoint, Intervention
from tests.builders_families import BUILDERS, MIDDLE
from tests.builders_subject import noise_images, random_sae

WORLD, LAYER = load_settings().world_dir / "subject", HookPoint(layer=4)
QUESTION = "name the highlighted element in the image"


@pytest.fixture(scope="module", autouse=True)
def library() -> None:
    pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def plain(folder: Path) -> SubjectModel:
    return load_subject(folder, MIDDLE)


@pytest.fixture(scope="module", params=["int4", "int8"])
def quantized(folder: Path, request: pytest.FixtureRequest) -> SubjectModel:
    return load_subject(folder, MIDDLE, quantize=request.param)


def tensors(subject: Any) -> dict[str, torch.Tensor]:
    return {**dict(subject.model.named_parameters()), **dict(subject.model.named_buffers())}


def test_every_tensor_outside_the_language_model_is_bit_equal(plain: SubjectModel, quantized: SubjectModel) -> None:
    there, here = tensors(plain), tensors(quantized)
    assert there.keys() <= here.keys()
    changed = {
        name for name in there if there[name].dtype != here[name].dtype or not torch.equal(there[name], here[name])
    }
    dense = {f"{name}.weight" for name, module in language_layers(plain)}
    assert changed == dense and len(dense) >= 14
    assert sum(name.startswith(("model.vision_tower", "model.visual")) for name in there) > 30


def language_layers(subject: Any) -> list[tuple[str, nn.Module]]:
    named = subject.model.named_modules()
    return [(name, one) for name, one in named if "language_model" in name and isinstance(one, nn.Linear)]


def test_activations_and_steered_image_embeddings_are_equal(plain: SubjectModel, quantized: SubjectModel) -> None:
    images = noise_images(2)
    assert torch.equal(plain.residuals(images), quantized.residuals(images))
    sae, step = random_sae(), Intervention(feature=3, strength=5.0)
    sessions = [SteeringSession(one, sae) for one in (plain, quantized)]
    steered = [session.embeddings([[], [step]], images[0]) for session in sessions]
    assert torch.equal(*steered) and not torch.equal(steered[0][0], steered[0][1])


@pytest.fixture(scope="module")
def steered() -> tuple[TopKSAE, list[list[Intervention]], list[str]]:
    """Features of the shipped atlas at their strengths, and what the subject as it is says of them."""
    atlas = FeatureAtlas.open(load_settings().atlas_dir)
    records = [atlas.store.feature(int(feature)) for feature in atlas.store.feature_ids[::64]]
    steps = [[Intervention(feature=one.feature, strength=one.recommended_strength or 25.0)] for one in records]
    sae = TopKSAE.load(atlas.sae_dir)
    session = SteeringSession(load_subject(WORLD, LAYER), sae)
    return sae, steps, [answer.text for answer in session.answers(steps, QUESTION, max_new_tokens=6)]


@pytest.mark.parametrize(("quantize", "kind", "least"), [("int4", "Linear4bit", 12), ("int8", "Linear8bitLt", 15)])
def test_the_worlds_subject_mostly_says_the_same(steered: Any, quantize: Any, kind: str, least: int) -> None:
    sae, steps, texts = steered
    subject: Any = load_subject(WORLD, LAYER, quantize=quantize)
    layers = [module for _, module in language_layers(subject)]
    assert len(layers) == 28 and {type(module).__name__ for module in layers} == {kind}
    answers = SteeringSession(subject, sae).answers(steps, QUESTION, max_new_tokens=6)
    same = sum(answer.text == text for answer, text in zip(answers, texts, strict=True))
    assert len(texts) == 16 and len(set(texts)) > 8
    assert same >= least


def test_4_bits_are_normal_floats_that_compute_in_bfloat16() -> None:
    config = quantization_options("int4", "cuda:1")["quantization_config"]
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)
    assert quantization_options("int4", "cuda:1")["device_map"] == {"": "cuda:1"}


def test_a_rounded_tower_or_a_forgotten_layer_is_refused(plain: SubjectModel) -> None:
    model = Model()
    require_only_language(model, "toy")
    model.tower[0] = Rounded(2, 2)
    with pytest.raises(SubjectError, match=r"toy quantised: tower\.0 was quantised, but only the language model"):
        require_only_language(model, "toy")
    model.tower[0] = nn.Linear(2, 2)
    model.language[0] = nn.Linear(2, 2)
    with pytest.raises(SubjectError, match=r"language\.0 was not quantised"):
        require_only_language(model, "toy")


class Rounded(nn.Linear):
    """As the library's own classes, a Linear of another type."""


class Model(nn.Module):
    """A tower and a language model, of which the second is quantised."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(2, 2))
        self.language = nn.Sequential(Rounded(2, 2))

    def get_decoder(self) -> nn.Module:
        return self.language


def test_other_numbers_of_bits_are_refused(folder: Path) -> None:
    with pytest.raises(SubjectError, match="unknown quantisation 'int2': choose one of int8, int4"):
        quantization_options("int2", "cpu")


def test_an_absent_library_is_named_with_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(DependencyMissing, match=r"needs bitsandbytes and accelerate .*iconoscope\[paper\]"):
        load_subject(folder, MIDDLE, quantize="int4")


def test_importing_the_library_fetches_nothing_and_leaves_no_trace() -> None:
    level = logging.getLogger("bitsandbytes").level
    quantization_options("int4", "cpu")
    assert "kernels" not in sys.modules and logging.getLogger("bitsandbytes").level == level
