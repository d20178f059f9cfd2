"""Several atlases are told apart by key in addresses and by version in data; unknown keys mean the first one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.catalogue import Catalogue, key_of, open_catalogue
from app.services import Services
from backend.errors import ArtifactMissing
from tests.builders_app import build_steerable_atlas
from tests.builders_atlas import BagEncoder


def test_two_atlases_of_one_name_get_two_keys(planted_atlas: Path, tmp_path: Path) -> None:
    other = build_steerable_atlas(tmp_path / "other", subject=None, n_features=12)
    catalogue = open_catalogue([planted_atlas, other], encoder=BagEncoder())
    first, second = catalogue
    assert len({first.key, second.key}) == 2
    assert first.key.rpartition("-")[0] == second.key.rpartition("-")[0] == key_of(first.meta)
    assert catalogue.get(second.key) is second
    assert catalogue.by_version(second.version) is second


def test_an_unknown_key_means_the_first_atlas(services: Services) -> None:
    catalogue = Catalogue([services, replace(services, key="second")])
    assert catalogue.get("") is catalogue.get("nobody") is catalogue.get(None) is services
    assert "nobody" not in catalogue


def test_an_unknown_version_is_nobodys(services: Services) -> None:
    with pytest.raises(KeyError):
        Catalogue([services]).by_version("0" * 12)


def test_no_atlas_is_said() -> None:
    with pytest.raises(ArtifactMissing, match="iconoscope serve"):
        open_catalogue([])


def test_keys_are_fit_for_addresses() -> None:
    assert key_of({"recipe": "Gemma 3/4B ${x}", "hook_point": {"layer": 13}}) == "gemma-3-4b-x-13"
    assert key_of({}) == "atlas"
