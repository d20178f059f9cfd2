"""One vision tower in two models: the language model of the second explains, and answers for, features found in the
first; any difference is found in the files and named before anything is steered.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from backend.errors import SubjectError, SubjectMismatch
from backend.models import load_subject, load_tower
from backend.models.sharing import BEHIND, _read, _tower_tensors, require_alike_towers, require_same_tower
from backend.steering import SteeringSession
from backend.types import Intervention
from tests.builders_families import ALL_FAMILIES, MIDDLE, PROMPT, TOWERS
from tests.builders_sizes import change_weight, rewrite, save_other_size
from tests.builders_subject import noise_images, random_sae, save_tiny_subject

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_subject(tmp_path_factory.mktemp("towers") / "small")


@pytest.fixture(scope="module")
def larger(subject: Path) -> Path:
    return save_other_size(subject.parent / "large", subject)


@pytest.fixture
def other(larger: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(larger, tmp_path / "other"))


def test_a_model_of_another_size_around_the_same_tower_is_steered_by_the_same_sae(subject: Path, larger: Path) -> None:
    require_alike_towers(subject, larger)
    require_same_tower(subject, larger)
    require_same_tower(larger, subject)
    first, second = (load_subject(folder, MIDDLE) for folder in (subject, larger))
    assert (first.d_text, second.d_text) == (32, 64)
    assert torch.equal(first.residuals(noise_images(2)), second.residuals(noise_images(2)))
    sessions = [SteeringSession(one, random_sae(layer=1)) for one in (first, second)]
    assert torch.equal(sessions[0].residual(), sessions[1].residual())
    rows = [[], [Intervention(feature=3, strength=9.0)]]
    said = [[answer.text for answer in session.answers(rows, PROMPT)] for session in sessions]
    assert said[0] != said[1], "each has words of its own"


@pytest.mark.parametrize("family", sorted(ALL_FAMILIES))
def test_all_tensors_of_the_loaded_tower_are_compared(family: str, tmp_path: Path) -> None:
    folder = ALL_FAMILIES[family](tmp_path / family)
    loaded: Any = load_tower(folder, MIDDLE)
    in_memory = [one for name, one in loaded.vision_module.state_dict().items() if not BEHIND.match(name)]
    in_files = [_read(*place) for place in _tower_tensors(folder).values()]
    # By content: some families have other names in files than in transformers' modules.
    assert sorted(map(content, in_memory)) == sorted(map(content, in_files))
    require_same_tower(folder, folder)


def content(tensor: Tensor) -> tuple[tuple[int, ...], bytes]:
    return tuple(tensor.shape), tensor.numpy().tobytes()


def released(tensors: Tensors) -> Tensors:
    """Names as the repositories of Gemma 3 have them."""
    return {name.replace("vision_tower.", "vision_tower.vision_model."): one for name, one in tensors.items()}


def with_head(tensors: Tensors) -> Tensors:
    """A pooling head that no patch passes."""
    return {**tensors, "vision_tower.head.probe": torch.ones(1, 1, 32)}


def in_float64(tensors: Tensors) -> Tensors:
    return {name: one.double() for name, one in tensors.items()}


@pytest.mark.parametrize("change", [released, with_head, in_float64])
def test_names_dtypes_and_what_is_behind_the_patches_do_not_matter(
    subject: Path, other: Path, change: Callable[[Tensors], Tensors]
) -> None:
    rewrite(other, change)
    require_same_tower(subject, other)


def one_bit(tensors: Tensors) -> Tensors:
    name = next(name for name in tensors if name.endswith("encoder.layers.1.mlp.fc1.weight"))
    weight = tensors[name].clone()
    weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(9.0))
    later = next(name for name in tensors if name.endswith("encoder.layers.2.mlp.fc1.weight"))
    return {**tensors, name: weight, later: tensors[later] + 1}


def shorter(tensors: Tensors) -> Tensors:
    return {name: one for name, one in tensors.items() if not name.endswith("post_layernorm.weight")}


def longer(tensors: Tensors) -> Tensors:
    name = next(name for name in tensors if name.endswith("encoder.layers.2.mlp.fc1.bias"))
    return {**tensors, name.replace("layers.2", "layers.3"): torch.ones(1)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (one_bit, r"tensor encoder\.layers\.1\.mlp\.fc1\.weight differs"),
        (shorter, r"tensor post_layernorm\.weight is missing"),
        (longer, r"tensor encoder\.layers\.3\.mlp\.fc1\.bias is only in the other"),
    ],
)
def test_the_first_difference_is_named(
    subject: Path, other: Path, change: Callable[[Tensors], Tensors], words: str
) -> None:
    rewrite(other, change)
    with pytest.raises(SubjectMismatch, match=rf"other does not have the vision tower of \S*small: {words}"):
        require_same_tower(subject, other)


def test_one_changed_weight_after_the_hook_point_is_named(subject: Path, other: Path) -> None:
    change_weight(other, "encoder.layers.2.mlp.fc1.weight")
    with pytest.raises(SubjectMismatch, match=r"tensor encoder\.layers\.2\.mlp\.fc1\.weight differs"):
        require_same_tower(subject, other)


def test_an_unrelated_tower_is_refused_with_the_way_out(subject: Path, tmp_path: Path) -> None:
    with pytest.raises(SubjectMismatch, match=r"tensor .* differs.*steers = false"):
        require_same_tower(subject, save_tiny_subject(tmp_path / "other", seed=3))


def test_another_patch_grid_shows_before_any_tensor_is_read(subject: Path, tmp_path: Path) -> None:
    finer = save_tiny_subject(tmp_path / "finer", patch_px=4)
    for check in (require_alike_towers, require_same_tower):
        with pytest.raises(SubjectMismatch, match=r"patch_size is 8 there and 4 here"):
            check(subject, finer)


@pytest.mark.parametrize(("field", "value"), [("num_attention_heads", 2), ("layer_norm_eps", 1e-3)])
def test_equal_weights_that_compute_otherwise_are_refused(subject: Path, other: Path, field: str, value: Any) -> None:
    edit(other / "config.json", lambda config: config["vision_config"].update({field: value}))
    for check in (require_alike_towers, require_same_tower):
        with pytest.raises(SubjectMismatch, match=rf"{field} is \S+ there and {value} here"):
            check(subject, other)


def test_windows_of_attention_that_no_weight_tells_are_compared(tmp_path: Path) -> None:
    first = ALL_FAMILIES["qwen2_5_vl"](tmp_path / "first")
    second = Path(shutil.copytree(first, tmp_path / "second"))
    edit(second / "config.json", lambda config: config["vision_config"].update(fullatt_block_indexes=[0]))
    with pytest.raises(SubjectMismatch, match=r"fullatt_block_indexes is .* there and \[0\] here"):
        require_same_tower(first, second)


def test_a_processor_that_makes_other_pixels_is_refused(subject: Path, other: Path) -> None:
    edit(other / "processor_config.json", lambda config: config["image_processor"].update(image_mean=[0.4, 0.5, 0.5]))
    with pytest.raises(SubjectMismatch, match="the processors make other pixels"):
        require_same_tower(subject, other)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_another_range_of_the_processor_is_another_grid(tmp_path: Path) -> None:
    """Where the size of a picture is the processor's to choose, equal pixels of one picture say nothing about it."""
    first = ALL_FAMILIES["qwen2_5_vl"](tmp_path / "first")
    second = Path(shutil.copytree(first, tmp_path / "second"))
    file = next(one for one in (second / "processor_config.json", second / "preprocessor_config.json") if one.exists())
    limits = {"shortest_edge": 16 * 16, "longest_edge": 16 * 16}
    edit(file, lambda config: config.get("image_processor", config).update(size=limits))
    with pytest.raises(SubjectMismatch, match=r"grid is .*rows=4.* there and .*rows=2.* here"):
        require_same_tower(first, second)


