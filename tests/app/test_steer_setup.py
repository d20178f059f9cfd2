"""A set-up of steering: what an address says, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.steer_set import default_strength, row_value, rows_of, set_value, slider_maximum
from app.services import Services
from app.steer_setup import (
    MAX_PROMPT_CHARACTERS,
    MAX_ROWS,
    Patches,
    Rows,
    SteerRow,
    SteerSetup,
    Where,
    written_patches,
    written_rows,
)
from app.url_fields import BadField
from backend.errors import SubjectError, UnknownFeature
from backend.types import Operation, PatchScope

ROWS, PATCHES = Rows("steer"), Patches("patches")
STRENGTHS = st.floats(-1e5, 1e5).map(lambda value: float(f"{value:.6g}"))
A_ROW = st.builds(SteerRow, feature=st.integers(0, 10**6), operation=st.sampled_from(Operation), strength=STRENGTHS)


def setup(**more: Any) -> SteerSetup:
    return SteerSetup(**{"rows": (SteerRow(feature=2, strength=30.0),), "prompt": "what?", **more})


@given(rows=st.lists(A_ROW, min_size=1, max_size=MAX_ROWS))
def test_sets_survive_the_address(rows: list[SteerRow]) -> None:
    back = ROWS.parse(written_rows(rows))
    assert written_rows(back) == written_rows(rows)
    for before, after in zip(rows, back, strict=True):
        assert (after.feature, after.operation) == (before.feature, before.operation)
        assert after.strength == (0.0 if before.operation is Operation.ABLATE else before.strength)


@given(patches=st.sets(st.integers(0, 4095), min_size=1))
def test_patches_survive_the_address(patches: set[int]) -> None:
    where = PATCHES.parse(written_patches(patches))
    assert where == Where(PatchScope.GIVEN, tuple(sorted(patches)))
    assert PATCHES.parse(str(where)) == where


@given(text=st.text(max_size=60))
def test_no_address_breaks_the_reader(text: str) -> None:
    fields: tuple[Any, ...] = (ROWS, PATCHES)
    for field in fields:
        try:
            value = field.parse(text)
        except BadField as error:
            assert str(error)
        else:
            assert field.parse(field.text(value)) == value


def test_addresses_are_short_and_readable() -> None:
    rows = (SteerRow(feature=12, strength=34.5), SteerRow(feature=97, operation=Operation.ABLATE))
    assert ROWS.text(rows) == "12:add:34.5,97:ablate"
    assert written_patches([9, 3, 4, 5]) == "3-5.9"
    assert PATCHES.write(Where()) == ""
    assert PATCHES.write(Where(PatchScope.ACTIVE)) == "active"
    assert ROWS.write(()) == ""


@pytest.mark.parametrize(
    "text", ["12", "12:add", "12:add:x", "12:add:nan", "12:add:1e9", "-1:add:3", "12:push:3", "²:add:3", "1,2"]
)
def test_sets_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(BadField):
        ROWS.parse(text)


def test_more_features_than_fit_are_refused() -> None:
    nine = [SteerRow(feature=at, strength=1.0) for at in range(MAX_ROWS + 1)]
    with pytest.raises(BadField, match="more than 8"):
        ROWS.parse(written_rows(nine))
    with pytest.raises(SubjectError, match="at most 8"):
        setup(rows=tuple(nine))


@pytest.mark.parametrize("text", ["3-", "5-3", "1.x", "99999", "-", "3-99999999999", "given"])
def test_patches_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(BadField):
        PATCHES.parse(text)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rows": ()}, "No feature is chosen"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "x" * (MAX_PROMPT_CHARACTERS + 1)}, "at most 600"),
        ({"rows": (SteerRow(feature=2, strength=0.0),)}, "A strength of 0"),
        ({"where": Where(PatchScope.GIVEN)}, "No patch is painted"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 0.0}, "Top-p"),
    ],
)
def test_a_setup_is_checked_before_the_model_sees_it(more: dict[str, Any], message: str) -> None:
    with pytest.raises(SubjectError, match=message):
        setup(**more)


def test_a_setup_becomes_interventions_in_its_order() -> None:
    rows = (
        SteerRow(feature=2, strength=-3.0, operation=Operation.SET),
        SteerRow(feature=5, operation=Operation.ABLATE),
    )
    one = setup(rows=rows, where=Where(PatchScope.GIVEN, (1, 4)))
    told = [(x.feature, x.strength, x.operation, x.scope, x.patches) for x in one.interventions]
    assert told == [
        (2, -3.0, Operation.SET, PatchScope.GIVEN, (1, 4)),
        (5, 0.0, Operation.ABLATE, PatchScope.GIVEN, (1, 4)),
    ]
    assert [row.strength for row in one.scaled(2.5).rows] == [-7.5, 0.0]
    assert one.has_strength and not setup(rows=rows[1:]).has_strength


def test_greedy_draws_nothing_and_samples_are_paired() -> None:
    assert setup().sampling() is None
    drawn = setup(temperature=1.3, top_p=0.8, seed=9).sampling()
    assert drawn is not None
    assert (drawn.temperature, drawn.top_p, drawn.seed, drawn.paired) == (1.3, 0.8, 9, True)


# ---------------------------------------------------------------------------------------------- rows on the page


def test_the_default_strength_is_the_recommended_one_and_the_slider_reaches_beyond(services: Services) -> None:
    record = services.store.feature(2)
    assert record.recommended_strength is not None
    assert default_strength(record) == pytest.approx(record.recommended_strength, abs=0.05)
    assert slider_maximum(record) >= 3 * record.recommended_strength


def test_a_row_brings_all_that_the_browser_shows(services: Services) -> None:
    record = services.store.feature(2)
    shown = row_value(services, SteerRow(feature=2, strength=0.0, operation=Operation.SET))
    assert (shown["strength"], shown["operation"], shown["maximum"]) == (0.0, "set", record.maximum)
    assert shown["words"] == record.best_text
    assert shown["picture"]["src"].startswith("iconoscope/")
    ablated = row_value(services, SteerRow(feature=2, operation=Operation.ABLATE))
    assert ablated["strength"] == default_strength(record)
    with pytest.raises(UnknownFeature):
        row_value(services, SteerRow(feature=10, strength=1.0))


def test_the_open_feature_is_the_default_that_an_address_need_not_say(services: Services) -> None:
    record = services.store.feature(2)
    value = set_value(services, (), record, gentle=True)
    assert value["initial"] == written_rows(rows_of(value)) == f"2:add:{default_strength(record):.6g}"
    assert value["gentle"] and value["offered"]["feature"] == 2
    other = set_value(services, (SteerRow(feature=3, strength=4.0),), record)
    assert written_rows(rows_of(other)) == "3:add:4"
    assert other["initial"] == value["initial"]


@pytest.mark.parametrize("sent", [None, "x", [], {}, {"rows": None}, {"rows": ["x", 3]}])
def test_a_browser_without_rows_sends_none(sent: Any) -> None:
    assert rows_of(sent) == ()


@pytest.mark.parametrize(
    "row",
    [
        {"feature": "2", "operation": "add", "strength": 3},
        {"feature": True, "operation": "add", "strength": 3},
        {"feature": -2, "operation": "add", "strength": 3},
        {"feature": 2, "operation": "rm -rf", "strength": 3},
        {"feature": 2, "operation": "add", "strength": "much"},
        {"feature": 2, "operation": "set", "strength": float("inf")},
        {"feature": 2, "operation": "add"},
    ],
)
def test_rows_that_lie_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(SubjectError):
        rows_of({"rows": [row]})
