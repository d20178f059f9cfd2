"""A foreign TopK SAE in our form, exactly: what its forward pass does is folded into the four tensors, or refused.

Our form is f = top_k(relu((x - b_dec) @ W_enc + b_enc)), x_hat = f @ W_dec + b_dec, on the raw residual stream x, with
unit-norm rows of W_dec. With n_i the norm of decoder row i, and h the foreign pre-activations, four things can differ.

Input not centred (h = x @ W_enc + b_enc). Then b_enc + b_dec @ W_enc takes the place of b_enc.

Input scaled, x = (residual - mean) / scale with scale > 0. Multiply both biases by scale and add mean to b_dec: then
all pre-activations are multiplied by the same number, so the same k features are kept, activations are scale times as
large (in residual-stream L2 units at last), and the reconstruction is that of the residual.

Norms, kept by contribution (the k largest h_i * n_i). Multiply column i of W_enc and b_enc_i by n_i and divide the row
by n_i: the new pre-activations are just the h_i * n_i by which features were kept; f_i * W_dec_i does not change.

Norms, kept by activation (the k largest h_i). For unit rows and the same reconstruction the new activation must be
h_i * n_i; but our k largest of these are others than the k largest h_i. Only if all n_i are equal, or k = d_sae
(nothing is left out), is the order the same. Otherwise no choice of weights gives the same features: refused.

Arithmetic is in float64, rounded to float32 once. What needs no folding keeps its bits.

Source of the order argument: it is that of SAELens, which folds norms into TopK SAEs in the second case only.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from backend.artifacts import file_fingerprint
from backend.errors import SAEError, SAEShapeMismatch
from backend.sae import UNIT_NORM_TOLERANCE, SAEConfig, TopKSAE
from backend.sae_formats._hook_names import settle
from backend.sae_formats.base import SourceSAE, Weights
from backend.types import HookPoint

_EXACT_NORM = 1e-6
"""Rows that near to 1 differ from it by float32 rounding only."""


def to_topk(
    source: SourceSAE,
    *,
    format_name: str,
    hook_point: HookPoint | None = None,
    scale: float | None = None,
    mean: Float[Tensor, " d_model"] | None = None,
    subject: str | None = None,
) -> TopKSAE:
    """The same SAE as ours. Arguments and errors as for :func:`backend.sae_formats.import_sae`."""
    check_weights(source)
    point = settle(source.hook, hook_point)
    scale = _settled_scale(source, scale)
    weights, folded = source.weights, list[str]()
    if not source.subtracts_b_dec:
        weights = fold_missing_centring(weights)
        folded.append("b_dec @ W_enc added to b_enc")
    norms = row_norms(source)
    if norms is not None:
        weights = fold_norms(weights, norms)
        folded.append(f"decoder norms from {float(norms.min()):.6g} to {float(norms.max()):.6g}")
    if scale != 1.0 or mean is not None:
        weights = fold_input(weights, scale, _checked_mean(source, mean))
        folded.append(f"scale {scale:.9g}" + (" and a mean" if mean is not None else ""))
    record = {
        "format": format_name,
        "file": source.weights_file.name,
        "sha256": file_fingerprint(source.weights_file),
        "hook_name": source.hook.name,
        "scale": scale,
        "folded": folded,
    }
    config = SAEConfig(
        d_model=source.d_model,
        d_sae=source.d_sae,
        k=source.k,
        hook_point=point,
        subject=subject or source.subject,
        metadata={**source.metadata, "imported": record},
    )
    return TopKSAE(config, W_enc=weights.W_enc, b_enc=weights.b_enc, W_dec=weights.W_dec, b_dec=weights.b_dec)


def check_weights(source: SourceSAE) -> None:
    """Compare the tensors with the declared sizes, and look for NaN.

    Raises:
        SAEShapeMismatch: a tensor has another shape; a transposed one is named as such.
        SAEError: a tensor holds NaN or infinity.
    """
    place, d_model, d_sae = source.weights_file, source.d_model, source.d_sae
    expected = {"W_enc": (d_model, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_model), "b_dec": (d_model,)}
    for name, shape in expected.items():
        weight: Tensor = getattr(source.weights, name)
        found = tuple(weight.shape)
        if found != shape:
            what = "is transposed" if found == shape[::-1] and len(shape) == 2 else "does not fit the config"
            raise SAEShapeMismatch(
                f"{name} in {place} {what}: read in our orientation it is {found}, and d_model={d_model}, "
                f"d_sae={d_sae} ask for {shape}. Choose the right --format, or the config that belongs to these weights"
            )
        if not torch.isfinite(weight).all():
            n_bad = int((~torch.isfinite(weight)).sum())
            raise SAEError(
                f"{name} in {place} holds {n_bad} values that are NaN or infinite: the training diverged, or the file "
                "is damaged. Take an earlier checkpoint, or copy the file again"
            )


def row_norms(source: SourceSAE) -> Float[Tensor, " d_sae"] | None:
    """What each decoder row is to be divided by, in float64; None if the rows can stay as they are.

    Raises:
        SAEError: the norms cannot be folded without changing which k features are kept, or a row is 0.
        SAEShapeMismatch: a square decoder is transposed.
    """
    norms = source.weights.W_dec.detach().double().norm(dim=1)
    off = float((norms - 1).abs().max())
    _refuse_transposed_square(source, off)
    if float(norms.min()) < torch.finfo(torch.float32).tiny:
        raise SAEError(
            f"{int((norms < torch.finfo(torch.float32).tiny).sum())} decoder rows in {source.weights_file} are 0 (the "
            f"first is feature {int(norms.argmin())}): a feature without a direction cannot be explained or steered. "
            "Drop these features where the SAE was made"
        )
    if source.selects_by_contribution or source.k == source.d_sae:
        return norms if off > _EXACT_NORM else None
    if off <= UNIT_NORM_TOLERANCE:
        return None
    low, high = float(norms.min()), float(norms.max())
    if high / low - 1 <= UNIT_NORM_TOLERANCE:
        return torch.full_like(norms, (low * high) ** 0.5)
    raise SAEError(
        f"decoder rows in {source.weights_file} have norms from {low:.4g} to {high:.4g}, and the SAE keeps the "
        f"k={source.k} features that are largest before these norms are applied. With unit-norm rows other features "
        "would be kept, so it cannot be imported exactly. Train it with unit-norm decoder rows, or with "
        "rescale_acts_by_decoder_norm (SAELens), and import that"
    )


def _refuse_transposed_square(source: SourceSAE, off: float) -> None:
    # Only where d_model = d_sae do the shapes not tell; then the norms of the other axis do.
    if source.d_model != source.d_sae or off <= UNIT_NORM_TOLERANCE:
        return
    columns = source.weights.W_dec.detach().double().norm(dim=0)
    if float((columns - 1).abs().max()) <= UNIT_NORM_TOLERANCE:
        raise SAEShapeMismatch(
            f"W_dec in {source.weights_file} is transposed: its columns have unit norm and its rows do not "
            f"(d_model = d_sae = {source.d_sae}, so the shape does not tell). Choose the right --format"
        )


def fold_missing_centring(weights: Weights) -> Weights:
    """Weights that subtract b_dec first, for a forward pass that did not."""
    shift = weights.b_dec.double() @ weights.W_enc.double()
    return replace(weights, b_enc=weights.b_enc.double() + shift)


def fold_norms(weights: Weights, norms: Float[Tensor, " d_sae"]) -> Weights:
    """Weights with each decoder row divided by its entry of ``norms`` and the encoder multiplied by it."""
    return replace(
        weights,
        W_enc=weights.W_enc.double() * norms,
        b_enc=weights.b_enc.double() * norms,
        W_dec=weights.W_dec.double() / norms[:, None],
    )


def fold_input(weights: Weights, scale: float, mean: Float[Tensor, " d_model"] | None = None) -> Weights:
    """Weights that read the residual, for ones that read (residual - mean) / scale (residual-stream L2 units)."""
    b_dec = weights.b_dec.double() * scale
    return replace(
        weights, b_enc=weights.b_enc.double() * scale, b_dec=b_dec if mean is None else b_dec + mean.double()
    )


def _settled_scale(source: SourceSAE, scale: float | None) -> float:
    if scale is None:
        if source.scale_question is not None:
            raise SAEError(
                f"{source.scale_question}: add --scale S if residuals were divided by S before the SAE read them (and "
                "--mean FILE if a mean was subtracted), or --scale 1 if they were read as they are"
            )
        return 1.0
    if not 0 < scale < float("inf"):
        raise SAEError(f"--scale must be a positive number, not {scale}: residuals are divided by it")
    return float(scale)


def _checked_mean(source: SourceSAE, mean: Float[Tensor, " d_model"] | None) -> Float[Tensor, " d_model"] | None:
    if mean is None:
        return None
    if tuple(mean.shape) != (source.d_model,):
        raise SAEShapeMismatch(f"the mean has the shape {tuple(mean.shape)}; the SAE reads width {source.d_model}")
    if not torch.isfinite(mean).all():
        raise SAEError("the mean holds NaN or infinity: compute it again, in float64")
    return mean
