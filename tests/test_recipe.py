"""Recipes: what is wrong is named by its field; what is a place or runtime never reaches a fingerprint."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from backend.artifacts import canonical_payload
from backend.errors import RecipeError
from precompute.recipe import Recipe, load_recipe, parse_recipe, recipe_names, section_science
from tests.toy_pipeline import RECIPE, toy_recipe


def changed(path: str, value: Any = None, remove: bool = False) -> dict[str, Any]:
    """The toy recipe as TOML would give it, with one field set or removed."""
    raw = copy.deepcopy(RECIPE)
    place, *rest = path.split(".")
    table: Any = raw
    for name in rest:
        table, place = table[place], name
    if remove:
        del table[place]
    else:
        table[place] = value
    return raw


def test_a_whole_recipe_is_read() -> None:
    recipe = toy_recipe()
    assert recipe.name == "toy" and recipe.sae.grad_clip == 1.0 and isinstance(recipe.sae.grad_clip, float)
    assert recipe.explain.strengths == (8.0, 16.0) and recipe.explain.prompts.steering == "What is it?"
    assert recipe.judges.text_encoder == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sae.k", "4", r"sae\.k is '4'; it must be of type int"),
        ("sae.k", 4.0, r"sae\.k is 4\.0; it must be of type int"),
        ("sae.k", True, r"sae\.k is True; it must be of type int"),
        ("sae.learning_rate", "fast", r"sae\.learning_rate is 'fast'; it must be of type float"),
        ("sae.kk", 4, r"unknown field sae\.kk\. Known here: .*\bk\b"),
        ("surprise", {}, "unknown field surprise"),
        ("name", "x", "unknown field name"),
        ("explain.strengths", 8.0, r"explain\.strengths must be a list"),
        ("explain.strengths", [8.0, "x"], r"explain\.strengths\[1\] is 'x'"),
        ("explain.strengths", [], r"\[explain\] strengths must hold at least one value"),
        ("explain.prompts", "What?", r"explain\.prompts must be a table"),
        ("explain.prompts.top_k", "What?", r"unknown field explain\.prompts\.top_k"),
        ("explain.informed_scope", "some", r"explain\.informed_scope is 'some'; it must be one of active, all"),
        ("explain.per_feature_strength", 1, r"explain\.per_feature_strength is 1; it must be of type bool"),
        ("sae", 3, r"sae must be a table \[sae\]"),
        ("sae.k", 65, r"\[sae\] k must not exceed d_sae"),
        ("sae.k", 0, r"\[sae\] k must be greater than 0"),
        ("sae.decay_fraction", 1.5, r"\[sae\] decay_fraction must lie between 0 and 1"),
        ("subject.path", "", r"\[subject\] give a path or a repository"),
        ("explainer", {"steers": False}, r"\[explainer\] give a path or a repository"),
        ("explainer", {"path": "a", "steers": "no"}, r"explainer\.steers is 'no'; it must be of type bool"),
        ("subject.layer", -1, r"\[subject\] layer must be 0 or greater"),
        ("atlas.n_clusters", 300, r"n_clusters must not exceed 254"),
    ],
)
def test_a_wrong_field_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        parse_recipe(changed(path, value), "toy")
    assert str(caught.value).startswith("Recipe toy: ")


@pytest.mark.parametrize("path", ["sae.k", "sae", "explain.prompts.steering", "subject.layer", "score.n_images"])
def test_a_missing_field_is_named(path: str) -> None:
    with pytest.raises(RecipeError, match=rf"field {path} is missing"):
        parse_recipe(changed(path, remove=True), "toy")


def test_science_leaves_places_out_and_keeps_the_rest() -> None:
    recipe = toy_recipe()
    assert section_science(recipe.subject) == {"layer": 4, "repository": None, "tower": "vision"}
    assert "path" not in section_science(recipe.data) and "clip" not in section_science(recipe.judges)
    assert section_science(recipe.explain)["prompts"]["steering"] == "What is it?"
    for item in fields(Recipe):
        if item.name not in {"name", "title", "explainer"}:
            canonical_payload(section_science(getattr(recipe, item.name)))


def test_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"There is no recipe 'nothing'\. Shipped recipes: "):
        load_recipe("nothing")
    broken = tmp_path / "broken.toml"
    broken.write_text("[sae\nk = 4")
    with pytest.raises(RecipeError, match=r"broken\.toml is not valid TOML"):
        load_recipe(broken)


def test_shipped_recipes_are_valid() -> None:
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_a_recipe_that_extends_another_gives_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('extends = "world"\n[sae]\nk = 4\n', encoding="utf-8")
    (tmp_path / "mine.toml").write_text(
        'extends = "base.toml"\n[subject]\nlayer = 2\n[explain]\nstrengths = [7]\n', encoding="utf-8"
    )
    mine, world = load_recipe(tmp_path / "mine.toml"), load_recipe("world")
    assert (mine.name, mine.subject.layer, mine.sae.k, mine.explain.strengths) == ("mine", 2, 4, (7.0,))
    assert mine.subject.path == world.subject.path
    assert mine.explain.prompts == world.explain.prompts
    assert mine.score == world.score


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "no-such"', "extends 'no-such'"),
        ("extends = 3", "must be the name of a recipe"),
        ('extends = "mine.toml"', "extends itself: mine -> mine"),
    ],
)
def test_a_wrong_base_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "mine.toml")
