"""Two checkpoints with one vision tower are told from two that only look alike, from their files alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backend.errors import SubjectError, SubjectMismatch
from backend.models import load_subject, require_same_tower_files
from backend.types import HookPoint
from tests.builders_sizes import rewrite, save_other_size
from tests.builders_subject import noise_images, save_tiny_subject

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_subject(tmp_path_factory.mktemp("towers") / "small")


@pytest.fixture(scope="module")
def larger(folder: Path) -> Path:
    return save_other_size(folder.parent / "large", folder)


@pytest.fixture
def copy(larger: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(larger, tmp_path / "copy"))


def test_another_size_around_the_same_tower_passes_and_reads_images_alike(folder: Path, larger: Path) -> None:
    require_same_tower_files(folder, larger)
    require_same_tower_files(larger, folder)
    small, large = (load_subject(one, HookPoint(layer=1)) for one in (folder, larger))
    assert (small.d_text, large.d_text) == (32, 64)
    assert torch.equal(small.residuals(noise_images(2)), large.residuals(noise_images(2)))


def released(tensors: Tensors) -> Tensors:
    """Names as the repositories of Gemma 3 have them."""
    return {name.replace("vision_tower.", "vision_tower.vision_model."): one for name, one in tensors.items()}


def with_head(tensors: Tensors) -> Tensors:
    """A pooling head that no patch passes."""
    return {**tensors, "vision_tower.head.probe": torch.ones(1, 1, 32)}


def in_float32(tensors: Tensors) -> Tensors:
    return {name: one.float() for name, one in tensors.items()}


@pytest.mark.parametrize("change", [released, with_head, in_float32])
def test_names_dtypes_and_what_is_behind_the_patches_do_not_matter(
    folder: Path, copy: Path, change: Callable[[Tensors], Tensors]
) -> None:
    rewrite(copy, change)
    require_same_tower_files(folder, copy)


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
    folder: Path, copy: Path, change: Callable[[Tensors], Tensors], words: str
) -> None:
    rewrite(copy, change)
    with pytest.raises(SubjectMismatch, match=words):
        require_same_tower_files(folder, copy)


def test_equal_weights_that_compute_otherwise_are_refused(folder: Path, copy: Path) -> None:
    edit(copy / "config.json", lambda config: config["vision_config"].update(layer_norm_eps=1e-3))
    with pytest.raises(SubjectMismatch, match=r"layer_norm_eps is 1e-06 there and 0\.001 here"):
        require_same_tower_files(folder, copy)


def test_a_processor_that_makes_other_pixels_is_refused(folder: Path, copy: Path) -> None:
    edit(copy / "processor_config.json", lambda config: config["image_processor"].update(image_mean=[0.4, 0.5, 0.5]))
    with pytest.raises(SubjectMismatch, match="image processors make other pixels"):
        require_same_tower_files(folder, copy)


def edit(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def without_tower(tensors: Tensors) -> Tensors:
    return {name: one for name, one in tensors.items() if "vision_tower" not in name}


def test_files_that_cannot_be_compared_are_named(folder: Path, copy: Path) -> None:
    rewrite(copy, without_tower)
    with pytest.raises(SubjectError, match="copy holds no vision tower"):
        require_same_tower_files(folder, copy)
    (copy / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(SubjectError, match="cannot be compared"):
        require_same_tower_files(folder, copy)
