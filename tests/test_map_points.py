"""The map in binary: what is written is read back, to 16 bits; other files are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backend.map_points import KEPT, MapPoints, decode, encode

COORDINATES = st.floats(-(2.0**96), 2.0**96, width=32)
N_LARGE = 100_000
MAX_BYTES = 1_000_000


@st.composite
def maps(draw: st.DrawFn) -> MapPoints:
    n = draw(st.integers(0, 40))
    ids = draw(st.lists(st.integers(0, 2**32 - 1), min_size=n, max_size=n))
    if draw(st.booleans()):
        ids = np.cumsum([one % 70_000 for one in ids]).tolist()
    return MapPoints(
        ids=np.array(ids, np.int64),
        x=draw(hnp.arrays(np.float32, n, elements=COORDINATES)),
        y=draw(hnp.arrays(np.float32, n, elements=COORDINATES)),
        cluster=draw(hnp.arrays(np.int64, n, elements=st.integers(-1, 65534))),
        kept=draw(hnp.arrays(np.bool_, n)),
    )


@given(maps())
def test_reading_gives_back_what_was_written_to_16_bits(points: MapPoints) -> None:
    found = decode(encode(points))
    assert np.array_equal(found.ids, points.ids)
    assert np.array_equal(found.cluster, points.cluster)
    assert np.array_equal(found.kept, points.kept)
    for name in ("x", "y"):
        wanted, got = getattr(points, name).astype(np.float64), getattr(found, name).astype(np.float64)
        extent = np.ptp(wanted) if wanted.size else 0.0
        size = np.abs(wanted).max(initial=0.0)
        # Half a step of 65536, and the rounding of float32.
        assert (np.abs(got - wanted) <= extent / 65535 / 2 + size * 2**-22).all()


def test_a_large_map_stays_below_a_megabyte() -> None:
    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(4 * N_LARGE, N_LARGE, replace=False))
    place = rng.normal(size=(2, N_LARGE)).astype(np.float32)
    points = MapPoints(ids=ids, x=place[0], y=place[1], cluster=ids % 300, kept=ids % 2 == 0)
    data = encode(points)
    assert len(data) <= MAX_BYTES
    assert np.array_equal(decode(data).ids, ids)


@pytest.mark.parametrize("broken", ["no header", "no magic", "cut", "longer"])
def test_other_files_are_refused(broken: str) -> None:
    data = encode(
        MapPoints(
            ids=np.arange(3),
            x=np.zeros(3, np.float32),
            y=np.ones(3, np.float32),
            cluster=np.array([0, 1, -1]),
            kept=np.ones(3, bool),
        )
    )
    assert data[-1] == KEPT
    files = {"no header": data[:8], "no magic": b"\0" * 4 + data[4:], "cut": data[:-1], "longer": data + b"\0"}
    with pytest.raises(ValueError, match="points"):
        decode(files[broken])


def test_a_point_that_is_nowhere_is_refused() -> None:
    bad = np.array([0, np.nan], np.float32)
    with pytest.raises(ValueError, match="finite"):
        encode(MapPoints(ids=np.arange(2), x=bad, y=bad, cluster=np.zeros(2, int), kept=np.zeros(2, bool)))
    with pytest.raises(ValueError, match="32 bits"):
        encode(
            MapPoints(
                ids=np.array([-1]),
                x=np.zeros(1, np.float32),
                y=np.zeros(1, np.float32),
                cluster=np.zeros(1, int),
                kept=np.zeros(1, bool),
            )
        )
