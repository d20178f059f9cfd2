"""Every benchmark that has something to say on a GPU, one after another, at true shapes with random weights.

One call, no files needed; each benchmark is a process of its own, and one that fails does not keep the others from
running. ``--shape gemma3-shrunken --device cpu`` tries the whole thing where there is no GPU.

    python -m benchmarks.gpu
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.true_shapes import SHAPES

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to run."""

    shape: str = "gemma3-4b"
    """One of benchmarks/true_shapes.py."""
    device: str = "cuda"
    """Torch device."""


def commands(settings: Settings) -> list[list[str]]:
    """The modules and their arguments."""
    shaped = ["--true-shapes", settings.shape, "--device", settings.device]
    n_images, n_features = ("64", "64") if settings.shape != "gemma3-shrunken" else ("16", "4")
    found = [
        ["benchmarks.harvest", *shaped, "--n-images", n_images, "--images-per-batch", "16"],
        ["benchmarks.steering", *shaped, "--n-features", n_features, "--max-new-tokens", "40", "--n-rounds", "1"],
    ]
    if settings.device != "cpu":
        found.append(["benchmarks.sae_training", "--device", settings.device, "--dtype", "bfloat16"])
    return found


def main(settings: Settings) -> int:
    """Run them all; 1 if one failed."""
    assert settings.shape in SHAPES, f"choose a shape of {', '.join(SHAPES)}"
    failed = []
    for module, *arguments in commands(settings):
        print(f"\n$ python -m {' '.join([module, *arguments])}", flush=True)
        done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=False)
        if done.returncode:
            failed.append(module)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
