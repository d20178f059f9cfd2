"""SAEs in the files of other libraries, and those libraries' forward passes written out from their documentation.

This is the one file that calls ``torch.save``: the tests need the pickles that others write, and the code reads them
with ``weights_only=True``. The forward passes are dense and in float64.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

D_MODEL, D_SAE, K = 12, 40, 5


def random_weights(
    seed: int = 0, *, d_model: int = D_MODEL, d_sae: int = D_SAE, norms: Tensor | float = 1.0
) -> dict[str, Tensor]:
    """W_enc [d_model d_sae], b_enc, W_dec [d_sae d_model] with the given row norms, and b_dec, all independent."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(d_sae, d_model, generator=generator, dtype=torch.float64), dim=1)
    sizes = torch.as_tensor(norms, dtype=torch.float64).expand(d_sae)
    return {
        "W_enc": torch.randn(d_model, d_sae, generator=generator),
        "b_enc": 0.3 * torch.randn(d_sae, generator=generator),
        "W_dec": (rows * sizes[:, None]).float(),
        "b_dec": 0.5 * torch.randn(d_model, generator=generator),
    }


def residuals(n: int = 50, seed: int = 1, *, d_model: int = D_MODEL) -> Tensor:
    """Patches to compare forward passes on."""
    return 2 * torch.randn(n, d_model, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------------- writing files


def write_dictionary_learning(folder: Path, weights: Mapping[str, Tensor], **changes: Any) -> Path:
    """``ae.pt`` and config.json. ``changes``: k, state (entries to add), drop (a key), trainer (entries to replace)."""
    k = changes.get("k", K)
    state: dict[str, Any] = {
        "k": torch.tensor(k, dtype=torch.int),
        "threshold": torch.tensor(1.25),
        "decoder.weight": weights["W_dec"].T.contiguous(),
        "encoder.weight": weights["W_enc"].T.contiguous(),
        "encoder.bias": weights["b_enc"],
        "b_dec": weights["b_dec"],
        **changes.get("state", {}),
    }
    state.pop(changes.get("drop", ""), None)
    d_model, d_sae = weights["W_enc"].shape
    trainer = {
        "trainer_class": "TopKTrainer",
        "dict_class": "AutoEncoderTopK",
        "lr": 3e-4,
        "steps": 160145,
        "seed": 0,
        "activation_dim": d_model,
        "dict_size": d_sae,
        "k": k,
        "device": "cuda:0",
        "layer": 16,
        "lm_name": "google/gemma-3-4b-it",
        "submodule_name": "enc_res_out_layer_16",
        **changes.get("trainer", {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 256}}, indent=4))
    return folder


def write_saev(path: Path, weights: Mapping[str, Tensor], **changes: Any) -> Path:
    """A header line and a state dict. ``changes``: schema, activation, cfg (entries to replace), state."""
    d_model, d_sae = weights["W_enc"].shape
    activation = changes.get("activation", {"cls": "TopK", "params": {"key": "top-k", "top_k": K}})
    cfg = {"d_model": d_model, "d_sae": d_sae, "normalize_w_dec": True, "activation": activation}
    header = {"schema": changes.get("schema", 5), "cfg": {**cfg, **changes.get("cfg", {})}, "commit": "3d73f1f"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as handle:
        handle.write((json.dumps(header) + "\n").encode())
        torch.save({**weights, **changes.get("state", {})}, handle)
    return path


def write_saelens(folder: Path, weights: Mapping[str, Tensor], **cfg: Any) -> Path:
    """cfg.json as version 6 writes it, and the weights. ``cfg`` replaces entries; None takes one away."""
    d_model, d_sae = weights["W_enc"].shape
    written = {
        "architecture": "topk",
        "d_in": d_model,
        "d_sae": d_sae,
        "k": K,
        "dtype": "float32",
        "device": "cuda",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {
            "sae_lens_version": "6.18.0",
            "model_name": "google/gemma-3-4b-it",
            "hook_name": "vision_tower.vision_model.encoder.layers.16",
            "context_size": None,
        },
        **cfg,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps({name: value for name, value in written.items() if value is not None}))
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / "sae_weights.safetensors")
    return folder


class Touching:
    """An object whose unpickling makes a file: what a hostile pickle would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def write_hostile(folder: Path, touched: Path) -> Path:
    """An ``ae.pt`` that makes the file ``touched`` if it is ever unpickled."""
    return write_dictionary_learning(folder, random_weights(), state={"extra": Touching(touched)})


# ------------------------------------------------------------------------------------------------- forward passes


def _keep(values: Tensor, ranked_by: Tensor, k: int) -> Tensor:
    kept = torch.zeros_like(values).scatter(-1, ranked_by.topk(k, dim=-1).indices, 1.0)
    return values * kept


def dictionary_learning_forward(folder: Path, x: Tensor, k: int = K) -> tuple[Tensor, Tensor]:
    """(features, reconstruction) of AutoEncoderTopK: linear layers, ReLU, then the k largest."""
    state = {name: one.double() for name, one in torch.load(folder / "ae.pt", weights_only=True).items()}
    encoded = torch.nn.functional.linear(x.double() - state["b_dec"], state["encoder.weight"], state["encoder.bias"])
    features = _keep(encoded.relu(), encoded.relu(), k)
    return features, torch.nn.functional.linear(features, state["decoder.weight"]) + state["b_dec"]


def saev_forward(weights: Mapping[str, Tensor], x: Tensor, k: int = K) -> tuple[Tensor, Tensor]:
    """(features, reconstruction) of saev: b_dec is not subtracted, and the k largest stay even below 0."""
    w = {name: one.double() for name, one in weights.items()}
    h = x.double() @ w["W_enc"] + w["b_enc"]
    features = _keep(h, h, k)
    return features, features @ w["W_dec"] + w["b_dec"]


def saelens_forward(
    weights: Mapping[str, Tensor], x: Tensor, *, k: int = K, rescale: bool = False, centred: bool = True
) -> tuple[Tensor, Tensor]:
    """(features, reconstruction) of SAELens's TopK SAE, with its two switches."""
    w = {name: one.double() for name, one in weights.items()}
    h = (x.double() - w["b_dec"] * centred) @ w["W_enc"] + w["b_enc"]
    norms = w["W_dec"].norm(dim=-1)
    if rescale:
        h = h * norms
    features = _keep(h.relu(), h, k)
    return features, (features / norms if rescale else features) @ w["W_dec"] + w["b_dec"]


def write_sam2_checkpoint(path: Path, state: Mapping[str, Tensor]) -> Path:
    """Tensors as the ``sam2`` package's released checkpoints hold them."""
    torch.save({"model": dict(state)}, path)
    return path


def write_pytorch_model(path: Path, state: Mapping[str, Tensor]) -> Path:
    """Tensors as transformers once saved them."""
    torch.save(dict(state), path)
    return path
