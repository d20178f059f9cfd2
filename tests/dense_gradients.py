"""The plain way to train a TopK SAE, by autograd through dense codes: what precompute/sae_gradients.py must equal."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from precompute.sae_gradients import LossTerms


def decode_dense(
    values: Float[Tensor, "token k"], indices: Int[Tensor, "token k"], rows: Float[Tensor, "d_sae d_model"]
) -> Float[Tensor, "token d_model"]:
    """Scatter to a dense code, then multiply."""
    dense = torch.zeros(values.shape[0], rows.shape[0], dtype=values.dtype, device=values.device)
    return dense.scatter_add(1, indices, values) @ rows


def dense_loss(
    x: Float[Tensor, "token d_model"], weights: Mapping[str, Tensor], dead: Int[Tensor, " dead"], terms: LossTerms
) -> Float[Tensor, ""]:
    """The loss as a differentiable function of the weights; W_enc has one row per feature."""
    pre = (x - weights["b_dec"]) @ weights["W_enc"].t() + weights["b_enc"]
    values, indices = pre.topk(terms.k, dim=1)
    residual = x - (decode_dense(values.relu(), indices, weights["W_dec"]) + weights["b_dec"])
    loss = residual.square().sum(dim=1).mean()
    if dead.numel() == 0:
        return loss
    aim = residual.detach()
    values, within = pre[:, dead].topk(min(terms.k_aux, dead.numel()), dim=1)
    rebuilt = decode_dense(values.relu(), dead[within], weights["W_dec"])
    variance = (aim - aim.mean(dim=0)).square().sum(dim=1).mean()
    return loss + terms.auxk_coefficient * (rebuilt - aim).square().sum(dim=1).mean() / variance


def dense_gradients(
    x: Float[Tensor, "token d_model"], weights: Mapping[str, Tensor], dead: Int[Tensor, " dead"], terms: LossTerms
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients by autograd."""
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    loss = dense_loss(x, leaves, dead, terms)
    return loss.detach(), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
