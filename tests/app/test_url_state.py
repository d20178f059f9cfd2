"""The address holds the whole state; what cannot be understood is said, never guessed. For every field of every tab."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.steer_setup import ALL_PATCHES, MAX_ROWS, MAX_STRENGTH, Patches, Rows, SteerRow, Where
from app.tabs import TABS
from app.url_fields import Choice, Field, Flag, Ids, Number, Numbers, Text, UrlState, Whole, by_name, to_query
from app.url_state import FIELDS, parse, state_of
from backend.types import Operation, PatchScope
from tests.hostile import HOSTILE


def _of_choice(field: Choice) -> st.SearchStrategy[Any]:
    return st.sampled_from(field.options)


def _of_text(field: Text) -> st.SearchStrategy[Any]:
    characters = st.characters(exclude_categories=("Cs",))
    # An empty text is the default: an address cannot say "" apart from saying nothing.
    return st.text(alphabet=characters, min_size=1, max_size=min(60, field.most)) | st.just(field.default)


def _of_number(field: Number) -> st.SearchStrategy[Any]:
    return st.none() | st.floats(field.low, field.high, allow_nan=False)


def _of_where(field: Patches) -> st.SearchStrategy[Any]:
    painted = st.sets(st.integers(0, field.most - 1), min_size=1, max_size=12).map(lambda found: tuple(sorted(found)))
    given_patches = painted.map(lambda patches: Where(PatchScope.GIVEN, patches))
    return st.just(ALL_PATCHES) | st.just(Where(PatchScope.ACTIVE)) | given_patches


def _of_rows(_: Rows) -> st.SearchStrategy[Any]:
    # An address gives six figures of a strength.
    strengths = st.floats(-MAX_STRENGTH, MAX_STRENGTH, allow_nan=False).map(lambda value: float(f"{value:.6g}"))
    moved = st.builds(
        SteerRow,
        feature=st.integers(0, 10**6),
        operation=st.sampled_from([Operation.ADD, Operation.SET]),
        strength=strengths,
    )
    ablated = st.builds(SteerRow, feature=st.integers(0, 10**6), operation=st.just(Operation.ABLATE))
    return st.lists(moved | ablated, max_size=MAX_ROWS).map(tuple)


STRATEGIES: dict[type[Field], Any] = {
    Choice: _of_choice,
    Text: _of_text,
    Number: _of_number,
    Flag: lambda _: st.booleans(),
    Whole: lambda field: st.none() | st.integers(0, field.high),
    Ids: lambda field: st.lists(st.integers(0, 10**6), max_size=min(8, field.most)).map(tuple),
    Numbers: lambda field: (
        st.just(()) | st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=field.n, max_size=field.n).map(tuple)
    ),
    Rows: _of_rows,
    Patches: _of_where,
}
"""Every value a field can have, by kind of field; a kind that is not here fails the tests."""


def values(field: Field) -> st.SearchStrategy[Any]:
    return STRATEGIES[type(field)](field)


def read(query: str) -> UrlState:
    return parse(dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True)))


@given(st.fixed_dictionaries({name: values(field) for name, field in FIELDS.items()}))
def test_every_state_survives_its_address(given_values: dict[str, Any]) -> None:
    state = state_of(**given_values)
    again = read(to_query(state))
    assert dict(again) == dict(state)
    assert again.notices == ()


@pytest.mark.parametrize("name", FIELDS)
def test_a_default_is_left_out(name: str) -> None:
    assert to_query(state_of(**{name: FIELDS[name].default})) == "?"


def test_every_tab_has_a_name_in_the_address() -> None:
    for name in TABS:
        assert read(f"?tab={name}")["tab"] == name


def test_what_is_not_understood_is_dropped_with_a_notice() -> None:
    state = parse({"tab": "nowhere", "feature": "x", "colour": "", "unknown": "1"})
    assert dict(state) == dict(state_of())
    assert len(state.notices) == 2
    for wrong in ("-1", "2.5", "1e3", "9" * 400, "٣"):
        assert parse({"feature": wrong})["feature"] is None


@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), st.text() | st.sampled_from(HOSTILE)))
def test_no_address_breaks_the_reader(query: dict[str, str]) -> None:
    state = parse(query)
    assert state["tab"] in TABS
    assert dict(read(to_query(state))) == dict(state)


def test_a_list_is_cut_before_it_costs_anything() -> None:
    state = by_name([[Ids("list", most=3)]])
    assert state["list"].parse("1.2.3.4.5") == (1, 2, 3)


def test_two_fields_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="'q'"):
        by_name([[Text("q")], [Whole("q")]])


def test_a_state_knows_its_fields_only() -> None:
    with pytest.raises(KeyError):
        state_of(nothing=1)
