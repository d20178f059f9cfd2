"""Training of a TopK SAE: tokens per second and loss against the trainers of others, and against the hardware.

Everybody sees the same made-up residuals in the same order, starts from the same weights, and takes steps in turn, so
that what slows the machine slows all. Loss is the squared error on tokens that nobody trained on, relative to their
variance. The floor is one dense product at the speed measured here plus the bytes that a step must move.

    PYTHONPATH=peers:. python -m benchmarks.sae_training
    python -m benchmarks.sae_training --device cuda --dtype bfloat16 --batch-tokens 8192
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from benchmarks.measuring import Measured, print_table, ratios
from benchmarks.sae_peers import OURS, PEERS, Contestant, installed, ours, peer
from benchmarks.verdicts import Measure, machine, print_measures, write_json
from precompute.sae_trainer import TrainerConfig

WARM_UP_STEPS = 3
"""Steps of each trainer that are not timed."""
HELD_OUT_TOKENS = 4096
_TIMED_RUNS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure; the defaults are one encoder layer of the paper at a quarter of its batch."""

    d_model: int = 1152
    """Width of the residual stream."""
    d_sae: int = 8192
    """Features."""
    k: int = 25
    """Active features per token."""
    batch_tokens: int = 2048
    """Tokens in one step."""
    n_steps: int = 150
    """Steps of every trainer."""
    learning_rate: float = 3e-4
    """The same for all, after a short warm-up."""
    device: str = "cpu"
    """Torch device."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the products; bfloat16 means autocast for the peers. Parameters are float32."""
    threads: int = 2
    """Threads on the CPU."""
    peers: bool = True
    """Compare with those of the peers that are installed."""
    json: Path | None = None
    """Write the results there too."""


class MadeUpResiduals:
    """Tokens like a residual stream's: a mean with a few huge coordinates, sparse directions, and noise.

    Directions have frequencies like 1/rank, twice as many as there are features, and lengths that vary.
    """

    def __init__(self, settings: Settings) -> None:
        generator = torch.Generator().manual_seed(1)
        d_model, n_atoms = settings.d_model, 2 * settings.d_sae
        self._settings = settings
        self._atoms = functional.normalize(torch.randn(n_atoms, d_model, generator=generator), dim=1)
        self._frequency = 1 / torch.arange(20, n_atoms + 20)
        normal = torch.randn(2, d_model, generator=generator)
        self._mean = 0.05 * normal[0] / normal[1].abs().clamp_min(0.02)  # Cauchy: a few coordinates dominate

    def batch(self, number: int, n_tokens: int) -> Float[Tensor, "token d_model"]:
        """The tokens of one step: a pure function of its number."""
        generator = torch.Generator().manual_seed(1000 + number)
        shape = (n_tokens, self._settings.k)
        which = torch.multinomial(self._frequency, n_tokens * shape[1], True, generator=generator).view(shape)
        lengths = torch.empty(shape).exponential_(generator=generator) + 0.3
        tokens = functional.embedding_bag(which, self._atoms, per_sample_weights=lengths, mode="sum")
        tokens += 0.02 * torch.randn(tokens.shape, generator=generator) + self._mean
        return tokens.to(self._settings.device)


def run_in_turn(
    contestants: Mapping[str, Contestant], batch: Callable[[int], Tensor], n_steps: int, device: str
) -> list[Measured]:
    """Every trainer's seconds per step, each step on the same batch, in an order that rotates."""
    names, seconds = list(contestants), {name: [] for name in contestants}
    for number in range(n_steps):
        tokens = batch(number)
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            wait_for(device)
            start = time.perf_counter()
            contestants[name].step(tokens)
            wait_for(device)
            seconds[name].append(time.perf_counter() - start)
    return [Measured(name=name, seconds=tuple(seconds[name][WARM_UP_STEPS:])) for name in names]


