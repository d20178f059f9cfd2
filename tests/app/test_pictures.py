"""Pictures by id: one spelling, one address, one name, and words for what is not here."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import pictures, server, uploads
from app.catalogue import Catalogue
from app.components.image_chooser import chooser_value, chosen_image
from app.components.patch_picker import chosen_patches, picker_value
from app.services import Services
from backend.errors import ImageMissing
from backend.types import PatchGrid
from tests.hostile import HOSTILE


@pytest.fixture(scope="module")
def client(services: Services) -> TestClient:
    return TestClient(Starlette(routes=server.routes(Catalogue([services]))))


@pytest.fixture
def upload() -> str:
    stream = io.BytesIO()
    Image.new("RGB", (30, 20), "teal").save(stream, "PNG")
    return uploads.SHELF.add(stream.getvalue()).image_id


def test_every_kind_of_picture_opens(services: Services, upload: str) -> None:
    side = services.meta["image_px"]
    assert pictures.open_picture(services, "") is None
    assert pictures.open_picture(services, "blank") is None
    black, noise = (pictures.open_picture(services, name) for name in ("black", "noise-7"))
    assert black is not None and noise is not None
    assert black.size == noise.size == (side, side)
    assert not np.asarray(black).any()
    assert np.asarray(noise).std() > 60
    of_atlas = services.store.image_ids[0]
    opened = pictures.open_picture(services, of_atlas)
    assert opened is not None and opened.mode == "RGB"
    kept = pictures.open_picture(services, upload)
    assert kept is not None and kept.size == (30, 20)
    assert kept.getpixel((5, 5)) == (0, 128, 128)


def test_noise_follows_from_its_seed(services: Services) -> None:
    one, again, other = (pictures.open_picture(services, name) for name in ("noise-7", "noise-7", "noise-8"))
    assert one is not None and again is not None and other is not None
    assert one.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.parametrize("image_id", ["", "black", "noise-3", "atlas", "upload"])
def test_a_browser_finds_what_the_model_reads(
    client: TestClient, services: Services, upload: str, image_id: str
) -> None:
    image_id = {"atlas": services.store.image_ids[1], "upload": upload}.get(image_id, image_id)
    answer = client.get("/" + pictures.address(services, image_id))
    assert answer.status_code == 200
    found = Image.open(io.BytesIO(answer.content)).convert("RGB")
    wanted = pictures.open_picture(services, image_id)
    if wanted is None:
        assert (np.asarray(found) == 255).all()
    else:
        assert found.tobytes() == wanted.tobytes()
    assert pictures.size(services, image_id) == found.size


@pytest.mark.parametrize(
    "image_id", ["no-such-image", "noise-x", "noise--1", "upload-xyz", "../manifest.json", *HOSTILE]
)
def test_ids_nobody_knows_are_refused_in_words(client: TestClient, services: Services, image_id: str) -> None:
    with pytest.raises(ImageMissing, match="Choose one of the pictures shown"):
        pictures.open_picture(services, image_id)
    with pytest.raises(ImageMissing):
        pictures.require(services, image_id)
    assert client.get("/" + pictures.address(services, image_id)).status_code == 404


def test_an_upload_that_is_gone_says_how_to_mend_it(services: Services) -> None:
    for call in (pictures.open_picture, pictures.require, pictures.size):
        with pytest.raises(ImageMissing, match="Upload the same file again"):
            call(services, "upload-0123456789abcdef")


def test_names_are_for_people(upload: str) -> None:
    names = {pictures.name(one) for one in ("", "black", "noise-007", upload, "explain-3")}
    assert names == {"the blank image", "a black image", "noise (seed 7)", "the uploaded picture", "image explain-3"}


def test_images_of_the_atlas_come_in_pages(client: TestClient, services: Services) -> None:
    ids: list[str] = []
    page = 0
    while True:
        found = client.get(f"/iconoscope/{services.version}/images/{page}.json").json()
        if not found["images"]:
            break
        assert len(found["images"]) <= pictures.PAGE_SIZE
        ids += [one["id"] for one in found["images"]]
        page += 1
    assert tuple(ids) == services.store.image_ids
    assert found["total"] == len(ids)


# the components' values ----------------------------------------------------------------------------------------------


def test_the_chooser_offers_made_pictures_exemplars_and_what_is_selected(services: Services, upload: str) -> None:
    exemplars = services.pictures(2, 3)
    value = chooser_value(services, upload, exemplars=exemplars, maximum=9.0)
    ids = [choice["id"] for choice in value["choices"]]
    assert ids == ["", "black", "noise-1", *(one.image_id for one in exemplars), upload]
    assert chosen_image(value) == upload
    assert all(choice["alt"] for choice in value["choices"])
    assert value["choices"][3]["maximum"] == 9.0
    again = chooser_value(services, "blank")
    assert (chosen_image(again), len(again["choices"])) == ("", 3)


@pytest.mark.parametrize("value", [None, [], "x", {"selected": 3}, {"selected": None}, {"selected": "blank"}])
def test_whatever_a_browser_sends_names_an_image(value: object) -> None:
    assert chosen_image(value) == ""


def test_patches_are_sorted_and_inside_the_grid(services: Services) -> None:
    grid = services.store.grid
    value = picker_value(services, "black", [5, 3, 5, -1, grid.n_patches])
    assert value["patches"] == [3, 5]
    assert (value["rows"], value["cols"], value["image"]) == (grid.rows, grid.cols, "black")
    small = PatchGrid(rows=2, cols=2)
    sent = {"patches": [3, "1", None, 2.5, True, 0, 4, -1, 3, 10**30]}
    assert chosen_patches(sent, small) == (0, 3)
    for nonsense in (None, [], {"patches": "0"}, {"patches": {"0": 1}}):
        assert chosen_patches(nonsense, small) == ()
