"""Loss and gradients of the TopK SAE written out by hand, so that a step does one dense product and no more.

Only k of d_sae features act on a token. The encoder's forward must look at all of them; the decoder and the gradients
of both weight matrices need only the active (token, feature) pairs. Sorted by feature they are one bag of tokens per
feature, and a row of a weight gradient is a weighted sum over its bag. The numbers are those of autograd on the dense
formulas (tests compare them), in another order of summation. Loss: arXiv 2603.22593, AuxK: arXiv 2406.04093, A.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from backend.top_k import top_k_in_any_order

_BAG_PART = 64
"""Longest part of a bag that one group of GPU threads sums: one feature may be active on most tokens of a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTerms:
    """What one batch needs besides tokens and weights."""

    k: int
    k_aux: int
    """Dead features that AuxK may use per token."""
    auxk_coefficient: float
    n_tokens: int
    """Tokens of the whole batch; more than are given here if other processes hold the rest."""
    compute_dtype: torch.dtype = torch.float32
    """Of the products; sums over the batch, the loss and the gradients are float32 (float64 for float64 weights)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """Loss (a device scalar), gradients by parameter name, and what the step needs to know about the features."""

    loss: Float[Tensor, ""]
    by_name: dict[str, Tensor]
    """``W_enc`` and ``W_dec`` as [d_sae d_model], ``b_enc`` [d_sae], ``b_dec`` [d_model]."""
    along_decoder: Float[Tensor, " d_sae"]
    """Scalar product of every row of W_dec with its gradient."""
    fired: Bool[Tensor, " d_sae"]


def decode_sparse(
    values: Float[Tensor, "token k"], indices: Int[Tensor, "token k"], rows: Float[Tensor, "d_sae d_model"]
) -> Float[Tensor, "token d_model"]:
    """Sum of the chosen decoder rows weighted by their values; equal to the dense product, at k/d_sae of its work."""
    return functional.embedding_bag(indices, rows, per_sample_weights=values, mode="sum")


class FeatureBags:
    """The active (token, feature) pairs of a batch, sorted by feature. Sums run in a fixed order on every device."""

    def __init__(self, indices: Int[Tensor, "token k"], d_sae: int, *, part: int | None = None) -> None:
        """``part``: longest part that is summed in one go; by default whole bags on the CPU, parts on a GPU."""
        features, self._order = torch.sort(indices.flatten().to(torch.int32), stable=True)
        self._tokens = self._order // indices.shape[1]
        every = torch.arange(d_sae, dtype=torch.int32, device=indices.device)
        self._starts = torch.searchsorted(features, every)
        self._part = part if part is not None else (_BAG_PART if indices.is_cuda else None)

    def sum_rows(
        self, values: Float[Tensor, "token k"], rows: Float[Tensor, "token d_model"]
    ) -> Float[Tensor, "d_sae d_model"]:
        """For every feature the sum over its tokens of value times the token's row."""
        return self._sum(self._tokens, rows, values.flatten()[self._order])

    def sum_values(self, columns: Float[Tensor, "token k column"]) -> Float[Tensor, "d_sae column"]:
        """For every feature the sums over its pairs."""
        return self._sum(self._order, columns.flatten(0, 1), None)

    def _sum(self, which: Tensor, rows: Tensor, weights: Tensor | None) -> Tensor:
        if self._part is None:
            return _bag_sums(which, rows, self._starts, weights)
        # Cut the bags at every ``part``-th pair too: all shapes stay known, nothing waits for the device.
        cuts = torch.arange(0, which.numel(), self._part, dtype=self._starts.dtype, device=which.device)
        starts = torch.cat([self._starts, cuts]).sort().values
        parts = _bag_sums(which, rows, starts, weights)
        every = torch.arange(starts.numel(), device=which.device)
        return _bag_sums(every, parts, torch.searchsorted(starts, self._starts), None)


def _bag_sums(which: Tensor, rows: Tensor, starts: Tensor, weights: Tensor | None) -> Tensor:
    return functional.embedding_bag(which, rows, starts, per_sample_weights=weights, mode="sum")


def no_sum(_tensor: Tensor) -> None:
    """The sum over processes where there is only one."""


