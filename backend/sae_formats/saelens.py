"""Folders of SAELens (MIT): cfg.json and sae_weights.safetensors. What ``iconoscope sae export`` writes.

Tensors are W_enc [d_in, d_sae], b_enc, W_dec [d_sae, d_in] and b_dec, in our orientation and with our names. Read are
TopK SAEs of version 6 and of the flat configuration before it. What cfg.json may ask for besides:

- ``apply_b_dec_to_input`` false: folded.
- ``rescale_acts_by_decoder_norm`` true: features are kept by contribution, so norms are folded exactly.
- ``normalize_activations`` ``expected_average_only_in``: one factor for all patches, which the file does not hold; it
  is divided out, if --scale gives it (mean norm of the training residuals / sqrt(d_in)).
- ``constant_norm_rescale`` and ``layer_norm``: another factor for every patch, which no fixed weights express. Refused.
- ``reshape_activations`` other than ``none``: the outputs of attention heads, not the residual stream. Refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from backend.errors import SAEError
from backend.sae import CONFIG_NAME, WEIGHTS_NAME, TopKSAE
from backend.sae_formats._hook_names import parse_hook_name
from backend.sae_formats._tensor_files import read_safetensors, take_tensors
from backend.sae_formats.base import SAEFormat, SourceSAE, Weights, optional_text, read_json, table, whole_number

LAYOUT_VERSION = "6.0.0"
"""SAELens reads a cfg.json without a version as one from before version 6, and then drops its metadata."""
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
_OUR_OWN = ("model_name", "hook_name", "sae_lens_version")
"""Metadata that has a place of its own in our config, or that is written anew."""


class SAELens(SAEFormat):
    name = "saelens"
    looks_like = f"a folder with {CONFIG_NAME} and {WEIGHTS_NAME}"

    def recognises(self, source: Path) -> bool:
        return (source / CONFIG_NAME).is_file() and (source / WEIGHTS_NAME).is_file()

    def read(self, source: Path) -> SourceSAE:
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            if not (source / name).is_file():
                raise SAEError(
                    f"there is no {name} in {source}: a SAELens folder holds {CONFIG_NAME} and {WEIGHTS_NAME}"
                )
        place, path = source / CONFIG_NAME, source / WEIGHTS_NAME
        cfg = read_json(place)
        metadata = table(cfg.get("metadata") or _flat_metadata(cfg), "metadata", place)
        k = _k(cfg, place)
        _require_residual_stream(cfg, place)
        state = read_safetensors(path)
        return SourceSAE(
            weights_file=path,
            weights=Weights(**take_tensors(_without_unit_factor(state), TENSORS, path)),
            d_model=whole_number(cfg.get("d_in"), "d_in", place),
            d_sae=whole_number(cfg.get("d_sae"), "d_sae", place),
            k=k,
            subtracts_b_dec=cfg.get("apply_b_dec_to_input", True) is True,
            selects_by_contribution=cfg.get("rescale_acts_by_decoder_norm", False) is True,
            scale_question=_scale_question(cfg, place),
            hook=parse_hook_name(optional_text(metadata.get("hook_name"))),
            subject=optional_text(metadata.get("model_name")),
            metadata={name: value for name, value in metadata.items() if name not in _OUR_OWN and value is not None},
        )


def export_saelens(sae: TopKSAE, folder: Path) -> None:
    """Write ``sae`` as a SAELens folder, so that SAELens 6 and :class:`SAELens` read it back bit by bit.

    Raises:
        SAEError: ``folder`` exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SAEError(f"{folder} exists and is not an empty folder: remove it, or choose another --out")
    config = replace(sae.config, metadata={**sae.config.metadata, "sae_lens_version": LAYOUT_VERSION})
    weights = {name: getattr(sae, name) for name in TENSORS}
    TopKSAE(config, **weights).save(folder)


def _flat_metadata(cfg: Mapping[str, object]) -> dict[str, object]:
    """Model and hook of a configuration from before version 6, where they are not in a table of their own."""
    names = {"model_name": ("model_name",), "hook_name": ("hook_name", "hook_point")}
    return {ours: cfg[name] for ours, theirs in names.items() for name in theirs if name in cfg}


def _k(cfg: Mapping[str, object], place: Path) -> int:
    architecture = cfg.get("architecture", "standard")
    function = cfg.get("activation_fn", cfg.get("activation_fn_str"))
    if architecture == "topk" and "k" in cfg:
        return whole_number(cfg["k"], "k", place)
    if architecture in ("topk", "standard") and (function == "topk" or architecture == "topk"):
        arguments = table(cfg.get("activation_fn_kwargs"), "activation_fn_kwargs", place)
        return whole_number(arguments.get("k"), "activation_fn_kwargs.k", place)
    raise SAEError(
        f"{place} says architecture={architecture!r}: it does not keep k features on every patch, and only such SAEs "
        "can be expressed as a TopK SAE (a BatchTopK SAE is saved as one with thresholds)"
    )


def _require_residual_stream(cfg: Mapping[str, object], place: Path) -> None:
    shape = cfg.get("reshape_activations", "none")
    if shape != "none" or cfg.get("hook_head_index") is not None:
        raise SAEError(
            f"{place} reads the outputs of attention heads (reshape_activations={shape!r}), not the residual stream: "
            "take an SAE that was trained on the residual stream after a block"
        )


def _scale_question(cfg: Mapping[str, object], place: Path) -> str | None:
    how = cfg.get("normalize_activations", "none")
    if how in ("none", None, False):
        return None
    if how in ("expected_average_only_in", True):
        return (
            f"{place} says normalize_activations='expected_average_only_in', and does not hold the factor (residuals "
            "were divided by their mean norm / sqrt(d_in))"
        )
    raise SAEError(
        f"{place} says normalize_activations={how!r}: every patch is scaled by a factor of its own, which no fixed "
        "weights express. Train it without, or with expected_average_only_in"
    )


def _without_unit_factor(state: dict[str, object]) -> dict[str, object]:
    """Older files hold a scaling_factor of ones, which does nothing; any other stays and is refused by name."""
    factor = state.get("scaling_factor")
    if isinstance(factor, Tensor) and torch.equal(factor, torch.ones_like(factor)):
        return {name: value for name, value in state.items() if name != "scaling_factor"}
    return state


FORMAT = SAELens()
