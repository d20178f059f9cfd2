"""Training of the TopK SAE: the model's arithmetic, one optimisation step, and its complete state.

The trainer sees only batches of residual-stream tokens; it knows neither images nor files. Recipe (arXiv 2603.22593):
ReLU then top-k, unit-norm decoder rows, encoder = decoder transposed at the start, b_dec = geometric median, AuxK on
dead features, Adam with linear warm-up and final linear decay, gradient clipping, and no gradient along decoder rows.
Inputs are divided by their root-mean-square norm during training; ``weights`` folds that factor back.
Several processes may share a run: each gives the tokens it holds of every batch (precompute/processes.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from backend.errors import ActivationsNotFinite
from precompute.processes import ALONE, Processes
from precompute.sae_gradients import Gradients, LossTerms, loss_and_gradients

PARAMETER_NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")
RECOUNT_EVERY_STEPS = 50
"""Dead features are counted this often: counting needs a device synchronisation, a step does not."""
_MEDIAN_ITERATIONS = 100
_MEDIAN_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """Science settings of one training run."""

    d_model: int
    d_sae: int
    k: int
    n_steps: int
    batch_tokens: int
    learning_rate: float = 3e-4
    warmup_steps: int = 1000
    decay_fraction: float = 0.2
    """Share of the steps, at the end, over which the learning rate falls linearly to zero."""
    auxk_coefficient: float = 1 / 32
    dead_after_tokens: int = 10_000_000
    grad_clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.d_sae:
            raise ValueError(f"k = {self.k} must lie between 1 and d_sae = {self.d_sae}")
        if min(self.d_model, self.n_steps, self.batch_tokens) < 1:
            raise ValueError("d_model, n_steps and batch_tokens must be positive")

    @property
    def k_aux(self) -> int:
        """Dead features that AuxK may use per token (half the model width, as in the paper's code)."""
        return max(1, self.d_model // 2)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step 0..n_steps-1."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        decay_steps = max(1, round(self.n_steps * self.decay_fraction))
        return self.learning_rate * warm * min(1.0, (self.n_steps - step) / decay_steps)


def geometric_median(points: Float[Tensor, "token d_model"]) -> Float[Tensor, " d_model"]:
    """Point of least summed distance (Weiszfeld's iteration): a centre that a few huge tokens cannot drag away."""
    centre = points.mean(dim=0)
    for _ in range(_MEDIAN_ITERATIONS):
        weights = 1 / (points - centre).norm(dim=1).clamp_min(1e-8)
        moved = (weights[:, None] * points).sum(dim=0) / weights.sum()
        if torch.linalg.vector_norm(moved - centre) < _MEDIAN_TOLERANCE:
            return moved
        centre = moved
    return centre


class SAETrainer:
    """Parameters, optimiser and dead-feature bookkeeping of one run. ``initialise`` or ``load_state`` comes first."""

    def __init__(
        self,
        config: TrainerConfig,
        device: str = "cpu",
        *,
        compute_dtype: torch.dtype = torch.float32,
        processes: Processes = ALONE,
    ) -> None:
        """``compute_dtype`` of the products; parameters, their gradients and the optimiser are always float32."""
        self.config = config
        self.device = torch.device(device)
        self.compute_dtype = compute_dtype
        self.step_index = 0
        self.scale = 1.0
        """Root-mean-square norm of the first tokens; inputs are divided by it."""
        self.losses: list[Tensor] = []
        self._processes = processes
        self._tokens_silent = torch.zeros(config.d_sae, dtype=torch.int64, device=self.device)
        self._dead = torch.empty(0, dtype=torch.int64, device=self.device)
        self._parameters: dict[str, torch.nn.Parameter] = {}
        self._optimiser: torch.optim.Adam | None = None
        self._pre: Tensor | None = None

    # start -------------------------------------------------------------------------------------------------------

    def initialise(self, sample: Float[Tensor, "token d_model"]) -> None:
        """Set the scale, b_dec and random directions from the first tokens. Raises ActivationsNotFinite.

        Every process must be given the same sample; the first process's numbers hold for all.
        """
        sample = self._checked(sample)
        self.scale = float(sample.square().sum(dim=1).mean().sqrt().clamp_min(1e-8))
        generator = torch.Generator().manual_seed(self.config.seed)
        rows = functional.normalize(torch.randn(self.config.d_sae, self.config.d_model, generator=generator), dim=1)
        self._set_parameters(
            {
                "W_enc": rows.t().contiguous(),
                "b_enc": torch.zeros(self.config.d_sae),
                "W_dec": rows,
                "b_dec": geometric_median(sample / self.scale).cpu(),
            }
        )
        scale = torch.tensor(self.scale, dtype=torch.float64, device=self.device)
        for tensor in (scale, *self._parameters.values()):
            self._processes.broadcast(tensor.data)
        self.scale = float(scale)

    def _set_parameters(self, tensors: dict[str, Tensor]) -> None:
        self._parameters = {
            name: torch.nn.Parameter(_turned(name, tensors[name].detach()).to(self.device, copy=True))
            for name in PARAMETER_NAMES
        }
        self._optimiser = torch.optim.Adam(
            list(self._parameters.values()), lr=self.config.learning_rate, betas=(0.9, 0.999), fused=True
        )

    def _checked(self, tokens: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        if tokens.ndim != 2 or tokens.shape[1] != self.config.d_model:
            raise ValueError(f"expected tokens of width {self.config.d_model}, got shape {tuple(tokens.shape)}")
        tokens = tokens.to(self.device, torch.float32)
        if not torch.isfinite(tokens).all():
            raise ActivationsNotFinite("The subject's activations hold NaN or infinity; try dtype float32.")
        return tokens

    # one step ----------------------------------------------------------------------------------------------------

    def step(self, tokens: Float[Tensor, "token d_model"], n_tokens: int | None = None) -> None:
        """One optimisation step on a batch of raw residual tokens, already known to be finite.

        ``n_tokens``: size of the whole batch where other processes hold the rest of it. The loss stays on the device
        (``mean_loss`` reads it): nothing here waits for the device.
        """
        assert self._optimiser is not None, "initialise or load_state comes first"
        if self.step_index % RECOUNT_EVERY_STEPS == 0:
            self._dead = torch.nonzero(self._tokens_silent >= self.config.dead_after_tokens).squeeze(1)
        n_tokens = tokens.shape[0] if n_tokens is None else n_tokens
        x = tokens.to(self.device, non_blocking=True).to(torch.float32) / self.scale
        found = self._gradients(x, n_tokens)
        fired = found.fired.to(torch.float32)
        for tensor in (found.loss, found.along_decoder, fired, *found.by_name.values()):
            self._processes.sum(tensor)
        # Changing the length of a decoder row changes nothing: rows are brought back to length 1 below.
        found.by_name["W_dec"].addcmul_(found.along_decoder[:, None], self._parameters["W_dec"].data, value=-1)
        self._update(found.by_name)
        self._tokens_silent = torch.where(fired > 0, 0, self._tokens_silent + n_tokens)
        self.losses.append(found.loss)
        self.step_index += 1

    def _gradients(self, x: Float[Tensor, "token d_model"], n_tokens: int) -> Gradients:
        """This process's addends of loss and gradients."""
        if self._pre is None or self._pre.shape[0] < x.shape[0]:
            self._pre = torch.empty(x.shape[0], self.config.d_sae, dtype=self.compute_dtype, device=self.device)
        terms = LossTerms(
            k=self.config.k,
            k_aux=self.config.k_aux,
            auxk_coefficient=self.config.auxk_coefficient,
            n_tokens=n_tokens,
            compute_dtype=self.compute_dtype,
        )
        weights = {name: value.detach() for name, value in self._parameters.items()}
        buffer = self._pre[: x.shape[0]]
        return loss_and_gradients(x, weights, self._dead, terms, sum_over_processes=self._processes.sum, buffer=buffer)

    @torch.no_grad()
    def _update(self, gradients: dict[str, Tensor]) -> None:
        """Clip the gradients by their norm over all parameters, take Adam's step, and restore unit decoder rows."""
        assert self._optimiser is not None
        norm = torch.nn.utils.get_total_norm(list(gradients.values()))
        shrink = (self.config.grad_clip / (norm + 1e-6)).clamp(max=1.0)
        if norm.is_cuda or shrink < 1:  # on the CPU asking is free, and a factor of 1 would cost a pass over memory
            for gradient in gradients.values():
                gradient.mul_(shrink)
        for name, parameter in self._parameters.items():
            parameter.grad = gradients[name]
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step_index)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        rows = self._parameters["W_dec"]
        rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(1e-12))

    # results and state -------------------------------------------------------------------------------------------

    def mean_loss(self) -> float | None:
        """Mean loss since the last call (in units of the squared scale), or None if there was no step."""
        if not self.losses:
            return None
        mean = float(torch.stack(self.losses).mean())
        self.losses.clear()
        return mean

    def weights(self) -> dict[str, Tensor]:
        """The SAE for raw residuals, on the CPU: biases multiplied back by the scale, directions as they are.

        With x = scale * u the features obey relu(x @ W_enc + scale * b) = scale * relu(u @ W_enc + b).
        """
        folded = {name: _saved(name, self._parameters[name].detach()) for name in PARAMETER_NAMES}
        folded["b_enc"] *= self.scale
        folded["b_dec"] *= self.scale
        return folded

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as tensors. Batch order follows from the seed: there is no RNG state."""
        assert self._optimiser is not None, "initialise comes first"
        tensors = {f"parameter.{name}": _saved(name, value.detach()) for name, value in self._parameters.items()}
        for name, value in self._parameters.items():
            slot = self._optimiser.state.get(value, {})
            for key in ("exp_avg", "exp_avg_sq", "step"):
                if key in slot:
                    tensors[f"adam.{name}.{key}"] = _saved(name, slot[key].detach())
        tensors["tokens_silent"] = self._tokens_silent.cpu().clone()
        tensors["dead"] = self._dead.cpu().clone()
        tensors["step_index"] = torch.tensor(self.step_index)
        tensors["scale"] = torch.tensor(self.scale, dtype=torch.float64)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from ``state()`` as if never interrupted."""
        self._set_parameters({name: tensors[f"parameter.{name}"] for name in PARAMETER_NAMES})
        assert self._optimiser is not None
        for name, value in self._parameters.items():
            keys = [key for key in ("exp_avg", "exp_avg_sq", "step") if f"adam.{name}.{key}" in tensors]
            if keys:
                slot = {key: _turned(name, tensors[f"adam.{name}.{key}"]).to(self.device, copy=True) for key in keys}
                self._optimiser.state[value] = slot
        self._tokens_silent = tensors["tokens_silent"].clone().to(self.device)
        self._dead = tensors["dead"].clone().to(self.device)
        self.step_index = int(tensors["step_index"])
        self.scale = float(tensors["scale"])


def _turned(name: str, tensor: Tensor) -> Tensor:
    """Between the form of ``weights`` and the trainer's own, where W_enc has one row per feature as its gradient."""
    return tensor.t().contiguous() if name == "W_enc" and tensor.ndim == 2 else tensor


def _saved(name: str, tensor: Tensor) -> Tensor:
    """A copy on the CPU in the form of ``weights``."""
    return _turned(name, tensor).to("cpu", copy=True)
