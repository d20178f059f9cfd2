"""Opening pictures safely: whatever comes in, either an upright RGB image or ImageUnreadable comes out."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend.errors import ImageUnreadable
from backend.images import open_image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def gradient(width: int = 20, height: int = 12) -> Image.Image:
    return Image.fromarray(np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3))


JPEG = encoded(gradient(), "JPEG")
PNG = encoded(gradient(), "PNG")
WEBP = encoded(gradient(), "WEBP", lossless=True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_accepted_formats_open_as_rgb(kind):
    image = open_image(encoded(gradient(), kind))
    assert image.mode == "RGB"
    assert image.size == (20, 12)


def test_lossless_pixels_survive(tmp_path):
    path = tmp_path / "picture.bin"
    path.write_bytes(PNG)
    assert open_image(path).tobytes() == gradient().tobytes()
    assert open_image(WEBP).tobytes() == gradient().tobytes()


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_orientation_is_applied(orientation, corner):
    image = Image.new("RGB", (20, 12))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.asarray(open_image(encoded(image, "PNG", exif=exif)))
    assert upright.shape[:2] == ((12, 20) if orientation in (1, 3) else (20, 12))
    assert tuple(upright[corner]) == (255, 0, 0)


def test_cmyk_becomes_rgb():
    image = open_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = np.asarray(image)[4, 4]
    assert red > 200
    assert max(green, blue) < 60


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (np.asarray(open_image(encoded(clear, "PNG"))) == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0] * 256)
    assert (np.asarray(open_image(encoded(palette, "PNG", transparency=0))) == 255).all()


def test_sixteen_bit_grey_keeps_its_shades():
    ramp = Image.fromarray(np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8))
    grey = np.asarray(open_image(encoded(ramp, "PNG")))[..., 0].ravel()
    assert grey[0] == 0
    assert grey[-1] == 255
    assert (np.diff(grey.astype(int)) >= 0).all()


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert tuple(np.asarray(open_image(data))[0, 0]) == (255, 0, 0)


def png_announcing(width: int, height: int) -> bytes:
    """A PNG whose header promises a huge picture: a decompression bomb by the look of it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = PNG.index(b"IHDR")
    return PNG[:start] + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + PNG[start + 21 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"not a picture at all", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (JPEG[: len(JPEG) // 2], "cut short"),
        (PNG[: len(PNG) // 2], "cut short"),
        (png_announcing(9_000, 9_000), "pixels"),
        (png_announcing(60_000, 60_000), "pixels"),
        (encoded(Image.new("RGB", (1, 50)), "PNG"), "too small"),
    ],
)
def test_bad_input_gives_one_clear_error(data, message):
    with pytest.raises(ImageUnreadable, match=message):
        open_image(data, name="upload.png")


def test_a_file_larger_than_the_limit_is_not_decoded(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(PNG)
    with pytest.raises(ImageUnreadable, match="larger than"):
        open_image(path, max_bytes=len(PNG) - 1)
    with pytest.raises(ImageUnreadable, match="at most 100 "):
        open_image(path, max_pixels=100)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageUnreadable, match=r"nowhere\.png cannot be read"):
        open_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageUnreadable, match="cannot be read"):
        open_image(tmp_path)


@settings(max_examples=60)
@given(data=st.data(), base=st.sampled_from([JPEG, PNG, WEBP]))
def test_damaged_files_open_or_raise_image_unreadable(data, base):
    damaged = bytearray(base[: data.draw(st.integers(1, len(base)), label="length")])
    for _ in range(data.draw(st.integers(0, 4), label="flips")):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = open_image(bytes(damaged))
    except ImageUnreadable:
        return
    assert image.mode == "RGB"
