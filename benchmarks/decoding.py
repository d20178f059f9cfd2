"""From files on disk to pixel values: one picture after the other through the processor, against reading ahead.

Both ways read JPEG files of photograph size, decode them, bring them to the model's size and normalise them; the values
are compared bit by bit before anything is timed. The model itself is not run. ``bytes`` is what travels to a GPU, where
the rest is done: normalisation is then no work of this side.

    python -m benchmarks.decoding --n-images 128 --image-px 896
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console

from backend.models.base import SubjectModel
from backend.pixel_bytes import PixelBytes, pixel_bytes
from backend.types import Split
from benchmarks.measuring import in_turn, print_table
from precompute.data.folder import open_folder
from precompute.data_section import DataSection, SharesSection
from precompute.datasets import ImageSet
from precompute.encoding import read_chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    n_images: int = 128
    """Pictures, made up from a seed and written as JPEG."""
    width: int = 500
    """Their size in pixels; ImageNet's are about 500 x 375."""
    height: int = 375
    image_px: int = 896
    """Side that the model reads: 896 for Gemma 3, 448 for InternVL."""
    images_per_batch: int = 16
    """Images in one chunk."""
    readers: tuple[int, ...] = (1, 2, 4)
    """Numbers of threads to try."""
    n_rounds: int = 3
    """How often each way is run."""


class ProcessorOnly:
    """The image processor of Gemma 3 at one size, without a model behind it."""

    def __init__(self, image_px: int) -> None:
        from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

        half = [0.5, 0.5, 0.5]
        size = {"height": image_px, "width": image_px}
        self._processor: Any = Gemma3ImageProcessorPil(size=size, image_mean=half, image_std=half)
        self.image_px = image_px
        self.device = torch.device("cpu")

    def preprocess(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """[image 3 h w], float32."""
        return self._processor(images=list(images), return_tensors="pt")["pixel_values"]


def write_pictures(folder: Path, settings: Settings) -> None:
    """Smooth pictures with some noise, as compressible as photographs are."""
    for number in range(settings.n_images):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = coarse.resize((settings.width, settings.height), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth).astype(np.int16) + rng.integers(-12, 13, (settings.height, settings.width, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)


def serially(subject: SubjectModel, images: ImageSet, settings: Settings) -> None:
    """One picture after the other, through the processor itself."""
    for start in range(0, len(images.ids), settings.images_per_batch):
        subject.preprocess([images.load(name) for name in images.ids[start : start + settings.images_per_batch]])


def ahead(subject: SubjectModel, images: ImageSet, settings: Settings, n_readers: int) -> None:
    """As the pipeline does it."""
    chunks = read_chunks(subject, images, images.ids, images_per_batch=settings.images_per_batch, n_readers=n_readers)
    for _ in chunks:
        pass


def as_bytes(short: PixelBytes, images: ImageSet, n_readers: int) -> None:
    """As the pipeline does it where the model is on a GPU."""
    with ThreadPoolExecutor(n_readers) as pool:
        for _ in pool.map(lambda name: short.resized(images.load(name)), images.ids):
            pass


def main(settings: Settings) -> None:
    """Measure and print."""
    subject: Any = ProcessorOnly(settings.image_px)
    short = pixel_bytes(subject)
    assert short is not None, "the processor resizes, scales and normalises, nothing else"
    with tempfile.TemporaryDirectory() as scratch:
        write_pictures(Path(scratch), settings)
        shares = SharesSection(train=1, explain=0, select=0, score=0)
        section = DataSection(kind="folder", path=scratch, n_train_images=settings.n_images, shares=shares)
        images = open_folder(section, Split.TRAIN)
        first = images.load(images.ids[0])
        assert torch.equal(torch.from_numpy(short.values(first)), subject.preprocess([first])[0])
        ways: dict[str, Callable[[], object]] = {"serial": lambda: serially(subject, images, settings)}
        for n in settings.readers:
            ways[f"{n} readers"] = lambda n=n: ahead(subject, images, settings, n)
            ways[f"{n} readers, bytes"] = lambda n=n: as_bytes(short, images, n)
        measured = in_turn(ways, n_rounds=settings.n_rounds)
    side = settings.image_px
    megabytes = [kind * 3 * side * side / 2**20 for kind in (4, 1)]
    Console().print(
        f"JPEG {settings.width} x {settings.height} to {side} px; {megabytes[0]:.1f} MiB a picture as float32, "
        f"{megabytes[1]:.1f} MiB as bytes"
    )
    print_table("Decoding", measured, baseline="serial", n_units=settings.n_images, unit="images")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
