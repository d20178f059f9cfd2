"""The address holds the whole state; what cannot be understood is said, never guessed."""

from __future__ import annotations

from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st

from app.url_state import MAX_TEXT, SCOPES, TABS, UrlState, parse, to_query
from backend.types import Operation
from tests.hostile import HOSTILE

TEXTS = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=60)


@given(
    st.builds(
        UrlState,
        tab=st.sampled_from(TABS),
        feature=st.none() | st.integers(0, 10**6),
        q=TEXTS,
        colour=TEXTS.filter(bool),
        operation=st.sampled_from(list(Operation)),
        scope=st.sampled_from(SCOPES),
        strength=st.none() | st.floats(-1e6, 1e6, allow_nan=False),
        image=TEXTS,
        prompt=TEXTS,
    )
)
def test_every_state_survives_its_address(state: UrlState) -> None:
    query = to_query(state)
    assert query.startswith("?tab=")
    assert parse(dict(parse_qsl(query[1:], keep_blank_values=True))) == state


def test_defaults_are_left_out() -> None:
    assert to_query(UrlState(tab="search")) == "?tab=search"


def test_what_is_not_understood_is_dropped_with_a_notice() -> None:
    state = parse({"tab": "nowhere", "feature": "x", "strength": "inf", "operation": "explode", "scope": "given"})
    assert state == UrlState(notices=state.notices)
    assert len(state.notices) == 5
    assert parse({"feature": "-1"}).feature is None
    assert parse({"feature": "2.5"}).feature is None


@given(st.dictionaries(st.sampled_from([*UrlState.__slots__, "other"]), st.text() | st.sampled_from(HOSTILE)))
def test_no_address_breaks_the_reader(query: dict[str, str]) -> None:
    state = parse(query)
    assert state.tab in TABS
    assert len(state.q) <= MAX_TEXT
