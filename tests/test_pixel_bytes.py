"""The short way to pixel values: every bit as the processor gives it, in every family, or not taken at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from backend.memory_limits import MemoryLimits, memory_limits
from backend.models import load_tower
from backend.models.base import VisionTower
from backend.pixel_bytes import PixelBytes, pixel_bytes
from backend.types import HookPoint, Split
from precompute.encoding import UNREADABLE, encode_images, fixed_threads, read_chunks, split_threads
from tests.builders_families import ALL_FAMILIES
from tests.builders_pipeline import UNREADABLE_IDS, PlantedImages


@pytest.fixture(scope="module", params=sorted(ALL_FAMILIES))
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VisionTower:
    folder = ALL_FAMILIES[request.param](tmp_path_factory.mktemp(request.param) / "subject")
    return load_tower(folder, HookPoint(layer=1))


READABLE = [name for name in PlantedImages(Split.TRAIN).ids if name not in UNREADABLE_IDS]


def pictures() -> Iterator[Image.Image]:
    """Wide, tall, tiny and large pictures, smooth and noisy."""
    rng = np.random.default_rng(1)
    for height, width in ((2, 2), (31, 33), (32, 32), (7, 300), (200, 40), (480, 640)):
        yield Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    slope = np.linspace(0, 255, 90 * 70 * 3).reshape(90, 70, 3)
    yield Image.fromarray(slope.astype(np.uint8))


def test_every_bit_is_that_of_the_processor(subject: VisionTower) -> None:
    short = pixel_bytes(subject)
    assert short is not None
    for picture in pictures():
        plain = subject.preprocess([picture])[0]
        assert torch.equal(torch.from_numpy(short.values(picture)), plain)
        stored = torch.from_numpy(short.resized(picture))[None]
        assert stored.dtype == torch.uint8
        assert torch.equal(short.normalised(stored, "cpu")[0], plain)


@pytest.mark.gpu
def test_every_bit_is_the_same_on_a_gpu(subject: VisionTower) -> None:
    short = pixel_bytes(subject)
    assert short is not None
    for picture in pictures():
        on_gpu = short.normalised(torch.from_numpy(short.resized(picture))[None], "cuda:0").cpu()
        assert torch.equal(on_gpu, subject.preprocess([picture]))


class Odd:
    """A subject whose processor does more than resize, scale and normalise."""

    image_px = 32

    def __init__(self, way: str) -> None:
        self._way = way

    def preprocess(self, images: list[Image.Image]) -> torch.Tensor:
        if self._way == "crop":
            side = min(images[0].size)
            images = [image.crop((0, 0, side, side)) for image in images]
        values = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)) for image in images])
        pixels = torch.from_numpy(values).permute(0, 3, 1, 2).float() / 255
        if self._way == "mean of the picture":
            pixels = pixels - pixels.mean()
        return pixels.repeat(1, 2, 1, 1) if self._way == "tiles" else pixels


@pytest.mark.parametrize("way", ["crop", "mean of the picture", "tiles"])
def test_another_kind_of_processor_is_used_as_it_is(way: str) -> None:
    subject = Odd(way)
    assert pixel_bytes(subject) is None  # pyright: ignore[reportArgumentType]


def test_a_plain_resize_is_recognised_without_asking_for_its_filter() -> None:
    found = pixel_bytes(Odd("plain"))  # pyright: ignore[reportArgumentType]
    assert isinstance(found, PixelBytes) and found.resample is Image.Resampling.BICUBIC


@pytest.mark.parametrize(("n_readers", "n_at_once"), [(1, 1), (3, 1), (1, 2), (3, 4)])
def test_threads_and_the_short_way_change_no_residual(subject: VisionTower, n_readers: int, n_at_once: int) -> None:
    images, failures = PlantedImages(Split.EXPLAIN), Counter[str]()
    threads = {"n_readers": n_readers, "n_at_once": n_at_once}
    with fixed_threads(1):  # some towers' sums depend on the number of compute threads
        chunks = list(encode_images(subject, images, images.ids[:11], images_per_batch=4, failures=failures, **threads))
        assert failures == {UNREADABLE: 1}
        assert [chunk.positions for chunk in chunks] == [(0, 1, 2), (4, 5, 6, 7), (8, 9, 10)]
        for chunk in chunks:
            plain = subject.preprocess([images.load(name) for name in chunk.image_ids])
            assert torch.equal(chunk.residuals, subject.to_hook(plain))


def test_several_chunks_at_once_share_what_memory_has_taught_and_the_callers_threads(subject: VisionTower) -> None:
    seen: list[tuple[int, int]] = []

    def to_hook(pixels: torch.Tensor) -> torch.Tensor:
        seen.append((len(pixels), torch.get_num_threads()))
        return plain(pixels)

    plain, images = subject.to_hook, PlantedImages(Split.TRAIN)
    with pytest.MonkeyPatch.context() as patch, fixed_threads(1), memory_limits(MemoryLimits(rows={"images": 2})):
        patch.setattr(subject, "to_hook", to_hook)
        list(encode_images(subject, images, READABLE[:16], images_per_batch=4, n_at_once=2))
    assert set(seen) == {(2, 1)} and len(seen) == 8


def test_encoding_at_once_stops_with_its_reader(subject: VisionTower, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def to_hook(pixels: torch.Tensor) -> torch.Tensor:
        asked.append(len(pixels))
        return plain(pixels)

    plain = subject.to_hook
    monkeypatch.setattr(subject, "to_hook", to_hook)
    chunks = encode_images(subject, PlantedImages(Split.TRAIN), READABLE[:40], images_per_batch=1, n_at_once=2)
    next(chunks)
    chunks.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert len(asked) <= 3


def test_an_error_of_the_tower_is_raised_at_its_place(subject: VisionTower, monkeypatch: pytest.MonkeyPatch) -> None:
    images = PlantedImages(Split.TRAIN)
    bad = subject.preprocess([images.load(READABLE[4])])

    def to_hook(pixels: torch.Tensor) -> torch.Tensor:
        if torch.equal(pixels, bad):
            raise RuntimeError("a bug in the tower")
        return plain(pixels)

    plain = subject.to_hook
    monkeypatch.setattr(subject, "to_hook", to_hook)
    found: list[tuple[int, ...]] = []
    with pytest.raises(RuntimeError, match="a bug in the tower"):
        for chunk in encode_images(subject, images, READABLE[:20], images_per_batch=1, n_at_once=2):
            found.append(chunk.positions)
    assert found == [(0,), (1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("device", "n_threads", "expected"),
    [("cpu", 1, (1, 1)), ("cpu", 2, (2, 1)), ("cpu", 8, (2, 4)), ("cuda:0", 8, (1, 8))],
)
def test_compute_threads_are_split_on_a_cpu_alone(device: str, n_threads: int, expected: tuple[int, int]) -> None:
    assert split_threads(device, n_threads) == expected


def test_reading_ahead_is_bounded_and_stops_with_its_reader(subject: VisionTower) -> None:
    asked: list[str] = []

    class Counting(PlantedImages):
        def load(self, image_id: str) -> Image.Image:
            asked.append(image_id)
            return super().load(image_id)

    images = Counting(Split.TRAIN)
    chunks = read_chunks(subject, images, images.ids, images_per_batch=2, n_readers=2)
    next(chunks)
    chunks.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert 2 <= len(asked) <= 6


def test_an_unexpected_error_of_a_reader_reaches_the_caller(subject: VisionTower) -> None:
    class Broken(PlantedImages):
        def load(self, image_id: str) -> Image.Image:
            raise RuntimeError(f"a bug in reading {image_id}")

    images = Broken(Split.SCORE)
    with pytest.raises(RuntimeError, match="a bug in reading score-0000"):
        list(encode_images(subject, images, images.ids[:3], images_per_batch=1))
