"""What is InternVL's own: a CLS token that passes the cut unedited, one tile for an image, pixel shuffle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from backend.errors import SubjectError
from backend.hooks import capture_hook_point, edit_hook_point
from backend.models import load_subject
from backend.models.internvl import InternVLSubject
from backend.steering import SteeringSession
from backend.types import HookPoint, Intervention, PatchScope
from precompute.shrunken.internvl import build
from tests.builders_subject import noise_images, random_sae

LAST = HookPoint(layer=2)
PROMPT = "What is shown in the image?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("internvl"))


@pytest.fixture(scope="module")
def subject(folder) -> InternVLSubject:
    subject = load_subject(folder, HookPoint(layer=1))
    assert isinstance(subject, InternVLSubject)
    return subject


# -------------------------------------------------------------------------------------------------------------- CLS


def test_cls_is_no_patch(subject):
    assert (subject.grid.rows, subject.grid.cols, subject.grid.n_prefix_tokens) == (4, 4, 1)
    assert subject.grid.token(0, 0) == 1
    pixels = subject.preprocess(noise_images(2))
    with torch.no_grad(), capture_hook_point(subject.hook_module) as record:
        subject.model.get_image_features(pixels)
    state = subject.state_at_hook(pixels)
    assert record.captured[0].shape == (2, 17, 32)
    assert torch.equal(state.prefix_tokens, record.captured[0][:, :1])
    assert torch.equal(state.patches, record.captured[0][:, 1:])


def test_later_blocks_read_cls_so_it_must_pass_the_cut(subject):
    state = subject.states(noise_images(2))
    with pytest.raises(ValueError, match="carries 1 prefix tokens past the hook point, not 0"):
        subject.from_hook(state.patches)
    swapped = subject.from_hook(state.patches, state.prefix_tokens.flip(0))
    assert not torch.allclose(swapped, subject.from_hook(state.patches, state.prefix_tokens), atol=1e-3)


def test_each_image_of_a_batch_keeps_its_own_cls(subject):
    images = noise_images(3)
    state = subject.states(images, batch_size=2)
    for at, image in enumerate(images):
        torch.testing.assert_close(state.prefix_tokens[at], subject.states([image]).prefix_tokens[0])
    assert not torch.allclose(state.prefix_tokens[0], state.prefix_tokens[1], atol=1e-3)


def test_a_hook_told_of_cls_edits_patches_only(subject):
    pixels = subject.preprocess(noise_images(1))
    following = subject.cut_at(LAST).hook_module
    seen: list[torch.Tensor] = []
    handle = following.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    with torch.no_grad():
        subject.model.get_image_features(pixels)
        with edit_hook_point(subject.hook_module, lambda residual: residual + 1.0, n_prefix_tokens=1):
            subject.model.get_image_features(pixels)
    handle.remove()
    assert torch.equal(seen[0][:, 0], seen[1][:, 0])
    assert torch.equal(seen[0][:, 1:] + 1.0, seen[1][:, 1:])


def test_a_steered_patch_is_the_patch_where_the_feature_fires(subject):
    session = SteeringSession(subject, random_sae(layer=1))
    image = noise_images(1, seed=4)[0]
    active = session.features(image).dense() > 0
    feature = int(((active.sum(dim=0) > 0) & (active.sum(dim=0) < 16)).nonzero()[0])
    step = Intervention(feature=feature, strength=9.0, scope=PatchScope.ACTIVE)
    seen: list[torch.Tensor] = []
    handle = subject.cut_at(LAST).hook_module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    session.embeddings([[], [step]], image)
    handle.remove()
    edited = (seen[0][1] != seen[0][0]).any(dim=-1)
    # One token before the patches: what an index of patches must not be mistaken for.
    assert edited[1:].tolist() == active[:, feature].tolist()
    assert not edited[0]


# ------------------------------------------------------------------------------------------ one tile, pixel shuffle


def test_a_wide_picture_is_one_tile_though_its_processor_would_cut_it(subject):
    wide = noise_images(1, side_px=128)[0].resize((256, 64))
    cut: Any = subject.processor.image_processor(images=[wide], return_tensors="pt")
    assert len(cut["pixel_values"]) > 1, "the processor must tile for this test to mean anything"
    pixels = subject.preprocess([wide, wide.convert("L")])
    assert pixels.shape == (2, 3, 32, 32)
    resized = subject.preprocess([wide.resize((32, 32), Image.Resampling.BICUBIC)])
    torch.testing.assert_close(pixels[:1], resized, atol=0.02, rtol=0)


def test_a_prompt_of_wide_pictures_is_that_of_transformers_with_tiling_off(subject):
    wide = [image.resize((96, 32)) for image in noise_images(4, side_px=96)]
    state = subject.states(wide)
    embeddings = subject.from_hook(state.patches, state.prefix_tokens).unflatten(0, (2, 2))
    ids = subject.generate_ids(embeddings, PROMPT, max_new_tokens=8).tolist()
    for row in range(2):
        content: list[dict[str, object]] = [{"type": "image", "image": one} for one in wide[2 * row : 2 * row + 2]]
        inputs = subject.processor.apply_chat_template(
            [{"role": "user", "content": [*content, {"type": "text", "text": PROMPT}]}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"images_kwargs": {"crop_to_patches": False}},
        )
        output = subject.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        expected = output[0, inputs["input_ids"].shape[1] :].tolist()
        assert ids[row][: len(expected)] == expected


def test_white_pixels_are_normalised_as_the_processor_says(subject):
    pixels = subject.preprocess([subject.blank_image()])[0].flatten(1)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(pixels, expected[:, None].expand_as(pixels), atol=1e-4, rtol=0)


def test_pixel_shuffle_folds_each_square_of_four_patches_into_one_token(subject):
    last = subject.cut_at(LAST)
    state = last.states(noise_images(1))
    whole = last.from_hook(state.patches, state.prefix_tokens)[0]
    for patch in range(16):
        residual = state.patches.clone()
        residual[0, patch] += 1.0
        changed = (last.from_hook(residual, state.prefix_tokens)[0] != whole).any(dim=-1)
        square = (patch // 4 // 2) * 2 + patch % 4 // 2
        assert changed.nonzero().flatten().tolist() == [square]


# ------------------------------------------------------------------------------------------------ stops and refusals


def test_an_answer_ends_at_the_end_of_its_turn(subject):
    tokenizer = subject.processor.tokenizer
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in subject._stop_ids
    assert tokenizer.unk_token_id not in subject._stop_ids


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"vision_feature_layer": -2}, "only layer -1"),
        ({"vision_feature_select_strategy": "full"}, "projects layer -1 of its tower by the strategy 'full'"),
    ],
)
def test_a_projection_that_could_not_be_run_on_is_refused(folder, tmp_path, setting, message):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | setting))
    with pytest.raises(SubjectError, match=message):
        load_subject(copy, HookPoint(layer=1))


def test_a_checkpoint_that_needs_code_from_its_repository_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl_chat"}))
    with pytest.raises(SubjectError, match=r"no adapter for models of type 'internvl_chat'.*internvl"):
        load_subject(tmp_path, HookPoint(layer=1))
