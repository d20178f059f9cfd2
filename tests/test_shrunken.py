"""Shrunken models: each is built once, whole or not at all, where a recipe's ``shrunken/<kind>`` is looked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from backend.errors import RecipeError
from backend.models import load_subject, model_fingerprint
from backend.settings import resolve_path
from backend.types import HookPoint
from precompute.recipe import Recipe, load_recipe
from precompute.shrunken import MARK, ensure, ensure_for, gemma3, kinds, shrunken_kinds
from precompute.stage import plan
from tests.builders_families import BUILDERS


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICONOSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def with_shrunken_subject(path: str = "shrunken/gemma3") -> Recipe:
    world = load_recipe("world")
    return dataclasses.replace(world, subject=dataclasses.replace(world.subject, path=path, layer=1))


def test_every_family_of_subjects_has_a_shrunken_model() -> None:
    assert set(BUILDERS) <= set(kinds())


def test_a_shrunken_model_is_built_once_where_recipes_look_for_it(cache: Path) -> None:
    folder = ensure("gemma3")
    assert folder == cache / "shrunken" / "gemma3" == resolve_path("shrunken/gemma3")
    assert load_subject(folder, HookPoint(layer=1)).card.family == "gemma3"
    before, built = model_fingerprint(folder), (folder / "model.safetensors").stat()
    assert ensure("gemma3") == folder
    assert (folder / "model.safetensors").stat() == built
    assert [path.name for path in folder.parent.iterdir()] == ["gemma3"], "nothing temporary is left"
    (folder / MARK).write_text("other sources")
    ensure("gemma3")
    assert (folder / "model.safetensors").stat().st_ino != built.st_ino, "out of date, so built again"
    assert model_fingerprint(folder) == before, "the same sources give the same bytes"
    assert [path.name for path in folder.parent.iterdir()] == ["gemma3"]


def test_a_build_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(folder: Path, **_: object) -> Path:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("no room")

    monkeypatch.setattr(gemma3, "build", failing)
    with pytest.raises(RuntimeError, match="no room"):
        ensure("gemma3")
    assert list((cache / "shrunken").iterdir()) == []


def test_an_unknown_kind_is_named_with_those_there_are(cache: Path) -> None:
    with pytest.raises(RecipeError, match=r"no shrunken model 'gemma9'. Known: .*gemma3"):
        ensure_for(with_shrunken_subject("shrunken/gemma9"))


def test_places_of_a_recipe_are_walked_and_nothing_else(cache: Path) -> None:
    assert shrunken_kinds(load_recipe("world")) == []
    assert ensure_for(load_recipe("world")) == []
    recipe = with_shrunken_subject()
    assert shrunken_kinds(dataclasses.replace(recipe, title="shrunken/internvl")) == ["gemma3"]
    plan(recipe, stages=())
    assert (cache / "shrunken" / "gemma3" / "config.json").is_file(), "built before anything asks for its fingerprint"
