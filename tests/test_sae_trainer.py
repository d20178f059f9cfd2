"""The SAE trainer: equal decoders, folded scale, learning of a planted dictionary, exact resumption."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backend.errors import ActivationsNotFinite, DataError
from backend.sae import SAEConfig, TopKSAE
from precompute.sae_evaluation import measure
from precompute.sae_gradients import decode_sparse
from precompute.sae_trainer import SAETrainer, TrainerConfig, geometric_median
from precompute.token_stream import Cursor, TokenStream
from tests.dense_gradients import decode_dense


def config(**changes: float) -> TrainerConfig:
    defaults = {
        "d_model": 16,
        "d_sae": 32,
        "k": 2,
        "n_steps": 400,
        "batch_tokens": 256,
        "learning_rate": 1e-2,
        "warmup_steps": 20,
        "dead_after_tokens": 5_000,
    }
    return TrainerConfig(**{**defaults, **changes})


def planted_tokens(n: int, seed: int, d_model: int = 16, n_atoms: int = 12) -> tuple[Tensor, Tensor]:
    """Tokens that are sums of two of a few fixed directions around an offset, and the directions."""
    atoms = torch.nn.functional.normalize(
        torch.randn(n_atoms, d_model, generator=torch.Generator().manual_seed(5)), dim=1
    )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(n, n_atoms, generator=generator).topk(2, dim=1).indices
    lengths = 4 + 4 * torch.rand(n, 2, generator=generator)
    return torch.einsum("nk,nkd->nd", lengths, atoms[chosen]) + 3.0, atoms


def trained(n_steps: int = 400) -> SAETrainer:
    trainer = SAETrainer(config(n_steps=n_steps))
    for step in range(n_steps):
        batch = planted_tokens(256, seed=step)[0]
        if step == 0:
            trainer.initialise(batch)
        trainer.step(batch)
    return trainer


def sae_of(trainer: SAETrainer) -> TopKSAE:
    shape = trainer.config
    return TopKSAE(SAEConfig(d_model=shape.d_model, d_sae=shape.d_sae, k=shape.k), **trainer.weights())


@given(st.integers(0, 1000), st.integers(1, 7), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_sparse_decoding_equals_dense(seed: int, n_tokens: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(11, 3, generator=generator)
    indices = torch.stack([torch.randperm(11, generator=generator)[:k] for _ in range(n_tokens)])
    values = torch.rand(n_tokens, k, generator=generator)
    torch.testing.assert_close(decode_sparse(values, indices, rows), decode_dense(values, indices, rows))


def test_sparse_and_dense_decoding_have_equal_gradients() -> None:
    gradients = []
    for decode in (decode_sparse, decode_dense):
        rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        values = torch.rand(5, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
        indices = torch.tensor([[0, 1], [2, 3], [0, 6], [5, 4], [1, 2]])
        decode(values, indices, rows).square().sum().backward()
        gradients.append((rows.grad, values.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_geometric_median_ignores_a_far_token() -> None:
    points = torch.cat([torch.randn(99, 4, generator=torch.Generator().manual_seed(0)), torch.full((1, 4), 1e4)])
    assert geometric_median(points).norm() < 0.5 < points.mean(dim=0).norm()


def test_training_finds_the_planted_directions() -> None:
    trainer = trained()
    sae = sae_of(trainer)
    atoms = planted_tokens(1, 0)[1]
    best = (atoms @ sae.W_dec.t()).max(dim=1).values
    assert (best > 0.95).float().mean() > 0.8
    quality = measure(sae, [planted_tokens(512, seed=10_000)[0][None]]).quality()
    assert quality.explained_variance > 0.9 and quality.nmse < 0.1 and quality.l0 <= 2


def test_weights_work_on_raw_tokens_and_decoder_rows_have_unit_norm() -> None:
    trainer = trained(n_steps=30)
    weights = trainer.weights()
    torch.testing.assert_close(weights["W_dec"].norm(dim=1), torch.ones(32))
    tokens = planted_tokens(64, seed=77)[0]
    raw = sae_of(trainer).decode(sae_of(trainer).encode(tokens))
    inner = TopKSAE(
        SAEConfig(d_model=16, d_sae=32, k=2),
        W_enc=weights["W_enc"],
        b_enc=weights["b_enc"] / trainer.scale,
        W_dec=weights["W_dec"],
        b_dec=weights["b_dec"] / trainer.scale,
    )
    scaled = inner.decode(inner.encode(tokens / trainer.scale)) * trainer.scale
    torch.testing.assert_close(raw, scaled, rtol=1e-4, atol=1e-4)


def test_auxk_revives_dead_features() -> None:
    alive = {}
    for coefficient in (0.0, 1 / 32):
        trainer = SAETrainer(config(d_sae=64, auxk_coefficient=coefficient, dead_after_tokens=1000))
        trainer.initialise(planted_tokens(256, seed=0, n_atoms=40)[0])
        state = trainer.state()
        state["parameter.b_enc"][32:] = -0.35  # half of the features start silent
        trainer.load_state(state)
        for step in range(400):
            trainer.step(planted_tokens(256, seed=step, n_atoms=40)[0])
        meter = measure(sae_of(trainer), [planted_tokens(2048, seed=9_999, n_atoms=40)[0][None]])
        alive[coefficient] = int((meter.firing_fractions() > 0).sum())
    assert alive[1 / 32] > alive[0.0] + 5


def test_resumed_training_is_byte_identical() -> None:
    def run(trainer: SAETrainer, start: int, stop: int) -> SAETrainer:
        for step in range(start, stop):
            if step == 0:
                trainer.initialise(planted_tokens(256, seed=0)[0])
            trainer.step(planted_tokens(256, seed=step)[0])
        return trainer

    settings_ = config(n_steps=120, dead_after_tokens=500)
    whole = run(SAETrainer(settings_), 0, 120)
    first = run(SAETrainer(settings_), 0, 67)  # not a multiple of the recount interval
    second = SAETrainer(settings_)
    second.load_state({name: value.clone() for name, value in first.state().items()})
    run(second, 67, 120)
    for name, value in whole.state().items():
        assert torch.equal(value, second.state()[name]), name


def test_learning_rate_warms_up_and_decays_to_almost_nothing() -> None:
    rates = [config(n_steps=100, warmup_steps=10, decay_fraction=0.2).learning_rate_at(step) for step in range(100)]
    assert rates[0] < rates[9] == rates[50] == max(rates)
    assert rates[80] == rates[50] > rates[81] > rates[99] > 0


def test_explained_variance_uses_the_right_formula(rng: np.random.Generator) -> None:
    trainer = trained(n_steps=30)
    sae = sae_of(trainer)
    tokens = planted_tokens(300, seed=3)[0]
    error = (tokens - sae.decode(sae.encode(tokens))).double()
    expected = 1 - error.var(dim=0, correction=0).sum() / tokens.double().var(dim=0, correction=0).sum()
    whole = measure(sae, [tokens[None]]).quality()
    parts = measure(sae, [tokens[None, :100], tokens[None, 100:]]).quality()
    assert whole.explained_variance == pytest.approx(float(expected), rel=1e-6)
    assert parts.explained_variance == pytest.approx(whole.explained_variance)
    assert whole.n_tokens == 300


def test_nan_activations_stop_the_training() -> None:
    tokens = planted_tokens(256, seed=0)[0]
    tokens[3, 4] = float("nan")
    with pytest.raises(ActivationsNotFinite):
        SAETrainer(config()).initialise(tokens)


# ------------------------------------------------------------------------------------------------- token stream


def numbered(images: list[int]) -> Tensor:
    """Six one-number tokens per image that name image and patch."""
    return torch.tensor([[100.0 * image + patch] for image in images for patch in range(6)])


def stream(buffer_tokens: int, cursor: Cursor | None = None, batch_tokens: int = 4) -> TokenStream:
    return TokenStream(
        lambda indices: iter([(range(len(indices)), numbered(list(indices)).view(-1, 6, 1))]),
        n_images=10,
        patches_per_image=6,
        buffer_tokens=buffer_tokens,
        batch_tokens=batch_tokens,
        seed=3,
        cursor=cursor,
    )


@pytest.mark.parametrize("buffer_tokens", [24, 60])
def test_an_epoch_delivers_every_token_once_in_mixed_order(buffer_tokens: int) -> None:
    source = stream(buffer_tokens)
    batches = source.batches()
    seen = torch.cat([next(batches).tokens for _ in range(15)]).squeeze(1)
    assert sorted(seen.tolist()) == sorted(numbered(list(range(10))).squeeze(1).tolist())
    assert seen.tolist() != sorted(seen.tolist())
    again = torch.cat([next(batches).tokens for _ in range(15)]).squeeze(1)
    assert sorted(again.tolist()) == sorted(seen.tolist()) and again.tolist() != seen.tolist()


@pytest.mark.parametrize("buffer_tokens", [24, 60])
@pytest.mark.parametrize("n_before", [1, 6, 15, 22])
def test_a_stream_resumes_at_its_cursor(buffer_tokens: int, n_before: int) -> None:
    whole = stream(buffer_tokens).batches()
    expected = [next(whole) for _ in range(30)][n_before:]
    first = stream(buffer_tokens)
    batches = first.batches()
    for _ in range(n_before):
        next(batches)
    resumed = stream(buffer_tokens, first.cursor).batches()
    for batch in expected:
        assert torch.equal(batch.tokens, next(resumed).tokens)


def test_a_batch_larger_than_the_buffer_is_refused() -> None:
    with pytest.raises(DataError, match="batch_tokens"):
        stream(buffer_tokens=12, batch_tokens=13)
