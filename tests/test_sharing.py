"""One vision tower in two models: the language model of the second explains features found in the first; any difference
is found and named before anything is steered.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.errors import SubjectMismatch
from backend.models import load_subject, load_tower
from backend.models.sharing import require_alike_towers, require_same_tower
from backend.steering import SteeringSession
from backend.types import Intervention
from tests.builders_families import MIDDLE, PROMPT, TOWERS
from tests.builders_subject import random_sae, save_tiny_subject

TENSOR = "encoder.layers.2.mlp.fc1.weight"


def save_sibling(folder: Path, subject: Path) -> Path:
    """A subject with the vision tower of another and a language model of its own."""
    save_tiny_subject(folder, seed=7)
    own, others = (load_file(one / "model.safetensors") for one in (folder, subject))
    shared = {name: tensor for name, tensor in others.items() if "vision_tower" in name}
    save_file({**own, **shared}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def change_weight(folder: Path, name: str) -> None:
    """One number of one tensor of the tower, by one part in a million."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    key = next(one for one in weights if "vision_tower" in one and one.endswith(name))
    weights[key].view(-1)[5] *= 1 + 1e-6
    save_file(weights, file, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def subject(tmp_path_factory) -> Path:
    return save_tiny_subject(tmp_path_factory.mktemp("subject") / "small")


def test_a_model_of_another_size_around_the_same_tower_is_steered_by_the_same_sae(subject, tmp_path):
    large = save_sibling(tmp_path / "large", subject)
    require_alike_towers(subject, large)
    first, second = (load_subject(folder, MIDDLE) for folder in (subject, large))
    require_same_tower(first, second)
    sessions = [SteeringSession(one, random_sae(layer=1)) for one in (first, second)]
    assert torch.equal(sessions[0].residual(), sessions[1].residual())
    rows = [[], [Intervention(feature=3, strength=9.0)]]
    said = [[answer.text for answer in session.answers(rows, PROMPT)] for session in sessions]
    assert said[0] != said[1] and len({*said[0], *said[1]}) > 2, "each has words of its own"


def test_one_changed_weight_after_the_hook_point_is_named(subject, tmp_path):
    other = save_sibling(tmp_path / "other", subject)
    change_weight(other, TENSOR)
    with pytest.raises(
        SubjectMismatch, match=rf"other does not have the vision tower of small: tensor {TENSOR} differs"
    ):
        require_same_tower(load_subject(subject, MIDDLE), load_subject(other, MIDDLE))


def test_an_unrelated_tower_is_refused_with_the_way_out(subject, tmp_path):
    other = save_tiny_subject(tmp_path / "other", seed=3)
    with pytest.raises(SubjectMismatch, match=r"tensor .* differs.*steers = false"):
        require_same_tower(load_subject(subject, MIDDLE), load_subject(other, MIDDLE))


def test_another_patch_grid_shows_before_anything_is_loaded(subject, tmp_path):
    other = save_tiny_subject(tmp_path / "other", patch_px=4)
    with pytest.raises(SubjectMismatch, match=r"patch_size is 8 there and 4 here"):
        require_alike_towers(subject, other)
    with pytest.raises(SubjectMismatch, match=r"grid is .*rows=4.* there and .*rows=8.* here"):
        require_same_tower(load_subject(subject, MIDDLE), load_subject(other, MIDDLE))


def test_a_config_that_computes_something_else_is_refused(subject, tmp_path):
    other = save_sibling(tmp_path / "other", subject)
    file = other / "config.json"
    config = json.loads(file.read_text())
    config["vision_config"]["num_attention_heads"] = 2
    file.write_text(json.dumps(config))
    for check in (
        lambda: require_alike_towers(subject, other),
        lambda: require_same_tower(load_subject(subject, MIDDLE), load_subject(other, MIDDLE)),
    ):
        with pytest.raises(SubjectMismatch, match="num_attention_heads is 4 there and 2 here"):
            check()


def test_other_pixels_are_refused(subject, tmp_path):
    other = save_sibling(tmp_path / "other", subject)
    model = load_subject(other, MIDDLE)
    model.processor.image_processor.image_mean = [0.4, 0.5, 0.5]  # type: ignore[attr-defined]
    with pytest.raises(SubjectMismatch, match="the processors make other pixels"):
        require_same_tower(load_subject(subject, MIDDLE), model)


def test_an_image_encoder_is_no_tower_of_a_subject(subject, tmp_path):
    siglip, dinov2 = (TOWERS[family](tmp_path / family) for family in ("siglip", "dinov2"))
    with pytest.raises(SubjectMismatch, match=r"small does not have the vision tower of siglip: tensor .* differs"):
        require_same_tower(load_tower(siglip, MIDDLE), load_tower(subject, MIDDLE))
    with pytest.raises(SubjectMismatch, match=r"image_size is 48 there and 32 here"):
        require_alike_towers(dinov2, subject)
