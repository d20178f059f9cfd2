"""The paper-scale judges on shrunken models, and pictures for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from precompute.judges import Judges, open_judges
from precompute.recipe import JudgesSection, Recipe, Runtime
from precompute.shrunken import ensure
from tests.builders_pipeline import planted_recipe

KINDS = ("grounding_dino", "sam2", "sam3", "open_clip", "stable_diffusion_3")
RUNTIME = Runtime(device="cpu", images_per_batch=3, workers=1)
TEXT = "A red crab on the beach, near a wheel."


@cache
def folder_of(kind: str) -> Path:
    """The shrunken model of a kind, built once."""
    return ensure(kind)


def judges_recipe(**changes: Any) -> Recipe:
    """A recipe with paper-scale judges on shrunken models; ``changes`` replace fields of [judges]."""
    recipe = planted_recipe(Path("nowhere"))
    fields: dict[str, Any] = {
        "kind": "paper",
        "clip": "shrunken/open_clip",
        "generator": "stable_diffusion_3",
        "segmenter": "grounded_sam2",
        "boxes": "shrunken/grounding_dino",
        "masks": "shrunken/sam2",
        "generator_model": "shrunken/stable_diffusion_3",
        "generator_steps": 2,
        "image_px": 64,
    }
    if changes.get("segmenter") == "sam3":
        fields |= {"masks": "shrunken/sam3", "box_threshold": 0.0}  # random weights are sure of nothing
    object.__setattr__(recipe, "judges", JudgesSection(**(fields | changes)))
    return recipe


def open_paper(runtime: Runtime = RUNTIME, **changes: Any) -> Judges:
    """The judges of ``judges_recipe``."""
    for kind in KINDS:
        folder_of(kind)
    return open_judges(judges_recipe(**changes), runtime)


def pictures(n: int = 3) -> list[Image.Image]:
    """Pictures of coloured blocks, the third of another size than the first two."""
    rng = np.random.default_rng(7)
    sizes = [(60, 80), (60, 80), (88, 64)]
    return [
        Image.fromarray(
            np.kron(rng.integers(0, 256, (h // 4, w // 4, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
        )
        for h, w in (sizes[index % 3] for index in range(n))
    ]
