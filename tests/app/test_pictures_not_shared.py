"""An atlas of ids alone: a tile says which picture is meant and why it is not shown; nothing breaks."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import pictures, server
from app.catalogue import Catalogue
from app.feature_document import feature_document
from app.services import Services, open_services
from backend.errors import ImageMissing
from tests.builders_app import edit_table
from tests.builders_atlas import BagEncoder, build_atlas

HOSTILE = 'explain-00-00"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Services:
    folder: Path = build_atlas(tmp_path_factory.mktemp("bare") / "atlas", n_features=12, encoder=BagEncoder())

    def strip(rows: list[dict[str, object]]) -> None:
        for row in rows:
            row.update(webp=None, width=None, height=None)
        rows[0]["image_id"] = HOSTILE

    edit_table(folder, "images", strip)
    return open_services(folder, encoder=BagEncoder())


@pytest.fixture(scope="module")
def client(bare: Services) -> TestClient:
    return TestClient(Starlette(routes=server.routes(Catalogue([bare]))))


def test_a_tile_names_the_image_and_the_reason(bare: Services, client: TestClient) -> None:
    name = bare.store.image_ids[5]
    answer = client.get(f"/{pictures.address(bare, name)}")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("image/svg+xml")
    words = " ".join(ElementTree.fromstring(answer.text).itertext())
    assert name in words and "licence" in words


def test_an_id_cannot_write_into_the_tile(bare: Services, client: TestClient) -> None:
    answer = client.get(f"/{pictures.address(bare, HOSTILE)}")
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(answer.text).iter()}
    assert tags == {"svg", "rect", "g", "text"}


def test_what_needs_the_pixels_is_refused_with_the_reason(bare: Services) -> None:
    name = bare.store.image_ids[5]
    assert pictures.require(bare, name) == name
    with pytest.raises(ImageMissing, match=r"the licence of these images allows no copies\. Upload it"):
        pictures.open_picture(bare, name)


def test_feature_pages_and_unknown_ids_work_as_ever(bare: Services, client: TestClient) -> None:
    assert feature_document(bare, 2)["feature"] == 2
    assert client.get(f"/iconoscope/{bare.version}/image/nothing").status_code == 404
    assert client.get(f"/iconoscope/{bare.version}/images/0.json").json()["total"] == len(bare.store.image_ids)
