"""Kinds of image sets, one module each: the file name is the ``kind`` of a recipe's [data] section.

A module has ``open_image_set(recipe, split)`` and returns an ImageSet (precompute/datasets.py). Modules whose name
begins with an underscore are what the kinds share: a kind that lists its pictures as a ``PictureSource`` gets splits
by rule, limits, a fingerprint and the check for duplicates from ``_division.open_division``.
"""

from __future__ import annotations

from pkgutil import iter_modules


def kinds() -> list[str]:
    """Names of the kinds, sorted."""
    return sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))
