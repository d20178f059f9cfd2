"""A planted atlas, opened once, for the explorer's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.services import Services, open_services
from tests.builders_app import build_steerable_atlas
from tests.builders_atlas import BagEncoder


@pytest.fixture(scope="session")
def planted_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_steerable_atlas(tmp_path_factory.mktemp("app") / "atlas", subject=None, n_features=40)


@pytest.fixture(scope="session")
def services(planted_atlas: Path) -> Services:
    return open_services(planted_atlas, encoder=BagEncoder())
