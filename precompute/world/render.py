"""From a SceneSpec to a picture in which every pixel has an owner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageFilter
from scipy import ndimage

from backend.settings import load_settings
from precompute.world.concepts import CONCEPT_INDEX, CONCEPTS, N_OWNERS, OUTSIDE
from precompute.world.fills import PAINTERS, SIDE_PX
from precompute.world.scenes import OBJECT_IDS, PAPER, Placed, SceneSpec
from precompute.world.sprites import scaled_sprite

PATCH_PX = 8
GRID = SIDE_PX // PATCH_PX
BLUR_RADIUS_PX = 3.5
DARKNESS = 0.38
LUMA = np.array([[0.299], [0.587], [0.114]], np.float32)
DARK, MONOCHROME, BLURRED = (CONCEPT_INDEX[name] for name in ("dark", "monochrome", "blurred"))


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """A picture with the owner of every pixel and the pixels lying out of focus."""

    spec: SceneSpec
    pixels: UInt8[np.ndarray, "row col 3"]
    owners: UInt8[np.ndarray, "row col"]
    """Index into CONCEPTS, or OUTSIDE."""

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.pixels)

    def pixel_masks(self) -> Bool[np.ndarray, "concept row col"]:
        """One mask per concept of CONCEPTS, photometric factors included."""
        return masks_of(self.spec, self.owners)

    def patch_owners(self) -> UInt8[np.ndarray, "row col"]:
        """The owner of most pixels of each patch."""
        return patch_owners(self.owners)

    def patch_masks(self) -> Bool[np.ndarray, "concept row col"]:
        """Exact per-patch masks [96, 16, 16]."""
        return masks_of(self.spec, self.patch_owners())


@lru_cache(maxsize=1)
def sprite_sheet_path() -> Path:
    return load_settings().world_dir / "sprites" / "sheet.webp"


def render(spec: SceneSpec) -> Rendered:
    """Draw the scene: areas, defocus behind the objects, objects, then light and colour."""
    rng = np.random.default_rng(spec.seed)
    picture, owners = _paint_areas(spec, rng)
    if spec.blurred:
        soft = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(BLUR_RADIUS_PX)
        )
        picture = np.asarray(soft).astype(np.float32)
    sheet = sprite_sheet_path()
    for placed in spec.objects:
        _paste(picture, owners, placed, sheet)
    if spec.monochrome:
        picture = np.repeat(picture @ LUMA, 3, axis=-1)
    if spec.dark:
        picture = picture * DARKNESS
    return Rendered(spec, np.clip(picture, 0, 255).astype(np.uint8), owners)


def _paint_areas(spec: SceneSpec, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    picture = np.full((SIDE_PX, SIDE_PX, 3), 255.0, np.float32)
    owners = np.full((SIDE_PX, SIDE_PX), OUTSIDE, np.uint8)
    for area in spec.areas:
        if area.fill == PAPER:
            continue
        box = np.s_[area.top : area.bottom, area.left : area.right]
        picture[box] = PAINTERS[area.fill](rng)[box]
        owners[box] = CONCEPT_INDEX[area.fill]
    return picture, owners


@lru_cache(maxsize=4096)
def _silhouette(sheet: Path, index: int, size: int, flipped: bool) -> np.ndarray:
    """The object's outline with its holes filled, so that a bicycle owns the area it encloses."""
    _, opacity = scaled_sprite(sheet, index, size, flipped)
    solid = opacity[..., 0] > 0.5
    reach = max(1, size // 16)
    closed = ndimage.binary_closing(np.pad(solid, reach), iterations=reach)[reach:-reach, reach:-reach]
    return np.asarray(ndimage.binary_fill_holes(closed))


def _paste(picture: np.ndarray, owners: np.ndarray, placed: Placed, sheet: Path) -> None:
    index = OBJECT_IDS.index(placed.object)
    colours, opacity = scaled_sprite(sheet, index, placed.size, placed.flipped)
    outline = _silhouette(sheet, index, placed.size, placed.flipped)
    top, left = max(placed.top, 0), max(placed.left, 0)
    bottom, right = min(placed.top + placed.size, SIDE_PX), min(placed.left + placed.size, SIDE_PX)
    if top >= bottom or left >= right:
        return
    target = np.s_[top:bottom, left:right]
    source = np.s_[top - placed.top : bottom - placed.top, left - placed.left : right - placed.left]
    picture[target] += opacity[source] * (colours[source] - picture[target])
    owners[target][outline[source]] = index


def patch_owners(owners: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "row col"]:
    """The commonest owner in each 8 px patch; ties go to the lower index."""
    tiles = owners.reshape(GRID, PATCH_PX, GRID, PATCH_PX).transpose(0, 2, 1, 3).reshape(GRID * GRID, -1)
    slots = np.where(tiles == OUTSIDE, N_OWNERS, tiles).astype(np.int64)
    flat = slots + np.arange(GRID * GRID)[:, None] * (N_OWNERS + 1)
    counts = np.bincount(flat.ravel(), minlength=GRID * GRID * (N_OWNERS + 1)).reshape(GRID * GRID, -1)
    winner = counts.argmax(1)
    return np.where(winner == N_OWNERS, OUTSIDE, winner).astype(np.uint8).reshape(GRID, GRID)


def masks_of(spec: SceneSpec, owners: UInt8[np.ndarray, "row col"]) -> Bool[np.ndarray, "concept row col"]:
    """Masks of all concepts from an owner map of pixels or of patches."""
    masks = np.zeros((len(CONCEPTS), *owners.shape), bool)
    masks[:N_OWNERS] = owners[None] == np.arange(N_OWNERS, dtype=np.uint8)[:, None, None]
    shown = owners != OUTSIDE
    masks[DARK] = spec.dark & shown
    masks[MONOCHROME] = spec.monochrome & shown
    masks[BLURRED] = spec.blurred & shown & (owners >= len(OBJECT_IDS))
    return masks
