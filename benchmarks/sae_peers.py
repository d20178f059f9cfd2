"""Trainers of TopK SAEs by others, behind one small interface, started from our initial weights.

They are no dependency of the project. ``pip install --no-deps --target peers -r benchmarks/peers.txt`` puts them into a
folder of their own, and ``PYTHONPATH=peers:.`` lets the benchmark find them.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from precompute.sae_trainer import SAETrainer, TrainerConfig

OURS = "Iconoscope"
PEERS = ("dictionary_learning", "SAELens", "SAELens, sparse")
_PACKAGES = {"dictionary_learning": "dictionary_learning", "SAELens": "sae_lens", "SAELens, sparse": "sae_lens"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One trainer: what it does with a batch, and what it makes of tokens it has not seen."""

    step: Callable[[Float[Tensor, "token d_model"]], object]
    reconstruct: Callable[[Float[Tensor, "token d_model"]], Tensor]


def installed(name: str) -> bool:
    """Whether this peer's package can be found."""
    return importlib.util.find_spec(_PACKAGES[name]) is not None


def ours(config: TrainerConfig, sample: Tensor, device: str, dtype: torch.dtype) -> tuple[Contestant, SAETrainer]:
    """Our trainer, and the object itself, whose initial weights the peers start from."""
    trainer = SAETrainer(config, device, compute_dtype=dtype)
    trainer.initialise(sample)

    def reconstruct(x: Tensor) -> Tensor:
        weights = {name: value.to(x.device) for name, value in trainer.weights().items()}
        pre = torch.addmm(weights["b_enc"], x - weights["b_dec"], weights["W_enc"])
        kept = pre.topk(config.k, dim=1)
        codes = torch.zeros_like(pre).scatter_(1, kept.indices, kept.values.relu())
        return codes @ weights["W_dec"] + weights["b_dec"]

    return Contestant(step=trainer.step, reconstruct=reconstruct), trainer


def peer(
    name: str, config: TrainerConfig, weights: Mapping[str, Tensor], device: str, dtype: torch.dtype
) -> Contestant:
    """One of PEERS with its own step, our settings, and our initial ``weights``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about syntax and versions
        if name == "dictionary_learning":
            return _dictionary_learning(config, weights, device, dtype)
        return _saelens(config, weights, device, dtype, sparse=name.endswith("sparse"))


def _dictionary_learning(
    config: TrainerConfig, weights: Mapping[str, Tensor], device: str, dtype: torch.dtype
) -> Contestant:
    from dictionary_learning.trainers.top_k import TopKTrainer  # pyright: ignore[reportMissingImports]

    trainer: Any = TopKTrainer(
        steps=config.n_steps,
        activation_dim=config.d_model,
        dict_size=config.d_sae,
        k=config.k,
        layer=0,
        lm_name="benchmark",
        lr=config.learning_rate,
        auxk_alpha=config.auxk_coefficient,
        warmup_steps=config.warmup_steps,
        seed=config.seed,
        device=device,
    )
    sae = trainer.ae
    with torch.no_grad():
        sae.encoder.weight.copy_(weights["W_enc"].t())
        sae.decoder.weight.copy_(weights["W_dec"].t())
    counter = iter(range(config.n_steps + 1))

    def step(x: Tensor) -> object:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return trainer.update(next(counter), x)

    return Contestant(step=step, reconstruct=lambda x: sae(x).detach())


def _saelens(
    config: TrainerConfig, weights: Mapping[str, Tensor], device: str, dtype: torch.dtype, *, sparse: bool
) -> Contestant:
    from sae_lens.config import SAETrainerConfig  # pyright: ignore[reportMissingImports]
    from sae_lens.saes.topk_sae import (  # pyright: ignore[reportMissingImports]
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.training.sae_trainer import SAETrainer as Trainer  # pyright: ignore[reportMissingImports]

    sae: Any = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=config.d_model,
            d_sae=config.d_sae,
            k=config.k,
            use_sparse_activations=sparse,
            rescale_acts_by_decoder_norm=not sparse,  # sparse codes times a norm have no gradient in torch
            device=device,
        )
    )
    with torch.no_grad():
        for name in ("W_enc", "W_dec", "b_dec"):
            getattr(sae, name).copy_(weights[name])
    trainer: Any = Trainer(
        SAETrainerConfig(
            total_training_samples=config.n_steps * config.batch_tokens,
            train_batch_size_samples=config.batch_tokens,
            lr=config.learning_rate,
            lr_end=config.learning_rate,
            lr_warm_up_steps=config.warmup_steps,
            device=device,
            autocast=dtype == torch.bfloat16,
        ),
        sae,
        iter(()),
    )

    def step(x: Tensor) -> object:
        found = trainer.step(x)
        trainer.n_training_steps += 1
        return found

    return Contestant(step=step, reconstruct=lambda x: sae(x).detach())
