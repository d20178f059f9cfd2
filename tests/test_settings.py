"""Folders and device come from the environment by a function, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import ArtifactMissing
from backend.settings import load_settings, require_dir, resolve_path
from tests.source_tree import ROOT


def test_defaults_are_the_repository_and_no_particular_device() -> None:
    settings = load_settings({})
    assert settings.root_dir == ROOT
    assert settings.assets_dir == ROOT / "assets" and settings.atlas_dir == ROOT / "assets" / "atlas"
    assert settings.world_dir == ROOT / "assets" / "world"
    assert settings.device == "auto" and "repository" in settings.assets_reason


def test_environment_overrides_and_says_so(tmp_path: Path) -> None:
    settings = load_settings({"ICONOSCOPE_ASSETS": str(tmp_path), "ICONOSCOPE_DEVICE": " cuda:1 "})
    assert settings.assets_dir == tmp_path and settings.device == "cuda:1"
    assert "ICONOSCOPE_ASSETS" in settings.assets_reason and "ICONOSCOPE_DEVICE" in settings.device_reason


def test_blank_variables_count_as_unset() -> None:
    assert load_settings({"ICONOSCOPE_ASSETS": "  ", "ICONOSCOPE_DEVICE": ""}) == load_settings({})


def test_environment_is_read_when_asked_not_at_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICONOSCOPE_ASSETS", str(tmp_path))
    assert load_settings().assets_dir == tmp_path


def test_paths_of_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({"ICONOSCOPE_ASSETS": str(tmp_path / "moved")})
    assert resolve_path("assets/world/subject", settings) == tmp_path / "moved" / "world" / "subject"
    cached = load_settings({"ICONOSCOPE_CACHE": str(tmp_path / "cache")})
    assert (
        resolve_path("shrunken/gemma3", cached)
        == tmp_path / "cache" / "shrunken" / "gemma3"
        == cached.shrunken_dir / "gemma3"
    )
    assert settings.shrunken_dir == Path.home() / ".cache" / "iconoscope" / "shrunken"
    assert resolve_path(tmp_path / "x", settings) == tmp_path / "x"
    assert resolve_path("no/such/place", settings) == ROOT / "no" / "such" / "place"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_path("here", settings) == tmp_path / "here"


def test_require_dir_says_what_is_missing_and_what_mends_it(tmp_path: Path) -> None:
    assert require_dir(tmp_path, "The atlas", "Make it.") == tmp_path
    with pytest.raises(ArtifactMissing, match=r"The atlas is not at .*\. Make it\."):
        require_dir(tmp_path / "x", "The atlas", "Make it.")
