"""The hand-written step: loss and gradients equal those of autograd on dense codes, sums are exact and ordered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from precompute.sae_gradients import FeatureBags, LossTerms, loss_and_gradients
from precompute.sae_trainer import SAETrainer, TrainerConfig
from tests.dense_gradients import dense_gradients

D_MODEL, D_SAE, N_TOKENS = 6, 40, 50


def weights(seed: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    rows = functional.normalize(normal(D_SAE, D_MODEL), dim=1)
    return {"W_enc": normal(D_SAE, D_MODEL), "b_enc": normal(D_SAE), "W_dec": rows, "b_dec": normal(D_MODEL)}


def tokens(seed: int, n: int = N_TOKENS, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, D_MODEL, generator=torch.Generator().manual_seed(100 + seed), dtype=dtype)


def terms(k: int = 5, k_aux: int = 3, n_tokens: int = N_TOKENS, dtype: torch.dtype = torch.float32) -> LossTerms:
    return LossTerms(k=k, k_aux=k_aux, auxk_coefficient=0.3, n_tokens=n_tokens, compute_dtype=dtype)


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_loss_and_gradients_equal_autograd_on_dense_codes(seed: int, k: int, n_dead: int) -> None:
    w, x = weights(seed), tokens(seed)
    w["b_enc"] -= 1.0  # so that some of the k largest are negative and are cut by the ReLU
    dead = torch.randperm(D_SAE, generator=torch.Generator().manual_seed(seed))[:n_dead].sort().values
    found = loss_and_gradients(x, w, dead, terms(k))
    loss, gradients = dense_gradients(x, w, dead, terms(k))
    torch.testing.assert_close(found.loss, loss)
    assert found.by_name.keys() == gradients.keys()
    for name, expected in gradients.items():
        torch.testing.assert_close(found.by_name[name], expected)
    torch.testing.assert_close(found.along_decoder, (gradients["W_dec"] * w["W_dec"]).sum(dim=1))
    pre = (x - w["b_dec"]) @ w["W_enc"].t() + w["b_enc"]
    kept = torch.zeros_like(pre).scatter(1, pre.topk(k, dim=1).indices, 1.0)
    assert torch.equal(found.fired, ((kept > 0) & (pre > 0)).any(dim=0))


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    """What processes that share a batch rely on; AuxK's mean and variance are those of the whole batch."""
    w, x, dead = weights(1), tokens(1), torch.tensor([3, 7, 20, 31])
    whole = loss_and_gradients(x, w, dead, terms())
    over_batch = _sums_over_batch(x, w, dead)
    parts = [
        loss_and_gradients(part, w, dead, terms(), sum_over_processes=_answering(over_batch))
        for part in x.split([13, 30, 7])
    ]
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss)
    for name, expected in whole.by_name.items():
        torch.testing.assert_close(sum(part.by_name[name] for part in parts), expected)


def _sums_over_batch(x: Tensor, w: dict[str, Tensor], dead: Tensor) -> list[Tensor]:
    """What the sum over processes gives while the whole batch is worked on."""
    seen: list[Tensor] = []
    loss_and_gradients(x, w, dead, terms(), sum_over_processes=lambda tensor: seen.append(tensor.clone()))
    return seen


def _answering(sums: list[Tensor]) -> Callable[[Tensor], None]:
    """A sum over processes that knows its results, in the order in which they are asked for."""
    remaining = iter(sums)

    def answer(tensor: Tensor) -> None:
        tensor.copy_(next(remaining))

    return answer


@given(st.integers(0, 1000), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_bags_summed_in_parts_give_the_same_sums(seed: int, part: int) -> None:
    """The way of GPUs. One feature is active on every token, others on none."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.stack([torch.randperm(9, generator=generator)[:3] + 1 for _ in range(30)])
    indices[:, 0] = 0
    values, rows = torch.rand(30, 3, generator=generator), torch.randn(30, 4, generator=generator)
    expected = torch.zeros(12, 4).index_add_(0, indices.flatten(), (values[:, :, None] * rows[:, None]).flatten(0, 1))
    for bags in (FeatureBags(indices, 12), FeatureBags(indices, 12, part=part)):
        torch.testing.assert_close(bags.sum_rows(values, rows), expected)
        sums = bags.sum_values(values[:, :, None])
        torch.testing.assert_close(sums[:, 0], torch.zeros(12).index_add_(0, indices.flatten(), values.flatten()))


def test_bfloat16_products_stay_close_to_float32() -> None:
    w = {name: value.float() for name, value in weights(4).items()}
    x, dead = tokens(4, n=400).float(), torch.tensor([1, 5, 9])
    exact = loss_and_gradients(x, w, dead, terms(n_tokens=400))
    rough = loss_and_gradients(x, w, dead, terms(n_tokens=400, dtype=torch.bfloat16))
    assert rough.loss == pytest.approx(float(exact.loss), rel=0.02)
    for name, expected in exact.by_name.items():
        assert rough.by_name[name].dtype == torch.float32
        cosine = functional.cosine_similarity(rough.by_name[name].flatten(), expected.flatten(), dim=0)
        assert 0.99 < cosine < 1, name  # below 1: it did compute in bfloat16


def plain_training(config: TrainerConfig, state: dict[str, Tensor], batches: list[Tensor], dead: Tensor) -> list[float]:
    """The published recipe step by step, from autograd's gradients."""
    leaves = {name: state[f"parameter.{name}"].clone() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    leaves["W_enc"] = leaves["W_enc"].t().contiguous()
    parameters = {name: torch.nn.Parameter(value) for name, value in leaves.items()}
    optimiser = torch.optim.Adam(parameters.values(), lr=config.learning_rate, betas=(0.9, 0.999))
    loss_terms = LossTerms(
        k=config.k, k_aux=config.k_aux, auxk_coefficient=config.auxk_coefficient, n_tokens=config.batch_tokens
    )
    losses = []
    for step, batch in enumerate(batches):
        values = {name: parameter.detach() for name, parameter in parameters.items()}
        loss, gradients = dense_gradients(batch / float(state["scale"]), values, dead, loss_terms)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        rows = parameters["W_dec"]
        assert rows.grad is not None
        rows.grad -= (rows.grad * rows.detach()).sum(dim=1, keepdim=True) * rows.detach()
        torch.nn.utils.clip_grad_norm_(parameters.values(), config.grad_clip)
        optimiser.param_groups[0]["lr"] = config.learning_rate_at(step)
        optimiser.step()
        rows.data.copy_(functional.normalize(rows.data, dim=1))
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("grad_clip", [1e-2, 100.0])
def test_a_training_run_follows_the_published_recipe(grad_clip: float) -> None:
    config = TrainerConfig(
        d_model=D_MODEL,
        d_sae=D_SAE,
        k=4,
        n_steps=30,
        batch_tokens=64,
        learning_rate=3e-3,
        warmup_steps=5,
        dead_after_tokens=1,
        grad_clip=grad_clip,
    )
    batches = [tokens(seed, n=64, dtype=torch.float32) for seed in range(30)]
    trainer = SAETrainer(config)
    trainer.initialise(batches[0])
    dead = torch.tensor([2, 11, 12, 30, 39])
    silent = torch.zeros(D_SAE, dtype=torch.int64)
    silent[dead] = 10  # counted at step 0; the next count comes after the last step of this test
    trainer.load_state({**trainer.state(), "tokens_silent": silent})
    expected = plain_training(config, trainer.state(), batches, dead)
    for batch in batches:
        trainer.step(batch)
    losses = [float(loss) for loss in trainer.losses]
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses[-1] < 0.9 * losses[0] or grad_clip < 1
