"""Intervals of what the explorer counts: the same as the pipeline's, and as wide as they claim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from app.intervals import median, wilson
from precompute import statistics


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_the_pipeline(counted: tuple[int, int]) -> None:
    mine, theirs = wilson(*counted), statistics.wilson(*counted)
    assert (mine.value, mine.n) == (theirs.value, theirs.n)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_no_trial_has_no_share_and_impossible_counts_are_refused() -> None:
    assert wilson(0, 0).value is None
    with pytest.raises(ValueError, match="outside"):
        wilson(3, 2)


def test_the_interval_of_a_median_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(2000):
        found = median(rng.exponential(size=60))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= np.log(2) <= found.high
    assert 0.94 <= held / 2000 <= 0.985


@pytest.mark.parametrize("n", [*range(6, 120), 200, 500, 1024, 7001])
def test_the_interval_of_a_median_is_nowhere_narrower_than_it_says(n: int) -> None:
    found = median(np.arange(n, dtype=float))
    assert found.low is not None
    assert found.high is not None
    # It holds the median if more than ``low`` items lie below it and at most ``high`` do: a binomial count.
    held = stats.binom.cdf(found.high, n, 0.5) - stats.binom.cdf(found.low, n, 0.5)
    assert 0.95 <= held <= 0.9985


def test_few_values_have_a_median_without_ends() -> None:
    assert median(np.array([])).value is None
    few = median(np.array([1.0, 2.0, 9.0]))
    assert (few.value, few.low, few.high, few.n) == (2.0, None, None, 3)
    with pytest.raises(ValueError, match="not finite"):
        median(np.array([1.0, np.nan]))
