"""What harvesting costs on top of the vision tower that it cannot do without.

The floor is the bare encoder prefix: images that are already preprocessed, run to the hook point, results thrown away.
Above it come reading and preprocessing the images, encoding by the SAE, counts, coactivation, and the best exemplars of
each feature. Sizes other than those of the SAE are the world recipe's.

    python -m benchmarks.harvest --n-images 256
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console

from backend.models.base import SubjectModel
from backend.sae import TopKSAE
from backend.types import Split
from benchmarks.measuring import in_turn, print_table
from benchmarks.subjects import describe, open_benchmark_pair
from benchmarks.true_shapes import SHAPES, floor_line
from precompute.encoding import encode_images, fixed_threads, split_threads
from precompute.recipe import load_recipe
from precompute.stages.harvest import DESCRIBED, ShardSums


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    n_images: int = 256
    """Images, made up from a seed."""
    images_per_batch: int = 32
    """Images in one batch of the vision tower."""
    n_rounds: int = 3
    """How often each way is run."""
    device: str = "cpu"
    """Torch device."""
    layer: int | None = None
    """Block of the hook point; by default the shipped atlas's."""
    true_shapes: str | None = None
    """Name in benchmarks/true_shapes.py: random weights of true shapes, built on the device, instead of the subject."""


class MadeUpImages:
    """Blocky random pictures in memory: an ImageSet that costs nothing to read."""

    name = "made up"
    split = Split.EXPLAIN
    fingerprint = "made up"

    def __init__(self, n_images: int, image_px: int) -> None:
        rng = np.random.default_rng(0)
        small = rng.integers(0, 256, size=(n_images, 8, 8, 3), dtype=np.uint8)
        size = (image_px, image_px)
        self._images = [Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST) for pixels in small]
        self.ids: Sequence[str] = [str(number) for number in range(n_images)]

    def load(self, image_id: str) -> Image.Image:
        """The picture with this id."""
        return self._images[int(image_id)]


def wait_for(device: torch.device) -> None:
    """A GPU works on after the call has returned: the clock is read when it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def prefix_only(subject: SubjectModel, pixels: torch.Tensor, images_per_batch: int) -> None:
    """The floor: the vision tower up to the hook point."""
    for batch in pixels.split(images_per_batch):
        subject.to_hook(batch)
    wait_for(subject.device)


def read_and_prefix(subject: SubjectModel, images: MadeUpImages, images_per_batch: int) -> None:
    """With reading and preprocessing, as the pipeline does it."""
    for _ in encode_images(subject, images, images.ids, images_per_batch=images_per_batch):
        pass
    wait_for(subject.device)


def stream(subject: SubjectModel, sae: TopKSAE, images: MadeUpImages, images_per_batch: int) -> ShardSums:
    """All of it, as the harvest stage does: read, run to the hook point, encode, count, keep the best exemplars."""
    sums = ShardSums(DESCRIBED, sae.d_sae, load_recipe("world"), sae.device)
    n_at_once, n_threads = split_threads(subject.device.type, torch.get_num_threads())
    with fixed_threads(n_threads):
        chunks = encode_images(subject, images, images.ids, images_per_batch=images_per_batch, n_at_once=n_at_once)
        for chunk in chunks:
            sums.add(sae, chunk.residuals, chunk.positions)
        sums.candidates()
    wait_for(subject.device)
    return sums


def main(settings: Settings) -> None:
    """Measure and print."""
    subject, sae = open_benchmark_pair(settings.device, settings.layer, settings.true_shapes)
    images = MadeUpImages(settings.n_images, subject.image_px)
    pixels = subject.preprocess([images.load(image_id) for image_id in images.ids])
    measured = in_turn(
        {
            "encoder prefix": lambda: prefix_only(subject, pixels, settings.images_per_batch),
            "with reading": lambda: read_and_prefix(subject, images, settings.images_per_batch),
            "streaming harvest": lambda: stream(subject, sae, images, settings.images_per_batch),
        },
        n_rounds=settings.n_rounds,
    )
    Console().print(describe(subject, sae))
    print_table("Harvest", measured, baseline="encoder prefix", n_units=settings.n_images, unit="images")
    if settings.true_shapes:
        floor = SHAPES[settings.true_shapes].floor_prefix_ms
        for one in measured:
            Console().print(floor_line(settings.true_shapes, one.name, floor, one.median_s, settings.n_images))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