@torch.no_grad()
def loss_and_gradients(
    x: Float[Tensor, "token d_model"],
    weights: Mapping[str, Tensor],
    dead: Int[Tensor, " dead"],
    terms: LossTerms,
    *,
    sum_over_processes: Callable[[Tensor], None] = no_sum,
    buffer: Tensor | None = None,
) -> Gradients:
    """Squared error summed over d_model, averaged over tokens, plus AuxK on the features in ``dead``.

    ``weights`` by name as in ``Gradients.by_name``; ``buffer`` [token d_sae] takes the pre-activations, saving an
    allocation. With several processes loss and gradients are this one's addends.
    """
    dtype = terms.compute_dtype if x.dtype == torch.float32 else x.dtype
    encoder, decoder = weights["W_enc"].to(dtype), weights["W_dec"].to(dtype)
    centred = (x - weights["b_dec"]).to(dtype)
    pre = torch.addmm(weights["b_enc"].to(dtype), centred, encoder.t(), out=buffer)
    values, indices = top_k_in_any_order(pre, terms.k)
    values = values.relu()
    with torch.enable_grad():  # the gradient of embedding_bag by its weights alone is k scalar products a token
        weighed = values.detach().requires_grad_()
        decoded = decode_sparse(weighed, indices, decoder)
    residual = x - decoded.detach() - weights["b_dec"]
    by_output = residual * (-2 / terms.n_tokens)
    (by_value,) = torch.autograd.grad(decoded, weighed, by_output.to(dtype))
    active = values > 0
    by_pre = torch.where(active, by_value, 0)

    bags = FeatureBags(indices, pre.shape[1])
    columns = torch.stack([by_pre, values * by_value, active.to(dtype)], dim=2).to(x.dtype)
    b_enc, along_decoder, n_fired = bags.sum_values(columns).unbind(dim=1)
    found = Gradients(
        loss=residual.square().sum() / terms.n_tokens,
        by_name={
            "W_enc": bags.sum_rows(by_pre, centred).to(x.dtype),
            "b_enc": b_enc.contiguous(),
            "W_dec": bags.sum_rows(values, by_output.to(dtype)).to(x.dtype),
            "b_dec": by_output.sum(dim=0),
        },
        along_decoder=along_decoder.contiguous(),
        fired=n_fired > 0,
    )
    if dead.numel() and terms.auxk_coefficient > 0:
        _add_auxiliary(found, pre, centred, residual, decoder, dead, terms, sum_over_processes)
    # b_dec is subtracted from the input as well: its share is what b_enc gets, carried through the encoder.
    found.by_name["b_dec"] -= found.by_name["b_enc"] @ weights["W_enc"]
    return found


def _add_auxiliary(
    found: Gradients,
    pre: Float[Tensor, "token d_sae"],
    centred: Float[Tensor, "token d_model"],
    residual: Float[Tensor, "token d_model"],
    decoder: Float[Tensor, "d_sae d_model"],
    dead: Int[Tensor, " dead"],
    terms: LossTerms,
    sum_over_processes: Callable[[Tensor], None],
) -> None:
    """AuxK: how well the strongest dead features alone rebuild the residual, relative to its variance.

    Adds its loss and gradients to ``found``. Half of d_model features per token are too many for bags;
    dense products over the dead features alone are the cheaper way.
    """
    k_aux = min(terms.k_aux, int(dead.numel()))
    chosen, within = pre[:, dead].topk(k_aux, dim=1, sorted=False)
    codes = torch.zeros(pre.shape[0], dead.numel(), dtype=pre.dtype, device=pre.device)
    codes.scatter_(1, within, chosen.relu())
    rows = decoder[dead]
    error = (codes @ rows).to(residual.dtype) - residual
    mean = residual.sum(dim=0)
    sum_over_processes(mean)
    spread = (residual - mean / terms.n_tokens).square().sum()
    sum_over_processes(spread)
    factor = terms.auxk_coefficient / (spread / terms.n_tokens).clamp_min(1e-12) / terms.n_tokens
    by_output = (2 * factor * error).to(pre.dtype)
    by_code = by_output @ rows.t()
    by_pre = torch.where(codes > 0, by_code, 0)
    full = residual.dtype
    found.by_name["W_enc"].index_add_(0, dead, (by_pre.t() @ centred).to(full))
    found.by_name["b_enc"].index_add_(0, dead, by_pre.to(full).sum(dim=0))
    found.by_name["W_dec"].index_add_(0, dead, (codes.t() @ by_output).to(full))
    found.along_decoder.index_add_(0, dead, (codes * by_code).to(full).sum(dim=0))
    found.loss.add_(factor * error.square().sum())