def test_an_image_encoder_alone_can_share_its_tower_with_a_model_around_it(
    subject: Path, other: Path, tmp_path: Path
) -> None:
    siglip, dinov2 = (TOWERS[family](tmp_path / family) for family in ("siglip", "dinov2"))
    with pytest.raises(SubjectMismatch, match=r"small does not have the vision tower of \S*siglip: tensor .* differs"):
        require_same_tower(siglip, subject)
    with pytest.raises(SubjectMismatch, match=r"model_type is dinov2 there and siglip_vision_model here"):
        require_alike_towers(dinov2, subject)
    own = own_of(siglip)
    rewrite(other, lambda tensors: {name: own.get(name.removeprefix("model."), one) for name, one in tensors.items()})
    with pytest.raises(SubjectMismatch, match="the processors make other pixels"):
        require_same_tower(siglip, other)
    made = json.loads((siglip / "preprocessor_config.json").read_text(encoding="utf-8"))
    same = {name: made[name] for name in ("resample", "image_mean", "image_std")}
    edit(other / "processor_config.json", lambda config: config["image_processor"].update(same))
    require_same_tower(siglip, other)


def own_of(siglip: Path) -> Tensors:
    """The weights of an image encoder under the names that they have in a model around it."""
    weights = load_file(siglip / "model.safetensors")
    return {f"vision_tower.{name.removeprefix('vision_model.')}": one for name, one in weights.items()}


def without_tower(tensors: Tensors) -> Tensors:
    return {name: one for name, one in tensors.items() if "vision_tower" not in name}


def test_files_that_cannot_be_compared_are_named(subject: Path, other: Path) -> None:
    rewrite(other, without_tower)
    with pytest.raises(SubjectError, match="other holds no vision tower"):
        require_same_tower(subject, other)
    (other / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(SubjectError, match="cannot be compared"):
        require_same_tower(subject, other)
