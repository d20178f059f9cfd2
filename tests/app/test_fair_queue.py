"""Turns and limits before the shared model: nobody's burst delays another, and places are told exactly."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.fair_queue import FairQueue, RateLimit
from backend.errors import SubjectBusy

VISITORS = st.sampled_from("abcd")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(line: FairQueue[str]) -> list[str]:
    return [line.take()[1] for _ in range(len(line))]


def test_a_burst_of_one_visitor_never_delays_another() -> None:
    line: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3"):
        line.add("a", item)
    line.add("b", "b1")
    assert taken(line) == ["a1", "b1", "a2", "a3"]
    # While a is being served, a newcomer stands before a's next one.
    line.add("a", "a2", served={"a"})
    line.add("b", "b1", served={"a"})
    line.add("c", "c1", served={"a"})
    assert taken(line) == ["b1", "c1", "a2"]


@given(asked=st.lists(st.tuples(VISITORS, st.booleans()), max_size=40))
def test_places_say_exactly_when_each_item_comes(asked: list[tuple[str, bool]]) -> None:
    line: FairQueue[tuple[str, int]] = FairQueue()
    served: set[str] = set()
    for n, (visitor, takes) in enumerate(asked):
        line.add(visitor, (visitor, n), served)
        if takes:
            served = {line.take()[0]}
    places = dict(line.places())
    assert sorted(places.values()) == list(range(len(line)))
    order = [line.take()[1] for _ in range(len(line))]
    assert [places[item] for item in order] == list(range(len(order)))
    # One visitor's items keep their order, and nobody comes twice while another waits for a first time.
    for visitor in "abcd":
        own = [n for name, n in order if name == visitor]
        assert own == sorted(own)
    first_round = [name for name, _ in order[: len({name for name, _ in order})]]
    assert len(set(first_round)) == len(first_round)


@given(asked=st.lists(VISITORS, min_size=1, max_size=20), data=st.data())
def test_whoever_leaves_holds_nobody_up(asked: list[str], data: st.DataObject) -> None:
    line: FairQueue[tuple[str, int]] = FairQueue()
    items = [(visitor, n) for n, visitor in enumerate(asked)]
    for visitor, n in items:
        line.add(visitor, (visitor, n))
    leaver = data.draw(st.sampled_from(items))
    before = [item for item, _ in sorted(line.places(), key=lambda one: one[1])]
    assert line.remove(leaver[0], leaver)
    assert not line.remove(leaver[0], leaver)
    assert len(line) == len(before) - 1
    assert line.count(leaver[0]) == asked.count(leaver[0]) - 1
    assert set(taken(cast(Any, line))) == set(before) - {leaver}


def test_a_visitor_may_burst_and_then_waits_for_the_refill() -> None:
    clock = Clock()
    rate = RateLimit(burst=3, refill_s=4.0, clock=clock)
    for _ in range(3):
        rate.take("a")
    with pytest.raises(SubjectBusy, match=r"3 requests .* Try again in 4 s"):
        rate.take("a")
    rate.take("b")
    clock.now = 3.0
    with pytest.raises(SubjectBusy, match="Try again in 1 s"):
        rate.take("a")
    clock.now = 4.0
    rate.take("a")
    with pytest.raises(SubjectBusy):
        rate.take("a")
    clock.now = 1000.0
    for _ in range(3):
        rate.take("a")
    with pytest.raises(SubjectBusy):
        rate.take("a")
