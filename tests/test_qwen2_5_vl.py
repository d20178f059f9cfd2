"""Qwen2.5-VL alone: patches leave row-major though the tower works by windows, pictures of any shape become one square,
and positions in three directions depend on no earlier call.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from backend.errors import SubjectError
from backend.hooks import capture_hook_point, edit_hook_point
from backend.models import load_subject
from backend.models.qwen2_5_vl import Qwen25VLSubject
from backend.types import HookPoint
from precompute.shrunken.qwen2_5_vl import build
from tests.builders_families import LAST, MIDDLE, PROMPT, embeddings_of, inputs_of, untouched_embeddings
from tests.builders_subject import noise_images, reference_ids

SIDE = 8
"""Patches in a row of the subject with four windows."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Patches of 4 px: 8x8 of them, 4x4 merged tokens, four windows of 2x2 tokens."""
    return build(tmp_path_factory.mktemp("qwen"), patch_px=4)


@pytest.fixture(scope="module")
def subject(folder) -> Any:
    subject = load_subject(folder, MIDDLE)
    assert isinstance(subject, Qwen25VLSubject)
    return subject


# --------------------------------------------------------------------------------------------------- order and windows


def test_the_tower_keeps_another_order_in_which_windows_and_squares_are_together(subject):
    order = subject.patch_order.tolist()
    assert sorted(order) == list(range(SIDE**2))
    by_square = [row * SIDE + col for row in (0, 1) for col in (0, 1)]
    assert order[:4] == by_square
    assert order[4:8] == [at + 2 for at in by_square], "the next square of the same window"
    assert order[8:12] == [at + 2 * SIDE for at in by_square], "and not the third of the row, which is another window's"


