"""Sparse SAE codes of a few images, regrouped by feature: pooled activations, grids and counts.

An image's patches hold k (value, index) pairs; a pair with value 0 is not active. Everything here is computed per
(feature, image), so it does not depend on which other images share the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesByFeature:
    """Active patches sorted by (feature, image, patch), and one row per (feature, image) pair that is active."""

    patch: Int[np.ndarray, " active"]
    value: Float[np.ndarray, " active"]
    pair_start: Int[np.ndarray, " pair"]
    """First active patch of each pair; the patches of pair i end where pair i + 1 starts."""
    pair_feature: Int[np.ndarray, " pair"]
    pair_image: Int[np.ndarray, " pair"]
    """Row of the image within the chunk."""
    pair_mean: Float[np.ndarray, " pair"]
    """Mean over ALL patches of the image (inactive ones count as 0), as in the paper."""
    pair_max: Float[np.ndarray, " pair"]

    @property
    def pair_stop(self) -> Int[np.ndarray, " pair"]:
        """One past the last active patch of each pair."""
        return np.append(self.pair_start[1:], self.value.size)

    @property
    def active_feature(self) -> Int[np.ndarray, " active"]:
        """Feature of each active patch."""
        return np.repeat(self.pair_feature, self.pair_stop - self.pair_start)


def by_feature(values: Float[Tensor, "image patch k"], indices: Int[Tensor, "image patch k"]) -> CodesByFeature:
    """Regroup top-k codes. ``values`` are non-negative; each feature occurs at most once per patch."""
    n_images, n_patches, _ = values.shape
    image, patch, slot = torch.nonzero(values > 0, as_tuple=True)
    active = values[image, patch, slot].float()
    feature = indices[image, patch, slot].long()
    order = torch.argsort((feature * n_images + image) * n_patches + patch)
    pair, lengths = torch.unique_consecutive((feature * n_images + image)[order], return_counts=True)
    active = active[order].cpu()
    lengths = lengths.cpu()
    sums = torch.segment_reduce(active, "sum", lengths=lengths) if pair.numel() else active
    peaks = torch.segment_reduce(active, "max", lengths=lengths) if pair.numel() else active
    ends = torch.cumsum(lengths, dim=0)
    return CodesByFeature(
        patch=patch[order].cpu().numpy().astype(np.int32),
        value=active.numpy(),
        pair_start=(ends - lengths).numpy(),
        pair_feature=(pair // n_images).cpu().numpy().astype(np.int32),
        pair_image=(pair % n_images).cpu().numpy(),
        pair_mean=(sums / n_patches).numpy(),
        pair_max=peaks.numpy(),
    )


def pooled_matrix(codes: CodesByFeature, n_images: int, d_sae: int) -> Float[np.ndarray, "image d_sae"]:
    """Mean-pooled activation of every feature on every image of the chunk, float32."""
    dense = np.zeros((n_images, d_sae), dtype=np.float32)
    dense[codes.pair_image, codes.pair_feature] = codes.pair_mean
    return dense


def coactivation_counts(
    values: Float[Tensor, "image patch k"], indices: Int[Tensor, "image patch k"], d_sae: int
) -> Int[Tensor, " pair"]:
    """How many patches have both features of a pair active, as a flat [d_sae * d_sae] table with first < second."""
    k = values.shape[-1]
    first, second = torch.triu_indices(k, k, offset=1, device=values.device)
    flat_values, flat_indices = values.flatten(0, 1), indices.flatten(0, 1).long()
    both = (flat_values[:, first] > 0) & (flat_values[:, second] > 0)
    low = torch.minimum(flat_indices[:, first], flat_indices[:, second])[both]
    high = torch.maximum(flat_indices[:, first], flat_indices[:, second])[both]
    return torch.bincount(low * d_sae + high, minlength=d_sae * d_sae)
