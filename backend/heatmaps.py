"""An activation grid laid over its image: the masked image and the heat-mapped image.

Both are what an explainer model sees in the TOP_K methods and what a person sees in the explorer, so they are pure
functions of a picture and a grid, with no tensors and no files. The grid is [row col], row-major like the patches.

Three deliberate differences from the code of arXiv 2603.22593, whose prompt speaks of a "green heatmap":

* the authors blend matplotlib's viridis, whose low end is purple, so most of such an image is purple, not green;
  here every colour of the ramp is a green, from almost black to pale, with lightness rising evenly (OKLab);
* the authors stretch the contrast of every image to the full range first; here the image stays as it is;
* a grid without any spread shows heat only where it is positive, instead of dividing by zero.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.errors import ActivationsNotFinite

HEATMAP_ALPHA = 0.5
"""Share of the ramp's colour in a heat-mapped image; the rest is the image itself."""

RAMP_LIGHTNESS = (0.16, 0.94)
RAMP_CHROMA = 0.19
RAMP_HUE_DEGREES = 145.0


def masked_image(image: Image.Image, grid: NDArray[np.floating]) -> Image.Image:
    """The image where the feature is active, black elsewhere.

    A patch is shown when its activation is above zero; the mask is scaled with nearest-neighbour sampling, so
    patches stay sharp rectangles.

    Args:
        image: picture of any size; converted to RGB.
        grid: activations [row col], finite.

    Returns:
        RGB image of the same size.

    Raises:
        ActivationsNotFinite: the grid holds NaN or infinity.
        ValueError: the grid is not two-dimensional or is empty.
    """
    values = _checked(grid)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    mask = Image.fromarray((values > 0).astype(np.uint8) * 255).resize(rgb.size, Image.Resampling.NEAREST)
    return Image.composite(rgb, Image.new("RGB", rgb.size), mask)


def heatmap_image(image: Image.Image, grid: NDArray[np.floating], alpha: float = HEATMAP_ALPHA) -> Image.Image:
    """The image under a green heatmap: pale green where the feature is most active, almost black green where least.

    The grid is scaled to 0..1 per image (its own minimum and maximum), enlarged with bicubic sampling, coloured, and
    blended over the whole image.

    Args:
        image: picture of any size; converted to RGB.
        grid: activations [row col], finite.
        alpha: share of the heatmap's colour, 0 (image only) to 1 (heatmap only).

    Returns:
        RGB image of the same size.

    Raises:
        ActivationsNotFinite: the grid holds NaN or infinity.
        ValueError: the grid is not two-dimensional or is empty, or alpha lies outside 0..1.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"heatmap alpha must lie between 0 and 1, not {alpha}")
    values = _checked(grid)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    heat = Image.fromarray(_to_bytes(values)).resize(rgb.size, Image.Resampling.BICUBIC)
    heat.putpalette(_ramp_bytes())
    return Image.blend(rgb, heat.convert("RGB"), alpha)


def _checked(grid: NDArray[np.floating]) -> NDArray[np.float32]:
    values = np.asarray(grid, dtype=np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"an activation grid has the shape [row col], not {values.shape}")
    if not np.isfinite(values).all():
        raise ActivationsNotFinite("the activation grid holds NaN or infinity: harvest this feature again")
    return values


def _to_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Min-max scaling to 0..255; a flat grid is 255 where positive and 0 elsewhere."""
    low, high = float(values.min()), float(values.max())
    if high == low:
        return (values > 0).astype(np.uint8) * 255
    return np.rint((values - low) * (255.0 / (high - low))).astype(np.uint8)


@cache
def heat_ramp() -> NDArray[np.uint8]:
    """The 256 colours of the heatmap, coldest first: [level channel], sRGB 0..255.

    Lightness rises linearly in OKLab at one hue; chroma is largest in the middle and falls where sRGB has no room.
    """
    level = np.linspace(0.0, 1.0, 256)
    lightness = RAMP_LIGHTNESS[0] + (RAMP_LIGHTNESS[1] - RAMP_LIGHTNESS[0]) * level
    chroma = RAMP_CHROMA * np.sqrt(np.sin(np.pi * (0.06 + 0.84 * level)))
    hue = np.deg2rad(RAMP_HUE_DEGREES)
    linear = _oklab_to_linear(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
    linear = np.clip(linear, 0.0, 1.0)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(srgb * 255.0).astype(np.uint8)


def _oklab_to_linear(
    lightness: NDArray[np.float64], green_red: NDArray[np.float64], blue_yellow: NDArray[np.float64]
) -> NDArray[np.float64]:
    """OKLab to linear sRGB [level channel], by the published matrices (B. Ottosson, 2020)."""
    long = (lightness + 0.3963377774 * green_red + 0.2158037573 * blue_yellow) ** 3
    medium = (lightness - 0.1055613458 * green_red - 0.0638541728 * blue_yellow) ** 3
    short = (lightness - 0.0894841775 * green_red - 1.2914855480 * blue_yellow) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    return np.stack([red, green, blue], axis=-1)


@cache
def _ramp_bytes() -> bytes:
    return heat_ramp().tobytes()