def wait_for(device: str) -> None:
    """Until the device has done what it was asked."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def held_out_error(contestant: Contestant, tokens: Float[Tensor, "token d_model"]) -> float:
    """Squared error relative to the variance of the tokens."""
    with torch.no_grad():
        error = (tokens - contestant.reconstruct(tokens)).square().sum()
    return float(error / (tokens - tokens.mean(dim=0)).square().sum())


def floor_seconds(settings: Settings) -> tuple[float, float]:
    """Seconds of one dense product, and of moving the bytes of a step, at the best speeds measured here."""
    d_model, d_sae, batch, device = settings.d_model, settings.d_sae, settings.batch_tokens, settings.device
    dtype = getattr(torch, settings.dtype)
    x, rows = torch.randn(batch, d_model), torch.randn(d_sae, d_model)
    x, rows = x.to(device, dtype), rows.to(device, dtype)
    out = torch.empty(batch, d_sae, dtype=dtype, device=device)
    product = _best(lambda: torch.mm(x, rows.t(), out=out), device)
    source = torch.empty(64 * 2**20, device=device).fill_(1.0)
    target = torch.empty_like(source)
    per_byte = _best(lambda: target.copy_(source), device) / (2 * source.numel() * source.element_size())
    of_weights = 2 * d_sae * d_model * (4 * 8 + (2 * dtype.itemsize if dtype != torch.float32 else 0))
    of_batch = batch * (2 * d_sae + 2 * d_model) * dtype.itemsize
    of_pairs = batch * settings.k * d_model * dtype.itemsize * 4
    return product, per_byte * (of_weights + of_batch + of_pairs)


def _best(run: Callable[[], object], device: str) -> float:
    run()
    seconds = []
    for _ in range(_TIMED_RUNS):
        wait_for(device)
        start = time.perf_counter()
        run()
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def verdicts(measured: list[Measured], errors: Mapping[str, float], floor: tuple[float, float]) -> list[Measure]:
    """What was aimed at: twice the best peer's speed at no more than the best peer's loss."""
    by_name = {one.name: one for one in measured}
    mine, n = by_name[OURS], len(by_name[OURS].seconds)
    peers = [one for one in measured if one.name != OURS]
    if not peers:
        note = "no peer installed: see benchmarks/README.md"
        rows = [Measure(what="speed relative to the best peer", value=None, unit="×", n=0, target=2.0, note=note)]
    else:
        best = min(peers, key=lambda one: one.median_s)
        speed, low, high = ratios(best, mine)
        lowest = min(peers, key=lambda one: errors[one.name])
        rows = [
            Measure(
                what="speed relative to the best peer",
                value=speed,
                unit="×",
                n=n,
                target=2.0,
                at_least=True,
                note=f"{best.name}; {low:.2f}–{high:.2f} within a step",
            ),
            Measure(
                what="held-out error relative to the best peer's",
                value=errors[OURS] / errors[lowest.name],
                unit="×",
                n=HELD_OUT_TOKENS,
                target=1.0,
                note=lowest.name,
            ),
        ]
    product, moving = floor
    note = f"dense product {1000 * product:.1f} ms, bytes {1000 * moving:.1f} ms"
    return [
        *rows,
        Measure(what="step relative to the floor", value=mine.median_s / sum(floor), unit="×", n=n, note=note),
    ]


def main(settings: Settings) -> None:
    """Measure and print."""
    torch.set_num_threads(settings.threads)
    dtype = getattr(torch, settings.dtype)
    config = TrainerConfig(
        d_model=settings.d_model,
        d_sae=settings.d_sae,
        k=settings.k,
        n_steps=settings.n_steps,
        batch_tokens=settings.batch_tokens,
        learning_rate=settings.learning_rate,
        warmup_steps=min(20, settings.n_steps // 5),
        decay_fraction=0.0,
    )
    residuals = MadeUpResiduals(settings)
    norm = residuals.batch(-1, settings.batch_tokens).square().sum(dim=1).mean().sqrt()
    mine, trainer = ours(config, residuals.batch(0, settings.batch_tokens) / norm, settings.device, dtype)
    contestants = {OURS: mine}
    start = trainer.weights()
    for name in PEERS if settings.peers else ():
        if not installed(name):
            Console().print(f"{name} is not installed and left out: see benchmarks/README.md.")
            continue
        contestants[name] = peer(name, config, start, settings.device, dtype)
    floor = floor_seconds(settings)
    measured = run_in_turn(
        contestants,
        lambda number: residuals.batch(number, settings.batch_tokens) / norm,
        settings.n_steps,
        settings.device,
    )
    unseen = residuals.batch(10**6, HELD_OUT_TOKENS) / norm
    errors = {name: held_out_error(one, unseen) for name, one in contestants.items()}
    baseline = "dictionary_learning" if "dictionary_learning" in contestants else OURS
    title = f"SAE training, one step of d_model {config.d_model}, d_sae {config.d_sae}, k {config.k}, {settings.dtype}"
    print_table(title, measured, baseline=baseline, n_units=settings.batch_tokens, unit="tokens")
    told = [
        Measure(what=f"held-out error after {config.n_steps} steps, {name}", value=error, unit="", n=HELD_OUT_TOKENS)
        for name, error in errors.items()
    ]
    described = {**machine(), "device": device_name(settings), "threads": str(torch.get_num_threads())}
    measures = [*told, *verdicts(measured, errors, floor)]
    print_measures(title, measures, described)
    if settings.json is not None:
        write_json(settings.json, title, measures, described)


def device_name(settings: Settings) -> str:
    """The GPU's name, or the CPU."""
    return torch.cuda.get_device_name() if settings.device.startswith("cuda") else settings.device


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
