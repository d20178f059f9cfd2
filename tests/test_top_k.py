"""The quick ways to the k largest features against ``torch.topk``: in order, every bit and index must agree."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.finite import all_finite
from backend.sae import CPU_PATCHES, SAEConfig, TopKSAE
from backend.top_k import top_k, top_k_in_any_order


def random_rows(seed: int, n_tokens: int, d_sae: int, n_values: int | None = None) -> torch.Tensor:
    """Normal numbers, or whole numbers of so many values, most of which then occur often in a row."""
    generator = torch.Generator().manual_seed(seed)
    if n_values is None:
        return torch.randn(n_tokens, d_sae, generator=generator)
    return torch.randint(-n_values, n_values, (n_tokens, d_sae), generator=generator).float() / 2


def assert_same(pre: torch.Tensor, k: int) -> None:
    values, indices = top_k(pre, k)
    expected = pre.topk(k, dim=1)
    assert torch.equal(values.nan_to_num(7), expected.values.nan_to_num(7))
    assert torch.equal(indices, expected.indices)


@given(
    st.integers(0, 2**32), st.integers(1, 9), st.sampled_from([64, 512, 1000, 1024]), st.sampled_from([None, 9, 999])
)
@settings(max_examples=80, deadline=None)
def test_the_k_largest_in_order_are_those_of_topk(seed: int, k: int, d_sae: int, n_values: int | None) -> None:
    assert_same(random_rows(seed, 20, d_sae, n_values), k)


def test_the_quick_way_is_the_one_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ties nothing but the few columns that pass is given to ``torch.topk``."""
    pre = random_rows(0, 50, 1024)
    expected = pre.topk(8, dim=1)
    widths, plain = [], torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor, "topk", lambda x, *args, **named: widths.append(x.shape[1]) or plain(x, *args, **named)
    )
    values, indices = top_k(pre, 8)
    assert len(widths) == 1 and widths[0] < 64
    assert torch.equal(values, expected.values) and torch.equal(indices, expected.indices)


@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf"), 0.0, -0.0])
def test_special_values_and_ties_of_single_rows(special: float) -> None:
    pre = random_rows(1, 30, 1024)
    pre[3, ::7] = special
    pre[5] = special
    pre[7, :1020] = special
    pre[9, 100] = special
    assert_same(pre, 8)


def test_features_that_are_all_in_one_run_are_found() -> None:
    pre = random_rows(2, 10, 1024)
    pre[:, ::64] += 100
    pre[:, 960:] += 90
    assert_same(pre, 8)


def test_no_rows_and_other_precisions() -> None:
    assert top_k(torch.empty(0, 1024), 8)[0].shape == (0, 8)
    assert_same(random_rows(3, 10, 1024).double(), 8)
    assert_same(random_rows(3, 10, 1024).bfloat16(), 8)


def test_rows_of_a_wider_table() -> None:
    assert_same(random_rows(4, 10, 2048)[:, :1024], 8)


@pytest.mark.parametrize("d_sae", [64, 512, 500])
def test_the_k_largest_in_any_order_are_those_of_topk(d_sae: int) -> None:
    pre = random_rows(d_sae, 200, d_sae)
    values, indices = top_k_in_any_order(pre, 4)
    expected = pre.topk(4, dim=1)
    assert torch.equal(values.sort(dim=1, descending=True).values, expected.values)
    assert torch.equal(pre.gather(1, indices), values)
    assert torch.equal(indices.sort(dim=1).values, expected.indices.sort(dim=1).values)


def test_with_ties_any_order_still_gives_the_largest_values() -> None:
    pre = random_rows(0, 50, 512, 3)
    values, indices = top_k_in_any_order(pre, 4)
    assert torch.equal(values.sort(dim=1, descending=True).values, pre.topk(4, dim=1).values)
    assert all(len(set(row)) == 4 for row in indices.tolist())


def test_encode_is_the_plain_product_and_topk_bit_by_bit() -> None:
    """More patches than are encoded at once, features that are nearly alike, and one feature twice."""
    rows = random_rows(5, 512, 32)
    rows[17], rows[300:310] = rows[16], rows[299] + random_rows(6, 10, 32) * 1e-6
    rows = rows / rows.norm(dim=1, keepdim=True)
    config = SAEConfig(d_model=32, d_sae=512, k=8)
    sae = TopKSAE(config, W_enc=rows.T, b_enc=torch.zeros(512), W_dec=rows, b_dec=random_rows(7, 1, 32)[0])
    x = random_rows(8, CPU_PATCHES + 300, 32) + 4 * rows[16]
    found = sae.encode(x)
    expected = torch.addmm(sae.b_enc, x - sae.b_dec, sae.W_enc).topk(8, dim=-1)
    assert (expected.values.diff(dim=1) == 0).any(), "the case of ties must be in it"
    torch.testing.assert_close(found.values, expected.values.relu(), rtol=1e-5, atol=1e-5)
    in_parts = [torch.addmm(sae.b_enc, part - sae.b_dec, sae.W_enc).topk(8, dim=-1) for part in x.split(CPU_PATCHES)]
    assert torch.equal(found.values, torch.cat([part.values for part in in_parts]).relu())
    assert torch.equal(found.indices, torch.cat([part.indices for part in in_parts]))


@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_seen(special: float) -> None:
    x = random_rows(9, 40, 50)
    assert all_finite(x) and all_finite(torch.empty(0))
    x[31, 7] = special
    assert not all_finite(x)
    x[2, 2] = -special
    assert not all_finite(x)


def test_a_sum_that_overflows_is_no_infinity_among_the_numbers() -> None:
    assert all_finite(torch.full((100,), 3e38))
    assert all_finite(torch.full((100,), 6e4, dtype=torch.float16))