@pytest.mark.parametrize("place", [(0, 0), (0, 7), (1, 2), (2, 5), (3, 3), (5, 1), (6, 4), (7, 6)])
def test_a_red_square_lights_its_own_patch(subject, place):
    row, col = place
    image = Image.new("RGB", (32, 32))
    ImageDraw.Draw(image).rectangle((4 * col, 4 * row, 4 * col + 3, 4 * row + 3), fill=(255, 0, 0))
    first = subject.cut_at(HookPoint(layer=0))
    pixels = subject.preprocess([Image.new("RGB", (32, 32)), image])
    with inputs_of(first) as seen:
        after = first.to_hook(pixels)
    assert (seen[0][0] != seen[0][1]).any(dim=-1).nonzero().flatten().tolist() == [row * SIDE + col]
    # The first block attends within the window of 4x4 patches, and changes the planted one most.
    change = (after[1] - after[0]).norm(dim=-1).reshape(SIDE, SIDE)
    assert int(change.argmax()) == row * SIDE + col
    lit = {(int(r) // 4, int(c) // 4) for r, c in (change > 1e-6).nonzero()}
    assert lit == {(row // 4, col // 4)}


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_cut_and_continued_equals_the_untouched_model(subject, layer):
    cut, images = subject.cut_at(HookPoint(layer=layer)), noise_images(3)
    with capture_hook_point(cut.hook_module, patch_order=cut.patch_order) as record:
        whole = untouched_embeddings(cut, images)
    assert torch.equal(record.captured[0], cut.residuals(images))
    torch.testing.assert_close(embeddings_of(cut, images)[:, 0], whole, atol=1e-5, rtol=0)


def test_a_steered_patch_is_the_one_that_a_hook_steers(subject):
    image, patch = noise_images(1, seed=8), 2 * SIDE + 5
    residual = subject.residuals(image)
    steered = residual.clone()
    steered[:, patch] += 3.0

    def by_hand(base: torch.Tensor) -> torch.Tensor:
        return base + 3.0 * (torch.arange(SIDE**2) == patch)[:, None]

    with edit_hook_point(subject.hook_module, by_hand, patch_order=subject.patch_order):
        expected = untouched_embeddings(subject, image)
    torch.testing.assert_close(subject.from_hook(steered), expected, atol=1e-5, rtol=0)
    with inputs_of(subject.cut_at(LAST)) as seen:
        subject.from_hook(torch.cat([residual, steered]))
    assert (seen[0][0] != seen[0][1]).any(dim=-1).nonzero().flatten().tolist() == [patch]


# ------------------------------------------------------------------------------------------------------------- pictures


def test_pixels_are_those_of_the_models_own_processor(subject):
    images = noise_images(2, seed=3, side_px=50)
    own = subject.processor.image_processor(images=images, return_tensors="pt")
    assert own["image_grid_thw"].tolist() == [[1, SIDE, SIDE]] * 2
    whole = subject.model.get_image_features(**own).pooler_output
    torch.testing.assert_close(embeddings_of(subject, images)[:, 0], torch.stack(list(whole)), atol=1e-5, rtol=0)


def test_a_picture_of_any_shape_is_squeezed_into_the_square(subject):
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 90, 3), dtype=np.uint8))
    assert subject.preprocess([wide, wide.rotate(90, expand=True)]).shape == (2, 3, 32, 32)
    square = wide.resize((32, 32), Image.Resampling.BICUBIC)
    assert torch.equal(subject.preprocess([wide]), subject.preprocess([square]))


@pytest.mark.parametrize(
    ("least", "most", "side"), [(56 * 56, 12_845_056, 448), (16, 300 * 300, 296), (600 * 600, 10**7, 600)]
)
def test_the_square_is_448_px_or_the_nearest_that_the_processor_makes(folder, least, most, side, tmp_path):
    subject: Any = load_subject(with_range(folder, tmp_path / "copy", least, most), MIDDLE)
    assert subject.image_px == side
    assert subject.grid.rows == side // 4 and subject.n_image_tokens == (side // 8) ** 2
    picture = noise_images(1, side_px=side)
    pixels = subject.preprocess(picture)
    own = subject.processor.image_processor(images=picture, return_tensors="pt")
    assert own["image_grid_thw"].tolist() == [[1, side // 4, side // 4]]
    assert pixels.shape == (1, 3, side, side)


def test_a_range_that_holds_no_square_is_refused(folder, tmp_path):
    with pytest.raises(SubjectError, match=r"no range of pixels that holds a square of 8 px .*another model"):
        load_subject(with_range(folder, tmp_path / "copy", 1, 49), MIDDLE)


def with_range(folder: Path, copy: Path, least: int, most: int) -> Path:
    """The same checkpoint with another range of pixels in its processor's files."""
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    settings = json.loads((copy / "processor_config.json").read_text())
    settings["image_processor"]["size"] = {"shortest_edge": least, "longest_edge": most}
    (copy / "processor_config.json").write_text(json.dumps(settings))
    return copy


# ------------------------------------------------------------------------------------------------------------ positions


def test_answers_do_not_depend_on_what_the_model_was_shown_before(subject):
    images = noise_images(4, seed=7)
    one, three = embeddings_of(subject, images[:1]), embeddings_of(subject, images[:3], 3)
    before = subject.generate(one, PROMPT, max_new_tokens=6)
    subject.generate(three, PROMPT, max_new_tokens=6)
    reference_ids(subject, images, PROMPT, max_new_tokens=2)  # transformers keeps the step of these four images
    assert subject.model.model.rope_deltas is not None
    assert subject.generate(one, PROMPT, max_new_tokens=6) == before


def test_words_go_on_after_the_largest_position_of_the_images(subject):
    prepared = subject._prepare(PROMPT, 2)
    positions = prepared.positions
    side = SIDE // 2
    start = int(positions[0, 0, prepared.image_positions[0]])
    assert positions[:, 0, prepared.image_positions[: side + 1]].tolist() == [
        [start] * (side + 1),
        [start] * side + [start + 1],
        [*range(start, start + side), start],
    ], "one moment, row by row, column by column"
    n = positions.shape[2]
    assert int(positions.max()) < n - 1, "an image takes as many positions as it has rows"
    (later,) = prepared.placed(3, first=n, end=n + 2).values()
    assert later.shape == (3, 3, 2)
    assert later[:, 1].tolist() == [[int(positions.max()) + 1, int(positions.max()) + 2]] * 3
