"""How well an SAE rebuilds the residual stream, measured in one streaming pass over held-out images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from backend.errors import ActivationsNotFinite
from backend.sae import TopKSAE


@dataclass(frozen=True, slots=True, kw_only=True)
class SAEQuality:
    """Reconstruction and sparsity on held-out tokens."""

    nmse: float
    """Summed squared error over the summed squared distance from the mean token; 0 is perfect, 1 is the mean."""
    explained_variance: float
    """1 - (variance of the residual error, summed over d_model) / (variance of the tokens, summed over d_model)."""
    l0: float
    """Mean number of active features per token."""
    dead_fraction: float
    """Share of features that fire on no held-out token."""
    n_images: int
    n_tokens: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


class QualityMeter:
    """Accumulates sums in float64: batches of any size give the same quality up to rounding."""

    def __init__(self, sae: TopKSAE) -> None:
        self._sae = sae
        d_model = sae.config.d_model
        self._sums = {name: np.zeros(d_model) for name in ("x", "x2", "error", "error2")}
        self._n_active = np.zeros(sae.config.d_sae, dtype=np.int64)
        self._n_tokens = 0
        self._n_images = 0

    def add(self, residuals: Float[Tensor, "image patch d_model"]) -> None:
        """Count the tokens of some images. Raises ActivationsNotFinite."""
        tokens = residuals.flatten(0, 1)
        activations = self._sae.encode(tokens)
        error = tokens - self._sae.decode(activations)
        if not torch.isfinite(error).all():
            raise ActivationsNotFinite("The SAE's reconstruction holds NaN or infinity; train it with a lower rate.")
        for name, value in (("x", tokens), ("error", error)):
            wide = value.double()
            self._sums[name] += wide.sum(dim=0).cpu().numpy()
            self._sums[f"{name}2"] += wide.square().sum(dim=0).cpu().numpy()
        fired = activations.indices[activations.values > 0].flatten().cpu().numpy()
        self._n_active += np.bincount(fired, minlength=self._n_active.size)
        self._n_tokens += int(tokens.shape[0])
        self._n_images += int(residuals.shape[0])

    def quality(self) -> SAEQuality:
        """The figures so far. Raises ValueError before any token was added."""
        if self._n_tokens == 0:
            raise ValueError("no held-out token was measured")
        n = self._n_tokens
        variance = (self._sums["x2"] / n - (self._sums["x"] / n) ** 2).sum()
        error_variance = (self._sums["error2"] / n - (self._sums["error"] / n) ** 2).sum()
        return SAEQuality(
            nmse=float(self._sums["error2"].sum() / n / variance),
            explained_variance=float(1 - error_variance / variance),
            l0=float(self._n_active.sum() / n),
            dead_fraction=float((self._n_active == 0).mean()),
            n_images=self._n_images,
            n_tokens=n,
        )

    def firing_fractions(self) -> Float[np.ndarray, " d_sae"]:
        """Share of held-out tokens on which each feature fires."""
        return (self._n_active / max(1, self._n_tokens)).astype(np.float32)


def measure(sae: TopKSAE, chunks: Iterable[Float[Tensor, "image patch d_model"]]) -> QualityMeter:
    """Run a meter over chunks of residuals."""
    meter = QualityMeter(sae)
    for residuals in chunks:
        meter.add(residuals)
    return meter
