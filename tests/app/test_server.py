"""Routes of our own: bytes as promised, nothing beyond the atlas and our static files, and safe headers."""

from __future__ import annotations

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import server
from app.services import Services


@pytest.fixture(scope="module")
def client(services: Services) -> TestClient:
    return TestClient(Starlette(routes=server.routes(services), middleware=server.middleware()))


def test_points_are_one_small_binary_file(client: TestClient, services: Services) -> None:
    body = client.get("/iconoscope/points.bin").content
    n = int(np.frombuffer(body[:4], "<u4")[0])
    assert n == len(services.store)
    assert len(body) == 4 + 13 * n
    assert np.array_equal(np.frombuffer(body[4 : 4 + 4 * n], "<u4"), services.store.feature_ids)


def test_pictures_are_served_by_id(client: TestClient, services: Services) -> None:
    name = services.store.image_ids[0]
    answer = client.get(f"/iconoscope/image/{name}")
    assert answer.headers["content-type"] == "image/webp"
    assert answer.content == services.store.image_bytes(name)
    made = services.store.synthetic(2, "steering")
    assert client.get("/iconoscope/synthetic/2/steering/0").content == made[0].webp


@pytest.mark.parametrize(
    "path",
    [
        "image/nothing",
        "image/..%2F..%2Fmanifest.json",
        "static/..%2F__init__.py",
        "static/server.py",
        "static/",
        "feature/10.json",
        "cluster/99.json",
        "column/nothing.bin",
        "synthetic/2/steering/99",
        "synthetic/2/no_such_arm/0",
        "synthetic/10/steering/0",
    ],
)
def test_what_is_not_there_is_404(client: TestClient, path: str) -> None:
    assert client.get(f"/iconoscope/{path}").status_code == 404


@pytest.mark.parametrize("name", [*server.SCRIPTS, *server.STYLES, server.PLOTLY])
def test_scripts_and_styles_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/iconoscope/static/{name}").status_code == 200


def test_every_file_of_the_static_folder_is_known() -> None:
    assert {path.name for path in server.STATIC_DIR.iterdir()} == {*server.SCRIPTS, *server.STYLES, server.ICON}


def test_scripts_never_write_html() -> None:
    for name in server.SCRIPTS:
        text = (server.STATIC_DIR / name).read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert word not in text, f"{name} uses {word}; text is set with textContent"


def test_no_address_of_another_site_is_in_scripts_or_styles() -> None:
    for name in (*server.SCRIPTS, *server.STYLES):
        text = (server.STATIC_DIR / name).read_text(encoding="utf-8")
        assert "http://" not in text
        assert "https://" not in text


def test_the_policy_keeps_the_page_on_this_server(client: TestClient) -> None:
    headers = client.get("/iconoscope/map.json").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
