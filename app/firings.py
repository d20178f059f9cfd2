"""Which features fire where on one image, and how unusual that is. Arrays in, arrays out: no atlas, no model.

How unusually strongly a feature fires, in bits per patch: ``(a / m) * log2(1 / f)``, with ``a`` its mean activation
over the chosen patches, ``m`` its largest activation over the explaining images and ``f`` its firing fraction there. On
one chosen patch, a feature at its maximum that fires on one patch in a thousand has 10 bits, and one that fires on half
of all patches has one at most. Over many patches the mean puts first what accounts for much of them: the largest
activation would put a rare feature on one patch of the margin before what the picture shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

RAREST = 1e-6
"""Firing fractions count as at least this, so that one lucky patch is not worth infinitely many bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCode:
    """The k features kept on each patch of an image; a value of 0 means: not active."""

    values: Float[np.ndarray, "patch k"]
    indices: Int[np.ndarray, "patch k"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Firings:
    """Every activation above 0 on an image, one entry for each feature and patch."""

    feature: Int[np.ndarray, " firing"]
    patch: Int[np.ndarray, " firing"]
    value: Float[np.ndarray, " firing"]

    def grid_of(self, feature: int, n_patches: int) -> Float[np.ndarray, " patch"]:
        """One feature's activation on every patch."""
        grid = np.zeros(n_patches, dtype=np.float32)
        own = self.feature == feature
        grid[self.patch[own]] = self.value[own]
        return grid


def firings_of(code: ImageCode | None) -> Firings:
    """The entries of a code that are above 0; none for no code."""
    if code is None:
        nothing = np.zeros(0, dtype=np.int64)
        return Firings(feature=nothing, patch=nothing, value=nothing.astype(np.float32))
    patch, place = np.nonzero(code.values > 0)
    return Firings(feature=code.indices[patch, place].astype(np.int64), patch=patch, value=code.values[patch, place])


def with_stored(firings: Firings, stored: Mapping[int, Float[np.ndarray, "row col"]]) -> Firings:
    """Stored grids in place of what was found live for the same features."""
    if not stored:
        return firings
    live = ~np.isin(firings.feature, list(stored))
    feature, patch, value = [firings.feature[live]], [firings.patch[live]], [firings.value[live]]
    for name, grid in stored.items():
        flat = grid.ravel()
        on = np.flatnonzero(flat > 0)
        feature.append(np.full(on.size, name, dtype=np.int64))
        patch.append(on)
        value.append(flat[on])
    return Firings(feature=np.concatenate(feature), patch=np.concatenate(patch), value=np.concatenate(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """Firings added up by feature, over the chosen patches."""

    feature: Int[np.ndarray, " feature"]
    maximum: Float[np.ndarray, " feature"]
    mean: Float[np.ndarray, " feature"]
    n_active: Int[np.ndarray, " feature"]
    n_active_image: Int[np.ndarray, " feature"]


def summed(firings: Firings, chosen: Bool[np.ndarray, " patch"]) -> Summed:
    """The features that fire on at least one chosen patch, by id."""
    feature, place = np.unique(firings.feature, return_inverse=True)
    inside = chosen[firings.patch]
    maximum = np.zeros(feature.size)
    np.maximum.at(maximum, place[inside], firings.value[inside])
    total = np.bincount(place[inside], weights=firings.value[inside], minlength=feature.size)
    n_active = np.bincount(place[inside], minlength=feature.size)
    kept = n_active > 0
    return Summed(
        feature=feature[kept],
        maximum=maximum[kept],
        mean=total[kept] / max(1, int(chosen.sum())),
        n_active=n_active[kept],
        n_active_image=np.bincount(place, minlength=feature.size)[kept],
    )


def unusualness(
    activation: Float[np.ndarray, " feature"],
    maximum: Float[np.ndarray, " feature"],
    firing_fraction: Float[np.ndarray, " feature"],
) -> Float[np.ndarray, " feature"]:
    """``(activation / maximum) * log2(1 / firing_fraction)``, in bits per patch; 0 where the maximum is not known."""
    known = np.isfinite(maximum) & (maximum > 0)
    share = np.divide(activation, maximum, out=np.zeros_like(activation, dtype=np.float64), where=known)
    rare = np.clip(np.nan_to_num(firing_fraction, nan=1.0), RAREST, 1.0)
    return share * -np.log2(rare)
