"""Intervals, ranking areas and tests, checked against scikit-learn, SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from precompute import statistics

small_numbers = st.integers(min_value=0, max_value=4)


def test_items_of_one_cluster_are_one_piece_of_evidence(rng: np.random.Generator) -> None:
    """Twenty copies of each of 30 values tell no more than the 30 values do."""
    few = rng.normal(3, 1, 30)
    copies, labels = np.repeat(few, 20), [str(place) for place in np.repeat(np.arange(30), 20)]
    plain = statistics.bootstrap_mean(few, n_bootstrap=500, seed=1)
    clustered = statistics.bootstrap_mean(copies, clusters=labels, n_bootstrap=500, seed=1)
    assert (clustered.low, clustered.high) == pytest.approx((plain.low, plain.high)) and clustered.n == 600
    alone = statistics.bootstrap_mean(few, clusters=range(30), n_bootstrap=500, seed=1)
    assert alone == plain
    with pytest.raises(ValueError, match="2 labels for 30"):
        statistics.bootstrap_mean(few, clusters=["a", "b"], n_bootstrap=10, seed=1)


def test_clusters_of_the_pooled_auroc_are_resampled_whole(rng: np.random.Generator) -> None:
    positives, negatives = rng.normal(1, 1, (12, 3)), rng.normal(0, 1, (12, 3))
    plain = statistics.pooled_auroc(positives, negatives, n_bootstrap=200, seed=4)
    copies = [np.repeat(side, 10, axis=0) for side in (positives, negatives)]
    labels = np.repeat(np.arange(12), 10).tolist()
    clustered = statistics.pooled_auroc(*copies, labels, n_bootstrap=200, seed=4)
    assert clustered.value == pytest.approx(plain.value)
    assert (clustered.low, clustered.high) == pytest.approx((plain.low, plain.high))


def test_bootstrap_interval_covers_the_mean_and_narrows_with_n(rng: np.random.Generator) -> None:
    few = statistics.bootstrap_mean(rng.normal(3, 1, 30), n_bootstrap=500, seed=1)
    many = statistics.bootstrap_mean(rng.normal(3, 1, 3000), n_bootstrap=500, seed=1)
    assert few.low is not None and few.high is not None and many.low is not None and many.high is not None
    assert few.low < 3 < few.high and many.low < 3 < many.high
    assert (many.high - many.low) < (few.high - few.low) / 5


def test_bootstrap_is_seeded_and_honest_about_nothing() -> None:
    values = np.arange(10.0)
    first = statistics.bootstrap_mean(values, n_bootstrap=50, seed=7)
    assert first == statistics.bootstrap_mean(values, n_bootstrap=50, seed=7)
    assert first != statistics.bootstrap_mean(values, n_bootstrap=50, seed=8)
    assert statistics.bootstrap_mean(np.empty(0), n_bootstrap=50, seed=7).value is None


def test_bootstrap_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not finite"):
        statistics.bootstrap_mean(np.array([1.0, np.nan]), n_bootstrap=10, seed=0)


def test_wilson_matches_a_published_value() -> None:
    estimate = statistics.wilson(10, 100)
    assert estimate.low == pytest.approx(0.0552, abs=1e-4)
    assert estimate.high == pytest.approx(0.1744, abs=1e-4)


@pytest.mark.parametrize(("count", "n", "low", "high"), [(0, 12, 0.0, None), (12, 12, None, 1.0)])
def test_wilson_reaches_the_ends(count: int, n: int, low: float | None, high: float | None) -> None:
    estimate = statistics.wilson(count, n)
    assert low is None or estimate.low == low
    assert high is None or estimate.high == high


def test_wilson_of_nothing_is_absent() -> None:
    assert statistics.wilson(0, 0).value is None


@given(st.lists(small_numbers, min_size=1, max_size=20), st.lists(small_numbers, min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_auroc_equals_scikit_learn_with_ties(positives: list[int], negatives: list[int]) -> None:
    labels = [1] * len(positives) + [0] * len(negatives)
    expected = roc_auc_score(labels, positives + negatives)
    assert statistics.auroc(np.array(positives), np.array(negatives)) == pytest.approx(expected)


def test_pooled_auroc_point_equals_auroc_of_everything(rng: np.random.Generator) -> None:
    positives, negatives = rng.integers(0, 6, (40, 3)) + 1.0, rng.integers(0, 6, (40, 5)) * 1.0
    estimate = statistics.pooled_auroc(positives, negatives, n_bootstrap=100, seed=0)
    assert estimate.value == pytest.approx(statistics.auroc(positives.ravel(), negatives.ravel()))
    assert estimate.low is not None and estimate.high is not None and estimate.value is not None
    assert estimate.low < estimate.value < estimate.high and estimate.n == 40


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_sparse_average_precision_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_items, n_concepts = 40, 5
    scores = rng.integers(0, 5, n_items).astype(np.float32)  # many ties, many zeros
    positives = rng.random((n_items, n_concepts)) < 0.3
    active = scores > 0
    found = statistics.average_precision(scores[active], positives[active], positives.sum(axis=0), n_items)
    for concept in range(n_concepts):
        if positives[:, concept].any():
            assert found[concept] == pytest.approx(average_precision_score(positives[:, concept], scores))
        else:
            assert np.isnan(found[concept])


def test_average_precision_of_a_silent_feature_is_the_prevalence() -> None:
    found = statistics.average_precision(np.empty(0), np.empty((0, 2), dtype=bool), np.array([3, 0]), 12)
    assert found[0] == pytest.approx(0.25) and np.isnan(found[1])


def test_paired_test_sees_a_shift_that_spread_hides(rng: np.random.Generator) -> None:
    base = rng.normal(0, 10, 60)
    shifted = base + rng.uniform(0.1, 0.3, 60)
    paired, unpaired = statistics.wilcoxon_greater(shifted, base), statistics.mann_whitney_greater(shifted, base)
    assert paired.p is not None and paired.p < 1e-6 and paired.effect == pytest.approx(1.0)
    assert unpaired.p is not None and unpaired.p > 0.2
    opposite = statistics.wilcoxon_greater(base, shifted)
    assert opposite.p is not None and opposite.p > 0.99 and opposite.effect == pytest.approx(-1.0)


def test_equal_samples_have_no_paired_test() -> None:
    result = statistics.wilcoxon_greater(np.ones(5), np.ones(5))
    assert result.p is None and result.n == 5


def test_a_handful_of_values_has_students_interval() -> None:
    found = statistics.mean_of_few(np.array([1.0, 2.0, 3.0]))
    assert found.value == 2 and found.n == 3
    assert found.low == pytest.approx(2 - 4.302653 / np.sqrt(3), abs=1e-5)
    assert found.high == pytest.approx(2 + 4.302653 / np.sqrt(3), abs=1e-5)
    cut = statistics.mean_of_few(np.array([0.1, 0.9]), lowest=0.0, highest=1.0)
    assert (cut.low, cut.high) == (0.0, 1.0)
    alone = statistics.mean_of_few(np.array([5.0]))
    assert alone.value == 5 and alone.low is None and alone.high is None
    assert statistics.mean_of_few(np.empty(0)).value is None


@given(area=st.floats(0, 1), n_positives=st.integers(1, 60), n_negatives=st.integers(1, 400))
def test_an_area_lies_in_its_interval(area: float, n_positives: int, n_negatives: int) -> None:
    low, high = statistics.auroc_interval(area, n_positives, n_negatives)
    assert 0 <= low <= area <= high <= 1 and high > low
    mirrored = statistics.auroc_interval(1 - area, n_positives, n_negatives)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-5)
    finer = statistics.auroc_interval(area, 50 * n_positives, 50 * n_negatives)
    assert finer[1] - finer[0] < high - low


def test_an_area_of_one_from_three_positives_is_not_certain() -> None:
    low, high = statistics.auroc_interval(1.0, 3, 100)
    assert high == 1 and 0.3 < low < 0.9


def test_area_intervals_cover(rng: np.random.Generator) -> None:
    """Normal scores one standard deviation apart have the area Phi(1 / sqrt 2)."""
    true = 0.7602
    covered = 0
    for _ in range(400):
        area = statistics.auroc(rng.normal(1, 1, 12), rng.normal(0, 1, 40))
        low, high = statistics.auroc_interval(area, 12, 40)
        covered += low <= true <= high
    assert covered > 370


def test_no_interval_without_both_kinds() -> None:
    with pytest.raises(ValueError, match="0 positives"):
        statistics.auroc_interval(0.5, 0, 3)
