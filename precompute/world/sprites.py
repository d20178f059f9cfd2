"""The sprite sheet: 64 glyphs of Noto Color Emoji on one picture with alpha.

The font is needed only to rebuild the sheet (Debian: fonts-noto-color-emoji); the world itself reads the
shipped WebP. Licence notice: assets/world/sprites/LICENSE (SIL Open Font License 1.1).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from backend.errors import DatasetMissing
from precompute.world.concepts import OBJECTS

SPRITE_PX = 96
COLUMNS = 8
FONT_STRIKE_PX = 109
"""The only bitmap size Noto Color Emoji holds."""


def build_sheet(font_path: Path, sheet_path: Path) -> None:
    """Draw every object's glyph, trimmed and centred, into one lossless WebP."""
    font = ImageFont.truetype(str(font_path), FONT_STRIKE_PX)
    rows = -(-len(OBJECTS) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * SPRITE_PX, rows * SPRITE_PX))
    for index, concept in enumerate(OBJECTS):
        sprite = _glyph(font, concept.glyph)
        corner = (index % COLUMNS * SPRITE_PX, index // COLUMNS * SPRITE_PX)
        sheet.paste(sprite, corner)
    sheet_path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(sheet_path, lossless=True, quality=100, method=6)


def _glyph(font: ImageFont.FreeTypeFont, glyph: str) -> Image.Image:
    canvas = Image.new("RGBA", (180, 180))
    ImageDraw.Draw(canvas).text((20, 20), glyph, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise DatasetMissing(f"the font holds no glyph for {glyph!r}; use Noto Color Emoji")
    drawn = canvas.crop(box)
    scale = SPRITE_PX / max(drawn.size)
    size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
    sprite = Image.new("RGBA", (SPRITE_PX, SPRITE_PX))
    resized = drawn.resize(size, Image.Resampling.LANCZOS)
    sprite.paste(resized, ((SPRITE_PX - size[0]) // 2, (SPRITE_PX - size[1]) // 2))
    return sprite


@lru_cache(maxsize=4)
def load_sprites(sheet_path: Path) -> tuple[Image.Image, ...]:
    """The objects' sprites in the order of ``OBJECTS``, each RGBA ``SPRITE_PX`` square."""
    if not sheet_path.is_file():
        raise DatasetMissing(f"no sprite sheet at {sheet_path}; restore it with `git checkout -- assets/world/sprites`")
    sheet = Image.open(sheet_path).convert("RGBA")
    sprites = []
    for index in range(len(OBJECTS)):
        left, top = index % COLUMNS * SPRITE_PX, index // COLUMNS * SPRITE_PX
        sprites.append(sheet.crop((left, top, left + SPRITE_PX, top + SPRITE_PX)))
    return tuple(sprites)


@lru_cache(maxsize=4096)
def scaled_sprite(sheet_path: Path, index: int, size_px: int, flipped: bool) -> tuple[np.ndarray, np.ndarray]:
    """One sprite resized: colours uint8 [row col 3] and opacity float32 in [0, 1] [row col 1]."""
    sprite = load_sprites(sheet_path)[index].resize(
        (size_px, size_px), Image.Resampling.BOX if size_px < 48 else Image.Resampling.BILINEAR
    )
    pixels = np.asarray(sprite)
    if flipped:
        pixels = pixels[:, ::-1]
    return pixels[..., :3].astype(np.float32), (pixels[..., 3:].astype(np.float32) / 255.0)
