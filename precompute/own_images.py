"""A recipe for a person's own pictures: any folder in the place of the recipe's images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backend.errors import DatasetMissing
from precompute.data.folder import has_split_folders
from precompute.data_section import DataSection, SharesSection
from precompute.recipe import Recipe

SUFFIX = "-images"
"""Added to the recipe's name: the result is not that of the recipe."""
TRAINING = SharesSection()
NO_TRAINING = SharesSection(train=0.0, explain=0.5, select=0.1, score=0.4)
"""With a given SAE every picture can serve to explain and to score."""


def with_images(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe over the pictures in ``folder``, with any nesting; call :func:`given_sae.with_sae` before, if at all.

    Splits are made by rule unless the folder has the subfolders explain, select and score. Raises DatasetMissing.
    """
    if not folder.is_dir():
        raise DatasetMissing(f"There is no folder {folder}: give --images the folder with your pictures.")
    shares = TRAINING if recipe.sae.path is None else NO_TRAINING
    data = DataSection(
        kind="folder",
        path=str(folder.resolve()),
        n_train_images=recipe.data.n_train_images,
        shares=None if has_split_folders(folder) else shares,
    )
    title = f"{folder.resolve().name}, seen by: {recipe.title or recipe.name}"
    return replace(recipe, name=f"{recipe.name}{SUFFIX}", title=title, data=data)
