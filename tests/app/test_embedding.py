"""The framed page of one feature: its switches do what they say, and only it may stand in another site's frame."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import embedding, server
from app.catalogue import Catalogue, open_catalogue
from app.services import Services
from tests.app.test_markup import Reader
from tests.builders_atlas import BagEncoder
from tests.hostile import HOSTILE

FEATURE = 2


@pytest.fixture(scope="module")
def catalogue(planted_atlas: Path) -> Catalogue:
    return open_catalogue([planted_atlas], verify=False, encoder=BagEncoder())


@pytest.fixture(scope="module")
def client(catalogue: Catalogue) -> TestClient:
    return TestClient(Starlette(routes=server.routes(catalogue), middleware=server.middleware(catalogue)))


def page(client: TestClient, catalogue: Catalogue, query: str = "", feature: int = FEATURE) -> str:
    answer = client.get(f"/iconoscope/embed/{catalogue.default.key}/{feature}{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return answer.text


def test_it_shows_words_pictures_scores_and_the_way_back(client: TestClient, catalogue: Catalogue) -> None:
    services: Services = catalogue.default
    html = page(client, catalogue)
    read = Reader(html)
    record = services.store.feature(FEATURE)
    assert record.best_text
    assert record.best_text in read.text
    assert html.count("<figure") == embedding.DEFAULT_EXEMPLARS
    assert read.text.count("n\N{NO-BREAK SPACE}=") > 5
    assert f"residual-stream L2, n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{sum(record.histogram):,} patches" in read.text
    for arm in services.store.arms:
        assert arm.label in read.text
    assert f'href="?atlas={services.key}&amp;tab=feature&amp;feature={FEATURE}"' in html
    assert "gradio" not in html.replace("gradio-container", "").lower()


@pytest.mark.parametrize(
    ("query", "n_figures", "n_cards", "n_scored"),
    [
        ("?n=3", 3, 8, 8),
        ("?n=0", 0, 8, 8),
        ("?explanations=best", 6, 1, 1),
        ("?explanations=none", 6, 0, 0),
        ("?scores=0", 6, 8, 0),
        ("?n=1&explanations=best&scores=0", 1, 1, 0),
        ("?n=999&explanations=every&scores=yes&overlay=x", 6, 8, 8),
    ],
)
def test_switches(
    client: TestClient, catalogue: Catalogue, query: str, n_figures: int, n_cards: int, n_scored: int
) -> None:
    html = page(client, catalogue, query)
    assert html.count("<figure") == n_figures
    assert html.count("<article") == n_cards
    assert html.count('<dl class="ico-scores"') == n_scored


@pytest.mark.parametrize(("theme", "dark"), [("dark", True), ("light", False), ("auto", False)])
def test_theme(client: TestClient, catalogue: Catalogue, theme: str, dark: bool) -> None:
    body = re.search(r"<body [^>]*>", page(client, catalogue, f"?theme={theme}"))
    assert body
    assert (" dark" in body[0]) == dark
    assert f'data-theme="{theme}"' in body[0]


def test_only_this_page_may_stand_in_a_frame_elsewhere(client: TestClient, catalogue: Catalogue) -> None:
    framed = client.get(f"/iconoscope/embed/{catalogue.default.key}/{FEATURE}").headers
    assert framed.get_list("content-security-policy") == [embedding.POLICY]
    assert "frame-ancestors *" in embedding.POLICY
    assert "unsafe" not in embedding.POLICY
    other = client.get(f"/iconoscope/{catalogue.default.version}/map.json").headers["content-security-policy"]
    assert "frame-ancestors 'self'" in other


def test_its_files_are_served_and_its_addresses_start_at_the_root(client: TestClient, catalogue: Catalogue) -> None:
    html = page(client, catalogue)
    assert '<base href="../../../">' in html
    addresses = re.findall(r'(?:src|href)="(iconoscope/[^"]+)"', html)
    assert len(addresses) > 8
    for one in dict.fromkeys(addresses):
        assert client.get(f"/{one}").status_code == 200, one


@pytest.mark.parametrize("path", ["planted-1/10", "elsewhere/2", "planted-1/x", "planted-1/-1", "planted-1/"])
def test_what_is_not_there_is_404(client: TestClient, path: str) -> None:
    assert client.get(f"/iconoscope/embed/{path}").status_code == 404


@pytest.mark.parametrize("text", [one for one in HOSTILE if len(one) < 500])
def test_hostile_switches_change_nothing(client: TestClient, catalogue: Catalogue, text: str) -> None:
    names = [field.name for field in embedding.SWITCHES]
    answer = client.get(f"/iconoscope/embed/{catalogue.default.key}/{FEATURE}", params=dict.fromkeys(names, text))
    assert answer.text == page(client, catalogue)
