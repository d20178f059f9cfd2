"""The harvest: streaming equals sorting everything, sparse equals dense, corrupt images are counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.models import load_subject
from backend.sae import TopKSAE
from backend.types import HookPoint, Split
from precompute import activation_histogram
from precompute.encoding import UNREADABLE
from precompute.exemplars import ExemplarIndex, alive_features, grid_of
from precompute.harvesting import N_SAMPLED, FeatureCounts, candidates, deciles, prune, ranked
from precompute.sparse_codes import add_coactivation, by_feature, pooled_matrix
from precompute.streaming_top import StreamingTop, among_top, sample_priority, top_rows
from tests.builders_pipeline import UNREADABLE_IDS, PlantedImages, planted_run, planted_subject

D_SAE = 7
seeds = st.integers(0, 2**32 - 1)


def random_codes(seed: int, n_images: int = 9, n_patches: int = 6, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Top-k codes with many equal values and some zeros."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(D_SAE), (n_images, n_patches, 1)), axis=-1)[..., :k]
    values = rng.integers(0, 4, size=order.shape) / 2
    return torch.from_numpy(values).float(), torch.from_numpy(order)


def splits_of(seed: int, n: int) -> list[np.ndarray]:
    """The numbers 0..n-1 in random chunks, in random order."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, n + 1, size=rng.integers(0, 4)))
    parts = [part for part in np.split(np.arange(n), cuts) if part.size]
    return [parts[place] for place in rng.permutation(len(parts))]


