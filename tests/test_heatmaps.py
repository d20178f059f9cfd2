"""Masked and heat-mapped images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from backend.errors import ActivationsNotFinite
from backend.heatmaps import heat_ramp, heatmap_image, masked_image

GRIDS = hnp.arrays(np.float32, (3, 5), elements=st.floats(0, 100, width=32))


def picture(width: int = 40, height: int = 24, seed: int = 0) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(1, 256, (height, width, 3), dtype=np.uint8))


@given(grid=GRIDS)
def test_a_mask_keeps_active_patches_exactly_and_blackens_the_rest(grid):
    image = picture()
    shown = np.asarray(masked_image(image, grid))
    kept = np.asarray(np.kron(grid > 0, np.ones((8, 8), dtype=bool)))
    assert np.array_equal(shown[kept], np.asarray(image)[kept])
    assert (shown[~kept] == 0).all()


def test_rows_of_the_grid_run_down_the_image():
    grid = np.zeros((3, 5), dtype=np.float32)
    grid[2, 0] = 1
    shown = np.asarray(np.asarray(masked_image(picture(), grid)).any(axis=2))
    assert shown[16:, :8].all()
    assert shown.sum() == 64


@given(grid=GRIDS.filter(lambda grid: grid.max() - grid.min() > 1), scale=st.sampled_from([0.25, 2.0, 8.0]))
def test_a_heatmap_does_not_depend_on_the_scale_of_the_activations(grid, scale):
    one, other = heatmap_image(picture(), grid), heatmap_image(picture(), grid * scale)
    assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_the_most_active_patch_is_lightest_and_the_least_active_darkest():
    grid = np.tile(np.arange(5, dtype=np.float32), (3, 1))
    heat = np.asarray(heatmap_image(Image.new("RGB", (40, 24)), grid, alpha=1.0))
    columns = heat.mean(axis=(0, 2))
    assert (np.diff(columns) >= -1).all()
    assert columns[-1] > columns[0] + 100


def test_alpha_blends_between_the_image_and_the_ramp():
    image, grid = picture(), np.eye(3, 5, dtype=np.float32)
    assert heatmap_image(image, grid, alpha=0.0).tobytes() == image.tobytes()
    other = heatmap_image(picture(seed=1), grid, alpha=1.0)
    assert heatmap_image(image, grid, alpha=1.0).tobytes() == other.tobytes()
    half = np.asarray(heatmap_image(image, grid, alpha=0.5), dtype=float)
    mean = (np.asarray(image, dtype=float) + np.asarray(heatmap_image(image, grid, alpha=1.0), dtype=float)) / 2
    assert np.abs(half - mean).max() <= 1


@pytest.mark.parametrize(("value", "level"), [(0.0, 0), (3.0, 255)])
def test_a_flat_grid_is_hot_only_where_it_is_positive(value, level):
    heat = np.asarray(heatmap_image(picture(), np.full((3, 5), value, dtype=np.float32), alpha=1.0))
    assert (heat == heat_ramp()[level]).all()


def test_every_colour_of_the_ramp_is_green_and_lightness_rises():
    ramp = heat_ramp().astype(int)
    assert ramp.shape == (256, 3)
    assert (ramp[:, 1] > ramp[:, 0]).all()
    assert (ramp[:, 1] > ramp[:, 2]).all()
    assert (np.diff(ramp @ [0.2126, 0.7152, 0.0722]) >= 0).all()


def test_other_modes_and_sizes_are_accepted():
    grid = np.eye(4, dtype=np.float32)
    for mode in ("L", "RGBA", "P"):
        image = Image.new(mode, (33, 17))
        assert masked_image(image, grid).size == (33, 17)
        assert heatmap_image(image, grid).mode == "RGB"


@pytest.mark.parametrize("draw", [masked_image, heatmap_image])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_are_refused(draw, bad):
    grid = np.zeros((3, 5), dtype=np.float32)
    grid[1, 1] = bad
    with pytest.raises(ActivationsNotFinite, match="NaN or infinity"):
        draw(picture(), grid)


@pytest.mark.parametrize("draw", [masked_image, heatmap_image])
@pytest.mark.parametrize("shape", [(15,), (0, 4), (1, 3, 5)])
def test_a_grid_has_rows_and_columns(draw, shape):
    with pytest.raises(ValueError, match="row col"):
        draw(picture(), np.zeros(shape, dtype=np.float32))


def test_alpha_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        heatmap_image(picture(), np.eye(3, dtype=np.float32), alpha=1.5)
