"""What every family keeps as a vision tower, on its own shrunken checkpoint: its patches lie where the pixels are, and
it is cut exactly where the untouched transformers model has the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from backend.hooks import capture_hook_point
from backend.models import answers_in_words, families, load_tower
from backend.models.base import SubjectModel
from backend.types import HookPoint
from tests.builders_families import ALL_FAMILIES, BUILDERS, LAST, MIDDLE, TOWERS, inputs_of
from tests.builders_subject import noise_images


@pytest.fixture(scope="module", params=sorted(ALL_FAMILIES))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory) -> Path:
    return ALL_FAMILIES[family](tmp_path_factory.mktemp(family))


@pytest.fixture(scope="module")
def tower(folder) -> Any:
    return load_tower(folder, MIDDLE)


@pytest.fixture(scope="module", params=sorted(TOWERS))
def encoder(request, tmp_path_factory) -> Any:
    """A tower that stands alone. (One inside a vision-language model is compared through its image embeddings.)"""
    return load_tower(TOWERS[request.param](tmp_path_factory.mktemp("encoder")), MIDDLE)


def test_every_family_is_held_to_this_contract():
    assert sorted(ALL_FAMILIES) == families()


def test_what_answers_is_a_subject_and_config_json_tells(family, folder, tower):
    assert isinstance(tower, SubjectModel) == answers_in_words(folder) == (family in BUILDERS)
    assert (tower.card.family, tower.card.name) == (family, folder.name)
    assert (tower.d_model, tower.image_px, len(tower.fingerprint)) == (32, 32, 64)
    state = tower.states(noise_images(3))
    assert state.patches.shape == (3, tower.grid.n_patches, tower.d_model) == (3, 16, 32)
    assert state.prefix_tokens.shape == (3, tower.grid.n_prefix_tokens, tower.d_model)
    assert state.patches.dtype == state.prefix_tokens.dtype == torch.float32


# ---------------------------------------------------------------------------------------------------- the patch grid


def with_square(row: int, col: int, *, patch_px: tuple[int, int] = (8, 8)) -> Image.Image:
    """A black picture of 4x4 patches, one of which is red."""
    height, width = patch_px
    image = Image.new("RGB", (4 * width, 4 * height))
    corner = (col * width, row * height)
    ImageDraw.Draw(image).rectangle((corner, (corner[0] + width - 1, corner[1] + height - 1)), fill=(255, 0, 0))
    return image


def test_a_red_square_lights_its_own_patch_and_no_other(tower):
    places = [(row, col) for row in range(4) for col in range(4)]
    pixels = tower.preprocess([Image.new("RGB", (32, 32)), *(with_square(row, col) for row, col in places)])
    with inputs_of(tower.cut_at(HookPoint(layer=0))) as seen:
        tower.to_hook(pixels)
    changed = (seen[0][1:] != seen[0][0]).any(dim=-1)
    for (row, col), tokens in zip(places, changed, strict=True):
        assert tokens.nonzero().flatten().tolist() == [tower.grid.token(row, col)]


@pytest.mark.parametrize("patch_px", [(8, 8), (24, 16), (16, 48)])
def test_the_patch_under_the_square_changes_most_after_the_first_block(tower, patch_px):
    first = tower.cut_at(HookPoint(layer=0))
    height, width = patch_px
    plain = first.residuals([Image.new("RGB", (4 * width, 4 * height))])
    squares = [with_square(row, col, patch_px=patch_px) for row in range(4) for col in range(4)]
    change = (first.residuals(squares) - plain).norm(dim=-1)
    assert change.argmax(dim=1).tolist() == list(range(16))


def test_a_picture_is_read_whole(encoder):
    """What a centre crop would cut off, of a wide and of a tall picture, counts."""
    assert "without a centre crop" in encoder.card.note
    for size, strip in (((96, 32), (0, 0, 15, 31)), ((32, 96), (0, 80, 31, 95))):
        marked = Image.new("RGB", size)
        ImageDraw.Draw(marked).rectangle(strip, fill=(255, 0, 0))
        plain, seen = encoder.preprocess([Image.new("RGB", size), marked])
        assert not torch.equal(plain, seen)


# ------------------------------------------------------------------------------------------------------------ the cut


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_cut_is_the_hidden_state_of_the_untouched_model(encoder, layer):
    pixels = encoder.preprocess(noise_images(3))
    state = encoder.cut_at(HookPoint(layer=layer)).state_at_hook(pixels)
    with torch.no_grad():
        expected = encoder.model(pixels, output_hidden_states=True).hidden_states[layer + 1]
    assert torch.equal(torch.cat([state.prefix_tokens, state.patches], dim=1), expected)


def test_no_block_after_the_hook_point_runs(tower):
    with capture_hook_point(tower.cut_at(LAST).hook_module, expected_firings=0), capture_hook_point(tower.hook_module):
        tower.to_hook(tower.preprocess(noise_images(1)))


def test_an_image_does_not_depend_on_its_batch(tower):
    images = noise_images(6)
    together = tower.residuals(images, batch_size=4)
    for at, image in enumerate(images):
        torch.testing.assert_close(tower.residuals([image])[0], together[at], atol=1e-5, rtol=0)
    assert tower.residuals([]).shape == (0, 16, 32)


def test_bfloat16_computes_inside_and_leaves_float32_that_is_close(tower, folder):
    half: Any = load_tower(folder, MIDDLE, dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    images = noise_images(4)
    exact, close = tower.residuals(images), half.residuals(images)
    assert close.dtype == torch.float32 and not torch.equal(close, exact)
    assert ((close - exact).norm(dim=-1) / exact.norm(dim=-1)).max() < 0.05