@given(seeds, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_streaming_top_equals_a_full_sort_for_any_batching(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    n_rows = int(rng.integers(1, 60))
    order = rng.permutation(n_rows)
    feature, value = rng.integers(0, 4, n_rows), rng.integers(0, 5, n_rows).astype(np.float32)
    stream = StreamingTop(n)
    for part in splits_of(seed, n_rows):
        stream.add(feature[part], value[part], order[part])
    expected = []
    for one in sorted(set(feature.tolist())):
        rows = sorted(np.flatnonzero(feature == one), key=lambda row: (-value[row], order[row]))[:n]
        expected += [(one, value[row], order[row]) for row in rows]
    assert list(zip(stream.feature, stream.value, stream.order, strict=True)) == expected


@pytest.mark.parametrize("rank", [top_rows, among_top])
def test_ranking_refuses_nan(rank: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="not finite"):
        rank(np.zeros(2, int), np.array([1.0, np.nan]), np.arange(2), 1)


@given(seeds, st.integers(1, 5), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_the_rows_that_may_win_are_those_that_a_full_sort_keeps(seed: int, n: int, n_rows: int) -> None:
    rng = np.random.default_rng(seed)
    feature, value = rng.integers(0, 9, n_rows), rng.integers(0, 5, n_rows).astype(np.float32)
    order = rng.permutation(n_rows)
    expected = np.isin(np.arange(n_rows), top_rows(feature, value, order, n)[0])
    np.testing.assert_array_equal(among_top(feature, value, order, n), expected)


@given(seeds, st.booleans())
@settings(max_examples=30, deadline=None)
def test_candidates_are_the_best_by_mean_and_by_max_and_the_sample(seed: int, sample: bool) -> None:
    n_images, n = 80, 2
    codes, positions = by_feature(*random_codes(seed, n_images)), np.random.default_rng(seed).permutation(n_images)
    order = positions[codes.pair_image]
    ranked_by = [(codes.pair_mean, n), (codes.pair_max, n)]
    if sample:
        ranked_by.append((-sample_priority(codes.pair_feature, order), N_SAMPLED))
    kept = np.unique(np.concatenate([top_rows(codes.pair_feature, by, order, most)[0] for by, most in ranked_by]))
    table = candidates(codes, positions, n, sample=sample)
    assert table["feature"].to_pylist() == codes.pair_feature[kept].tolist()
    assert table["position"].to_pylist() == order[kept].tolist()
    assert prune(table, n, sample=sample).equals(table)


@given(seeds, seeds)
@settings(max_examples=30, deadline=None)
def test_exemplars_do_not_depend_on_chunks(seed: int, chunk_seed: int) -> None:
    values, indices = random_codes(seed)
    n_images, n = values.shape[0], 2
    parts = []
    for part in splits_of(chunk_seed, n_images):
        codes = by_feature(values[part], indices[part])
        parts.append(candidates(codes, part, n, sample=True))
    merged = prune(pa.concat_tables(parts).combine_chunks(), n, sample=True)
    whole = candidates(by_feature(values, indices), np.arange(n_images), n_images, sample=True)
    for pooling in ("mean", "max"):
        assert ranked(merged, n, pooling).equals(ranked(whole, n, pooling))
    assert deciles(merged).equals(deciles(whole))


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_sparse_codes_equal_dense_arithmetic(seed: int) -> None:
    values, indices = random_codes(seed)
    dense = torch.zeros(*values.shape[:2], D_SAE).scatter_(2, indices, values).numpy()
    codes = by_feature(values, indices)
    np.testing.assert_allclose(pooled_matrix(codes, len(dense), D_SAE), dense.mean(axis=1), rtol=1e-6)
    for row, (feature, image) in enumerate(zip(codes.pair_feature, codes.pair_image, strict=True)):
        assert codes.pair_max[row] == dense[image, :, feature].max() > 0
        within = slice(codes.pair_start[row], codes.pair_stop[row])
        assert codes.patch[within].tolist() == np.flatnonzero(dense[image, :, feature]).tolist()
    fires = (dense > 0).reshape(-1, D_SAE).astype(int)
    pairs = torch.full((D_SAE * D_SAE,), 2)
    add_coactivation(pairs, values, indices, D_SAE)
    assert (pairs.view(D_SAE, D_SAE).numpy() == 2 + np.triu(fires.T @ fires, k=1)).all()


@given(seeds, seeds, st.sampled_from([2, 4, 8]))
@settings(max_examples=40, deadline=None)
def test_counts_of_parts_add_up(seed: int, chunk_seed: int, n_bins: int) -> None:
    values, indices = random_codes(seed)
    values = values * torch.logspace(-2, 2, values.shape[0])[:, None, None]  # ranges differ between chunks
    whole = FeatureCounts.of(by_feature(values, indices), 54, D_SAE, n_bins)
    total = FeatureCounts.empty(D_SAE, n_bins)
    for part in splits_of(chunk_seed, values.shape[0]):
        total = total + FeatureCounts.of(by_feature(values[part], indices[part]), 6 * len(part), D_SAE, n_bins)
    assert total.n_patches == whole.n_patches == 54
    for name in ("n_active", "maximum", "n_images_active", "exponent", "histogram"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))
    np.testing.assert_allclose(total.total, whole.total)
    again = FeatureCounts.from_table(whole.table())
    np.testing.assert_array_equal(again.histogram, whole.histogram)
    assert whole.histogram.sum() == (values > 0).sum()


def test_histogram_bins_are_tight_and_hold_every_value() -> None:
    value = np.array([0.3, 5.0, 7.9, 8.0])
    exponent = activation_histogram.exponents(np.array([8.0]), 4)
    assert exponent.tolist() == [2]  # bins of width 4 reach 16; bins of width 2 would end at 8, which is not below 8
    counts = activation_histogram.histogram(np.zeros(4, int), value, exponent, 4)
    assert counts.tolist() == [[1, 2, 1, 0]]


def test_the_sample_is_fair_and_fixed() -> None:
    feature = np.repeat(np.arange(50), 200)
    priority = sample_priority(feature, np.tile(np.arange(200), 50))
    assert priority.min() >= 0 and priority.max() < 1
    assert abs(priority.mean() - 0.5) < 0.01 and abs(np.quantile(priority, 0.1) - 0.1) < 0.01
    assert (priority == sample_priority(feature, np.tile(np.arange(200), 50))).all()


def test_deciles_run_from_strongest_to_weakest() -> None:
    values = torch.arange(1, 41, dtype=torch.float32).reshape(40, 1, 1)
    codes = by_feature(values, torch.zeros(40, 1, 1, dtype=torch.int64))
    table = deciles(candidates(codes, np.arange(40), 2, sample=True))
    assert table["rank"].to_pylist() == list(range(10))
    found = table["activation_mean"].to_pylist()
    assert found[0] == 40 and found[-1] == 1 and found == sorted(found, reverse=True)


# ----------------------------------------------------------------------------------------------- the stage itself


@pytest.mark.slow
def test_stage_equals_encoding_everything_at_once() -> None:
    artifacts = planted_run()
    harvest = artifacts["harvest"]
    sae = TopKSAE.load(artifacts["train_sae"].folder / "sae")
    images = PlantedImages(Split.EXPLAIN)
    ids = [image_id for image_id in images.ids if image_id not in UNREADABLE_IDS]
    subject = load_subject(planted_subject(), HookPoint(layer=1))
    residuals = subject.residuals([images.load(image_id) for image_id in ids])
    codes = sae.encode(residuals)
    dense = codes.dense().numpy()
    mean = dense.mean(axis=1)
    features = harvest.table("features").to_pylist()
    assert [row["alive"] for row in features] == (dense > 0).any(axis=(0, 1)).tolist()
    index = ExemplarIndex(harvest, Split.EXPLAIN, "mean", grid_of(harvest))
    for feature in alive_features(harvest):
        order = sorted(range(len(ids)), key=lambda row, f=feature: (-mean[row, f], row))
        expected = [row for row in order if mean[row, feature] > 0][:4]
        found = index.of(feature)
        np.testing.assert_allclose([one.activation_mean for one in found], mean[expected, feature], rtol=1e-3)
        for one in found:
            grid = dense[ids.index(one.image_id), :, feature].reshape(4, 4)
            np.testing.assert_allclose(one.grid, grid, rtol=1e-3, atol=1e-4)
        row = features[feature]
        assert row["firing_fraction"] == pytest.approx((dense[..., feature] > 0).mean(), abs=2e-3)
        assert sum(row["histogram"]) == row["n_active_patches"]
        assert row["maximum"] == pytest.approx(dense[..., feature].max(), rel=1e-3)
    stored = harvest.array("pooled_explain")
    np.testing.assert_allclose(stored, mean, rtol=5e-3, atol=1e-3)
    assert harvest.json("stream")["mean_residual_norm"] == pytest.approx(float(residuals.norm(dim=-1).mean()), rel=1e-4)


@pytest.mark.slow
def test_corrupt_images_are_counted_and_skipped() -> None:
    harvest = planted_run()["harvest"]
    assert harvest.manifest.failures == {UNREADABLE: 1}
    named = set(harvest.table("images")["image_id"].to_pylist()) | set(
        harvest.table("exemplars")["image_id"].to_pylist()
    )
    assert not named & UNREADABLE_IDS
    assert planted_run()["train_sae"].manifest.failures == {UNREADABLE: 1}
