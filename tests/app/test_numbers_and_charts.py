"""Numbers carry their n and interval; missing ones say why; charts agree with their numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from app.components import charts
from app.components.exemplars import pack_grid
from app.components.numbers import estimate, firing_words, missing, number, percent
from app.services import Services


def test_an_estimate_shows_value_interval_and_n() -> None:
    html = estimate(0.4321, 20, 0.4, 0.5)
    assert "0.43" in html
    assert "[0.40, 0.50]" in html
    assert "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}20" in html


def test_a_missing_estimate_says_why_and_is_never_zero() -> None:
    html = estimate(None, 0, reason="empty answer")
    assert "empty answer" in html
    assert "0" not in html
    assert "not computed" in missing(None)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.5, "0.50"),
        (0.0123, "0.012"),
        (0.00123, "0.0012"),
        (12.345, "12.3"),
        (339.0, "339"),
        (1234.5, "1,234"),
        (-0.25, "-0.25"),
        (math.nan, "not a number"),
    ],
)
def test_number(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 %"), (0.0012, "0.12 %"), (0.0998, "10 %"), (0.081, "8.1 %"), (0.5, "50 %"), (1, "100 %")],
)
def test_percent(value: float, shown: str) -> None:
    assert percent(value).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_a_firing_fraction_says_of_how_many_patches_and_not_of_the_images_it_fires_on(services: Services) -> None:
    record = services.store.feature(2)
    known = replace(record, histogram=(300, 9), firing_fraction=float(np.float32(309 / 409_600)), n_images_active=41)
    assert firing_words(known) == "of 409,600 patches; on 41 images"
    large = replace(known, histogram=(10_000_001,), firing_fraction=float(np.float32(10_000_001 / 204_800_000)))
    assert firing_words(large) == "of 204,800,000 patches; on 41 images"
    assert firing_words(replace(known, histogram=())) == "of patches; on 41 images"


def test_histogram_has_a_bar_per_bin_with_its_count_and_says_n() -> None:
    html = charts.histogram([10, 0, 5, 0, 0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert html.count("<rect") == 3, "the axis ends with the last bin in which anything was counted"
    assert html.count(">3.00</text>") == 1 and "5.00" not in html
    assert "2.00 to 3.00: 5 patches" in html
    assert "n = 15 patches" in html.replace("\N{NO-BREAK SPACE}", " ")


def test_histogram_without_data_says_so() -> None:
    assert "no histogram" in charts.histogram([], [])
    assert "no histogram" in charts.histogram([1], [0.0])


def test_interval_axis_places_the_value_between_its_ends() -> None:
    html = charts.interval_axis(0.5, 0.25, 0.75, 0.0, 1.0, 0.1)
    assert 'cx="50.00%"' in html
    assert 'x1="25.00%" x2="75.00%"' in html
    assert 'x1="10.00%"' in html
    assert charts.interval_axis(0.5, None, None, 1.0, 1.0, None) == ""


def test_truth_words_name_counts_that_were_left_out() -> None:
    truth = {
        "right": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "count": 5},
        "partly": {"value": 0.2, "low": 0.1, "high": 0.3, "n": 10, "count": 2},
        "wrong": {"value": 0.3, "low": 0.2, "high": 0.4, "n": 10, "count": 3},
        "undecidable": {"count": 7},
    }
    words = charts.truth_words(truth)
    assert "n = 10" in words
    assert "not decidable 7" in words
    assert charts.truth_bar(truth).count("data-kind=") == 3


def test_a_packed_grid_holds_the_stored_halves_row_by_row() -> None:
    import base64

    grid = np.array([[0.0, 1.5, 2.0], [3.25, 0.0, 9.0]], dtype=np.float32)
    assert np.array_equal(np.frombuffer(base64.b64decode(pack_grid(grid)), "<f2").reshape(2, 3), grid)
