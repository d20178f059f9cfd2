"""Opening pictures from files and uploads, safely: size and type are checked before any pixel is decoded."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image, ImageOps

from backend.errors import ImageFormatUnknown, ImageTooLarge, ImageUnreadable

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 64_000_000
MIN_SIDE_PX = 2
DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, MemoryError),
    *(AttributeError, struct.error, zlib.error),
)
"""Errors Pillow's decoders are known to raise on damaged files; there is no common class."""


def open_image(
    source: bytes | Path, *, name: str | None = None, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode a picture to RGB, upright.

    EXIF orientation is applied; transparency is laid over white; CMYK, greyscale, palette and 16-bit pictures are
    converted; of an animation the first frame is taken. The format is told from the content, not from the name.

    Args:
        source: the file's bytes, or its path.
        name: what to call it in messages; the path or "the image" if left out.
        max_bytes: largest file accepted.
        max_pixels: largest width x height accepted, checked before decoding (decompression bombs).

    Raises:
        ImageTooLarge: more bytes or pixels than are accepted.
        ImageFormatUnknown: not a picture, or of another format.
        ImageUnreadable: missing, empty, truncated or damaged (and the parent of both others).
    """
    label = name or (str(source) if isinstance(source, Path) else "the image")
    data = _read(source, label, max_bytes)
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures (we set our own limit) and of odd metadata (we only need the pixels).
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_size(picture.size, label, max_pixels)
                picture.load()
                return _to_rgb(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"{label} has too many pixels: at most {max_pixels} are accepted") from error
    except Image.UnidentifiedImageError as error:
        raise ImageFormatUnknown(f"{label} is not a picture of an accepted format ({', '.join(FORMATS)})") from error
    except DAMAGE as error:
        raise ImageUnreadable(f"{label} is damaged or cut short: {error}") from error


def _read(source: bytes | Path, label: str, max_bytes: int) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        try:
            with source.open("rb") as stream:
                data = stream.read(max_bytes + 1)
        except OSError as error:
            raise ImageUnreadable(f"{label} cannot be read: {error.strerror or error}") from error
    if not data:
        raise ImageUnreadable(f"{label} is empty")
    if len(data) > max_bytes:
        raise ImageTooLarge(f"{label} is larger than {max_bytes / 2**20:.0f} MiB")
    return data


def _check_size(size: tuple[int, int], label: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLarge(f"{label} has {width} x {height} pixels: at most {max_pixels} in all are accepted")
    if min(width, height) < MIN_SIDE_PX:
        raise ImageUnreadable(f"{label} has {width} x {height} pixels: too small to show anything")


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "I;16", "I;16B", "I;16L"):
        # Plain conversion would clip 16-bit values at 255 and give a white picture.
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if "A" in picture.getbands() or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()
