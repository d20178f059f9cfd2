"""Routes of our own: bytes as promised, nothing beyond the atlas and our static files, and safe headers."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import server
from app.catalogue import Catalogue
from app.services import Services


@pytest.fixture(scope="module")
def client(services: Services) -> TestClient:
    return TestClient(Starlette(routes=server.routes(Catalogue([services])), middleware=server.middleware()))


@pytest.fixture(scope="module")
def base(services: Services) -> str:
    return f"/iconoscope/{services.version}"


def test_points_are_one_binary_file_that_browsers_keep(client: TestClient, base: str, services: Services) -> None:
    answer = client.get(f"{base}/points.bin")
    assert answer.content == services.atlas.points()
    assert "immutable" in answer.headers["cache-control"]


def test_data_of_a_version_that_is_not_served_is_404(client: TestClient) -> None:
    assert client.get("/iconoscope/000000000000/points.bin").status_code == 404


def test_pictures_are_served_by_id(client: TestClient, base: str, services: Services) -> None:
    name = services.store.image_ids[0]
    answer = client.get(f"{base}/image/{name}")
    assert answer.headers["content-type"] == "image/webp"
    assert answer.content == services.store.image_bytes(name)
    made = services.store.synthetic(2, "steering")
    assert client.get(f"{base}/synthetic/2/steering/0").content == made[0].webp


@pytest.mark.parametrize(
    "path",
    [
        "image/nothing",
        "image/..%2F..%2Fmanifest.json",
        "feature/10.json",
        "words.json?ids=99999",
        "words.json?ids=-1",
        "words.json",
        "column/nothing.bin",
        "synthetic/2/steering/99",
        "synthetic/2/no_such_arm/0",
        "synthetic/10/steering/0",
    ],
)
def test_what_is_not_there_is_404(client: TestClient, base: str, path: str) -> None:
    assert client.get(f"{base}/{path}").status_code == 404


@pytest.mark.parametrize("name", ["..%2F__init__.py", "server.py", ""])
def test_only_static_files_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/iconoscope/static/{name}").status_code == 404


@pytest.mark.parametrize("name", [*server.SCRIPTS, *server.STYLES, *server.EMBED, server.PLOTLY])
def test_scripts_and_styles_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/iconoscope/static/{name}").status_code == 200


def test_every_file_of_the_static_folder_is_known() -> None:
    assert {path.name for path in server.STATIC_DIR.iterdir()} == {
        *server.SCRIPTS,
        *server.STYLES,
        *server.EMBED,
        server.ICON,
    }


def test_scripts_never_write_html() -> None:
    for name in (*server.SCRIPTS, "embed.js"):
        text = (server.STATIC_DIR / name).read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert word not in text, f"{name} uses {word}; text is set with textContent"


def test_no_address_of_another_site_is_in_scripts_or_styles() -> None:
    for name in (*server.SCRIPTS, *server.STYLES, *server.EMBED):
        # The namespace of SVG is a name and not an address.
        text = (server.STATIC_DIR / name).read_text(encoding="utf-8").replace('"http://www.w3.org/2000/svg"', "")
        assert "http://" not in text
        assert "https://" not in text


def test_the_policy_keeps_the_page_on_this_server(client: TestClient, base: str) -> None:
    headers = client.get(f"{base}/map.json").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
