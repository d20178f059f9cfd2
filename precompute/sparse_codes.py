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
    n_images, n_patches, k = values.shape
    flat = values.flatten()
    at = torch.nonzero(flat > 0).squeeze(1)
    keys, order = torch.sort(indices.flatten()[at].long() * (n_images * n_patches) + at // k)
    place = keys // n_patches
    pair, lengths = torch.unique_consecutive(place, return_counts=True)
    active = flat[at][order].float().cpu()
    lengths = lengths.cpu()
    sums = torch.segment_reduce(active, "sum", lengths=lengths) if pair.numel() else active
    peaks = torch.segment_reduce(active, "max", lengths=lengths) if pair.numel() else active
    ends = torch.cumsum(lengths, dim=0)
    return CodesByFeature(
        patch=(keys - place * n_patches).to(torch.int32).cpu().numpy(),
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


def add_coactivation(
    pairs: Int[Tensor, " pair"],
    values: Float[Tensor, "image patch k"],
    indices: Int[Tensor, "image patch k"],
    d_sae: int,
) -> None:
    """Add to ``pairs``, a flat [d_sae * d_sae] table, on how many patches both features are active; first < second.

    Counted in place: a table of its own for every chunk would cost more than counting.
    """
    k = values.shape[-1]
    features, active = indices.reshape(-1, k).T.long().contiguous(), (values > 0).reshape(-1, k).T.contiguous()
    every = bool(active.all())
    one = pairs.new_ones(features.numel())
    for apart in range(1, k):
        one_slot, other_slot = features[:-apart], features[apart:]
        keys = torch.minimum(one_slot, other_slot) * d_sae + torch.maximum(one_slot, other_slot)
        keys = keys.flatten() if every else keys[active[:-apart] & active[apart:]]
        pairs.scatter_add_(0, keys, one[: keys.numel()])
