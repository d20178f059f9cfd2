"""TopK sparse autoencoder, inference only: encode, decode, one feature's direction, save and load.

    activations = top_k(relu((x - b_dec) @ W_enc + b_enc))        x_hat = activations @ W_dec + b_dec

Decoder rows are unit-norm, so a strength along a feature's direction is in residual-stream L2 units. Everything is
float32. On disk: ``sae_weights.safetensors`` and ``cfg.json`` in the names SAELens v6 uses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.errors import ActivationsNotFinite, SAEError, SAEShapeMismatch, UnknownFeature
from backend.finite import all_finite
from backend.top_k import top_k
from backend.types import HookPoint

WEIGHTS_NAME = "sae_weights.safetensors"
CONFIG_NAME = "cfg.json"
UNIT_NORM_TOLERANCE = 1e-3
CHUNK_ELEMENTS = 1 << 24
"""Pre-activations held at once while encoding: 64 MiB of float32."""
CPU_PATCHES = 1024
"""Patches encoded at once on a CPU: memory this small stays in caches and is not asked of the system every time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SAEConfig:
    """Shape and provenance of a TopK SAE."""

    d_model: int
    """Width of the residual stream it reads."""
    d_sae: int
    """Number of features."""
    k: int
    """Features kept per patch."""
    hook_point: HookPoint | None = None
    """Where it was trained, if recorded; a session refuses another hook point."""
    subject: str | None = None
    """Name of the subject model it was trained on."""
    metadata: Mapping[str, object] = field(default_factory=dict)
    """Anything else worth keeping (data, training); JSON values only."""

    def __post_init__(self) -> None:
        if min(self.d_model, self.d_sae, self.k) < 1:
            raise SAEShapeMismatch(f"d_model, d_sae and k must be positive, not {self.d_model}, {self.d_sae}, {self.k}")
        if self.k > self.d_sae:
            raise SAEShapeMismatch(f"k={self.k} is larger than the number of features d_sae={self.d_sae}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureActivations:
    """The k largest activations of each patch, largest first. A value of 0 means: not active."""

    values: Float[Tensor, "*batch k"]
    """At or above 0, in residual-stream L2 units (the length the feature adds to the reconstruction)."""
    indices: Int[Tensor, "*batch k"]
    d_sae: int

    def of(self, feature: int) -> Float[Tensor, "*batch"]:
        """Activation of one feature, 0 where it is not among the top k."""
        return torch.where(self.indices == feature, self.values, 0.0).sum(dim=-1)

    def dense(self) -> Float[Tensor, "*batch d_sae"]:
        """All features, mostly zeros. Large: use it on few patches."""
        zeros = self.values.new_zeros(*self.values.shape[:-1], self.d_sae)
        return zeros.scatter(-1, self.indices, self.values)


class TopKSAE:
    """A trained sparse autoencoder. Immutable once built; :meth:`to` returns a copy on another device."""

    def __init__(
        self,
        config: SAEConfig,
        *,
        W_enc: Float[Tensor, "d_model d_sae"],
        b_enc: Float[Tensor, " d_sae"],
        W_dec: Float[Tensor, "d_sae d_model"],
        b_dec: Float[Tensor, " d_model"],
    ) -> None:
        """Check and keep the weights.

        Raises:
            SAEShapeMismatch: a tensor's shape disagrees with the config, or a decoder row is not unit-norm.
            SAEError: a weight is NaN or infinite.
        """
        self.config = config
        self.W_enc = W_enc.detach().float().contiguous()
        self.b_enc = b_enc.detach().float().contiguous()
        self.W_dec = W_dec.detach().float().contiguous()
        self.b_dec = b_dec.detach().float().contiguous()
        self._check()

    @property
    def d_model(self) -> int:
        return self.config.d_model

    @property
    def d_sae(self) -> int:
        return self.config.d_sae

    @property
    def k(self) -> int:
        return self.config.k

    @property
    def device(self) -> torch.device:
        return self.W_dec.device

    def _check(self) -> None:
        d_model, d_sae = self.config.d_model, self.config.d_sae
        expected = {"W_enc": (d_model, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_model), "b_dec": (d_model,)}
        for name, shape in expected.items():
            weight: Tensor = getattr(self, name)
            if tuple(weight.shape) != shape:
                raise SAEShapeMismatch(
                    f"SAE weight {name} has the shape {tuple(weight.shape)}, but its config (d_model={d_model}, "
                    f"d_sae={d_sae}) asks for {shape}"
                )
            if not torch.isfinite(weight).all():
                raise SAEError(f"SAE weight {name} holds NaN or infinity: the training diverged or the file is damaged")
        off = (self.W_dec.norm(dim=1) - 1).abs()
        if float(off.max()) > UNIT_NORM_TOLERANCE:
            raise SAEShapeMismatch(
                f"{int((off > UNIT_NORM_TOLERANCE).sum())} of {d_sae} decoder rows are not unit-norm (row "
                f"{int(off.argmax())} is off by {float(off.max()):.3g}): an SAE made elsewhere comes in by "
                "`iconoscope sae import`, which folds the norms where that is exact"
            )

    def to(self, device: torch.device | str) -> TopKSAE:
        weights = {name: getattr(self, name).to(device) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        return TopKSAE(self.config, **weights)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "*batch d_model"]) -> FeatureActivations:
        """The k largest activations of every patch; the dense code never exists for more than a chunk of patches.

        Raises:
            SAEShapeMismatch: x has another width.
            ActivationsNotFinite: x holds NaN or infinity.
        """
        batch = x.shape[:-1]
        n_patches = batch.numel()
        values = torch.empty(n_patches, self.k, device=self.device)
        indices = torch.empty(n_patches, self.k, dtype=torch.long, device=self.device)
        for rows, chunk in self._chunks(x):
            values[rows], indices[rows] = self._top_k(chunk)
        return FeatureActivations(
            values=values.reshape(*batch, self.k), indices=indices.reshape(*batch, self.k), d_sae=self.d_sae
        )

    @torch.no_grad()
    def decode(self, activations: FeatureActivations) -> Float[Tensor, "*batch d_model"]:
        """Reconstruction of the residual stream from the active features."""
        values = rearrange(activations.values, "... k -> (...) k")
        indices = rearrange(activations.indices, "... k -> (...) k")
        summed = torch.nn.functional.embedding_bag(indices, self.W_dec, per_sample_weights=values, mode="sum")
        return (summed + self.b_dec).reshape(*activations.values.shape[:-1], self.d_model)

    @torch.no_grad()
    def activations_of(
        self, x: Float[Tensor, "*batch d_model"], features: Sequence[int]
    ) -> Float[Tensor, "*batch feature"]:
        """Activations of the given features, 0 where a feature is not among the top k of its patch.

        Raises:
            UnknownFeature: a feature id lies outside 0..d_sae-1.
            SAEShapeMismatch, ActivationsNotFinite: as for :meth:`encode`.
        """
        for feature in features:
            self._check_feature(feature)
        columns = torch.tensor(list(features), dtype=torch.long, device=self.device)
        result = torch.empty(x.shape[:-1].numel(), len(features), device=self.device)
        for rows, chunk in self._chunks(x):
            values, indices = self._top_k(chunk)
            dense = chunk.new_zeros(chunk.shape[0], self.d_sae).scatter_(1, indices, values)
            result[rows] = dense[:, columns]
        return result.reshape(*x.shape[:-1], len(features))

    def direction(self, feature: int) -> Float[Tensor, " d_model"]:
        """The feature's decoder row, unit-norm.

        Raises:
            UnknownFeature: the id lies outside 0..d_sae-1.
        """
        self._check_feature(feature)
        return self.W_dec[feature]

    def _check_feature(self, feature: int) -> None:
        if not 0 <= feature < self.d_sae:
            raise UnknownFeature(f"there is no feature {feature}: this SAE has features 0 to {self.d_sae - 1}")

    def _chunks(self, x: Tensor) -> Iterator[tuple[slice, Float[Tensor, "patch d_model"]]]:
        if x.shape[-1] != self.d_model:
            raise SAEShapeMismatch(f"the SAE reads width {self.d_model}, but the activations have width {x.shape[-1]}")
        flat = x.reshape(-1, self.d_model)
        size = max(1, CHUNK_ELEMENTS // self.d_sae)
        if self.device.type == "cpu":
            size = min(size, CPU_PATCHES)
        for start in range(0, flat.shape[0], size):
            chunk = flat[start : start + size].to(self.device, torch.float32)
            if not all_finite(chunk):
                raise ActivationsNotFinite(
                    "the residual stream holds NaN or infinity: run the subject model in float32 or bfloat16"
                )
            yield slice(start, start + chunk.shape[0]), chunk

    def _top_k(self, chunk: Float[Tensor, "patch d_model"]) -> tuple[Float[Tensor, "patch k"], Int[Tensor, "patch k"]]:
        pre_activations = torch.addmm(self.b_enc, chunk - self.b_dec, self.W_enc)
        values, indices = top_k(pre_activations, self.k)
        return values.relu(), indices

    def save(self, folder: Path) -> None:
        """Write ``sae_weights.safetensors`` and ``cfg.json``; each appears whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: getattr(self, name).cpu() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        partial = folder / (WEIGHTS_NAME + ".partial")
        save_file(weights, partial)
        os.replace(partial, folder / WEIGHTS_NAME)
        partial = folder / (CONFIG_NAME + ".partial")
        partial.write_text(json.dumps(_to_cfg(self.config), indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(partial, folder / CONFIG_NAME)

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu") -> TopKSAE:
        """Read an SAE written by :meth:`save` (or a TopK SAE in SAELens' folder format).

        Raises:
            SAEError: a file is missing or unreadable, or the SAE is of another architecture.
            SAEShapeMismatch: weights and config disagree.
        """
        try:
            config = _from_cfg(json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")))
            weights = load_file(folder / WEIGHTS_NAME, device=str(device))
        except FileNotFoundError as error:
            raise SAEError(f"no SAE in {folder}: {CONFIG_NAME} and {WEIGHTS_NAME} are needed") from error
        except (OSError, ValueError, SafetensorError) as error:
            raise SAEError(f"cannot read the SAE in {folder}: {error}") from error
        missing = {"W_enc", "b_enc", "W_dec", "b_dec"} - weights.keys()
        if missing:
            raise SAEError(f"{folder / WEIGHTS_NAME} lacks {', '.join(sorted(missing))}")
        return cls(config, **{name: weights[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")})


def _to_cfg(config: SAEConfig) -> dict[str, object]:
    point = config.hook_point
    return {
        "architecture": "topk",
        "d_in": config.d_model,
        "d_sae": config.d_sae,
        "k": config.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {
            **config.metadata,
            "model_name": config.subject,
            "hook_name": None if point is None else str(point),
        },
    }


def _from_cfg(cfg: Mapping[str, object]) -> SAEConfig:
    if cfg.get("architecture") != "topk":
        raise SAEError(f"only TopK SAEs are supported, this one says architecture={cfg.get('architecture')!r}")
    if cfg.get("apply_b_dec_to_input", True) is not True or cfg.get("normalize_activations", "none") != "none":
        raise SAEError(
            "this SAE normalises its input or does not subtract b_dec: bring it in with `iconoscope sae import`, which "
            "folds that into its weights"
        )
    sizes = {name: cfg.get(name) for name in ("d_in", "d_sae", "k")}
    metadata = cfg.get("metadata") or {}
    if not isinstance(metadata, Mapping) or not all(isinstance(size, int) for size in sizes.values()):
        raise SAEError(f"{CONFIG_NAME} must give whole numbers d_in, d_sae and k, and a metadata table")
    rest = {str(key): value for key, value in metadata.items() if key not in ("model_name", "hook_name")}
    return SAEConfig(
        d_model=int(str(sizes["d_in"])),
        d_sae=int(str(sizes["d_sae"])),
        k=int(str(sizes["k"])),
        hook_point=_parse_hook_name(metadata.get("hook_name")),
        subject=str(metadata["model_name"]) if metadata.get("model_name") else None,
        metadata=rest,
    )


def _parse_hook_name(name: object) -> HookPoint | None:
    parts = str(name).split(".")
    if len(parts) != 3 or not parts[1].isdigit():
        return None
    return HookPoint(tower=parts[0], layer=int(parts[1]), stream=parts[2])
