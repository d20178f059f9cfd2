"""An SAE that is there already, in the place of training: [sae] path in a recipe, or ``iconoscope run --sae``.

The pipeline then starts from it. It must have been trained at the recipe's hook point, on residuals of the same width;
how well it reconstructs is measured on images of the explain split, none of which it was trained on here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from backend.errors import SAEError, SAEShapeMismatch
from backend.models import model_fingerprint
from backend.sae import CONFIG_NAME, TopKSAE
from backend.settings import resolve_path
from backend.types import Split
from precompute.datasets import open_image_set
from precompute.encoding import encode_images, fixed_threads
from precompute.recipe import Recipe
from precompute.sae_evaluation import measure
from precompute.sae_fit import check_place
from precompute.stage import StageContext
from precompute.subject import open_tower, subject_science

N_IMAGES = 512
"""Images on which the reconstruction is measured, at most."""
SAE_DIR = "sae"
"""Where an artifact that holds an SAE keeps it."""


def with_sae(recipe: Recipe, path: Path) -> Recipe:
    """The recipe with the SAE in ``path`` instead of training one. Raises SAEError."""
    config = _config(path)
    sizes = {"d_sae": int(config["d_sae"]), "k": int(config["k"])}
    return replace(recipe, sae=replace(recipe.sae, path=str(path), **sizes))


def sae_science(recipe: Recipe) -> dict[str, Any]:
    """What determines the stage's output when the SAE is given: its contents, not its place."""
    return {
        "subject": subject_science(recipe),
        "given_sae": model_fingerprint(_folder(recipe)),
        "images": open_image_set(recipe, Split.EXPLAIN).fingerprint,
        "measured_on": N_IMAGES,
    }


def take_sae(context: StageContext) -> Mapping[str, Any]:
    """Check the given SAE, measure it, and write what training would: sae/, firing, quality.json.

    Raises SAEError, SAEShapeMismatch or SubjectMismatch if it does not fit the recipe.
    """
    recipe, writer = context.recipe, context.writer
    sae = TopKSAE.load(_folder(recipe))
    if (sae.d_sae, sae.k) != (recipe.sae.d_sae, recipe.sae.k):
        raise SAEShapeMismatch(
            f"The SAE at {recipe.sae.path} has d_sae {sae.d_sae} and k {sae.k}, but the recipe's [sae] says "
            f"{recipe.sae.d_sae} and {recipe.sae.k}: write the former there."
        )
    subject = open_tower(recipe, context.runtime)
    check_place(sae, subject)
    images = open_image_set(recipe, Split.EXPLAIN)
    failures: Counter[str] = Counter()
    with fixed_threads(context.runtime.workers):
        chunks = encode_images(
            subject,
            images,
            images.ids[:N_IMAGES],
            images_per_batch=context.runtime.images_per_batch,
            failures=failures,
        )
        meter = measure(sae.to(subject.device), (chunk.residuals for chunk in chunks))
    quality = meter.quality()
    writer.write_tree("sae", sae.save)
    firing = meter.firing_fractions()
    features = pa.array(np.arange(firing.size, dtype=np.int32))
    writer.write_table("firing", pa.table({"feature": features, "firing_fraction": firing}))
    writer.write_json("quality", {**quality.as_dict(), "scale": None, "n_train_images": None})
    context.progress.note(
        f"SAE given, not trained: explained variance {quality.explained_variance:.3f}, L0 {quality.l0:.1f} "
        f"on {quality.n_images} images of the explain split"
    )
    return {"failures": dict(failures), "notes": quality.as_dict()}


def trained_tokens(recipe: Recipe, train_sae_folder: Path) -> int | None:
    """On how many tokens the SAE was trained; None where a given SAE does not say."""
    if recipe.sae.path is None:
        return recipe.sae.n_tokens // recipe.sae.batch_tokens * recipe.sae.batch_tokens
    metadata = _config(train_sae_folder / SAE_DIR).get("metadata") or {}
    found = metadata.get("n_tokens")
    return found if isinstance(found, int) else None


def _folder(recipe: Recipe) -> Path:
    """The SAE of a recipe: the folder itself, or that of the artifact. Raises SAEError."""
    assert recipe.sae.path is not None, "the recipe gives an SAE"
    place = resolve_path(recipe.sae.path)
    folder = place if (place / CONFIG_NAME).is_file() else place / SAE_DIR
    _config(folder)
    return folder


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not all(isinstance(found.get(name), int) for name in ("d_sae", "k")):
            raise ValueError("no whole numbers d_sae and k")
    except (OSError, ValueError) as error:
        raise SAEError(
            f"There is no SAE to be taken at {folder} ({error}): give an atlas, or what `iconoscope sae import` wrote."
        ) from error
    return found
