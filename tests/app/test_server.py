"""Routes of our own: bytes as promised, nothing beyond the atlas and our static files, and safe headers."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app import bundle, server
from app.catalogue import Catalogue
from app.services import Services

ALL_FILES = (*bundle.SCRIPTS, *bundle.STYLES, *bundle.EMBED)


@pytest.fixture(scope="module")
def client(services: Services) -> TestClient:
    catalogue = Catalogue([services])
    return TestClient(Starlette(routes=server.routes(catalogue), middleware=server.middleware(catalogue)))


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


@pytest.mark.parametrize("name", [*ALL_FILES, bundle.SCRIPT, bundle.STYLE, server.PLOTLY])
def test_scripts_and_styles_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/iconoscope/static/{name}").status_code == 200


def test_every_file_of_the_static_folder_is_known() -> None:
    assert {path.name for path in bundle.STATIC_DIR.iterdir()} == {*ALL_FILES, server.ICON}


def test_a_script_runs_after_those_that_it_names_as_it_loads() -> None:
    made = {
        name: set(re.findall(r"window\.(iconoscope\w*) = ", (bundle.STATIC_DIR / name).read_text(encoding="utf-8")))
        for name in bundle.SCRIPTS
    }
    assert all(made.values())
    known: set[str] = set()
    for name in bundle.SCRIPTS:
        text = (bundle.STATIC_DIR / name).read_text(encoding="utf-8")
        at_once = re.findall(r"(?:extends|^  const \{[^}]*\} =) window\.(iconoscope\w*)", text, re.MULTILINE)
        assert set(at_once) <= known, f"{name} needs {set(at_once) - known} before it"
        known |= made[name]


def test_one_file_holds_all_scripts_in_their_order() -> None:
    text = bundle.content(bundle.SCRIPT).decode()
    places = [text.index((bundle.STATIC_DIR / name).read_text(encoding="utf-8")) for name in bundle.SCRIPTS]
    assert places == sorted(places)


def test_what_the_page_may_fetch_early_is_served_and_its_own(services: Services, client: TestClient) -> None:
    early = re.findall(r"<([^>]+)>", server.preloads(services))
    assert len(early) == 4
    assert all(client.get(f"/{address}").status_code == 200 for address in early)
    assert sum(services.version in address for address in early) == 2


def test_scripts_never_write_html() -> None:
    for name in (*bundle.SCRIPTS, "embed.js"):
        text = (bundle.STATIC_DIR / name).read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert word not in text, f"{name} uses {word}; text is set with textContent"
        # Text of a notice is read out of markup; pages of the server are put in place. Nobody else reads markup.
        parsers = {"notices.js": 1, "iconoscope.js": 1}.get(name, 0)
        assert len(re.findall(r"DOMParser|parseFromString|createContextualFragment", text)) == 2 * parsers, name


def test_no_address_of_another_site_is_in_scripts_or_styles() -> None:
    for name in ALL_FILES:
        # The namespace of SVG is a name and not an address.
        text = (bundle.STATIC_DIR / name).read_text(encoding="utf-8").replace('"http://www.w3.org/2000/svg"', "")
        assert "http://" not in text
        assert "https://" not in text


def test_the_policy_keeps_the_page_on_this_server(client: TestClient, base: str) -> None:
    headers = client.get(f"{base}/map.json").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_is_compressed_and_pictures_are_not(services: Services) -> None:
    catalogue = Catalogue([services])
    page = Route("/", lambda _: PlainTextResponse("settings " * 1000))
    event = Route("/gradio_api/run/predict", lambda _: PlainTextResponse("settings " * 1000), methods=["POST"])
    app = Starlette(routes=[page, event, *server.routes(catalogue)], middleware=server.middleware(catalogue))
    with TestClient(app) as client:
        answer = client.get("/", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.text == "settings " * 1000
        assert "points.bin" in answer.headers["link"]
        answer = client.post("/gradio_api/run/predict", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.text == "settings " * 1000
        image = f"/iconoscope/{services.version}/image/{services.store.image_ids[0]}"
        picture = client.get(image, headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in picture.headers
