"""Kind ``world``: the shipped corpora, and rendered scenes for SAE training."""

from __future__ import annotations

from precompute.world.corpus import open_image_set

__all__ = ["open_image_set"]
