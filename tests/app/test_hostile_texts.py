"""Hostile words in everything an atlas holds: each piece of server-built HTML stays ours, and says them literally."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import server
from app.catalogue import Catalogue, open_catalogue
from app.components import addresses
from app.components.markup import VOID_TAGS, visible
from app.feature_document import feature_document
from app.hub import Hub
from app.tabs import TABS
from app.ui import layout
from app.wiring import Loading, wire
from tests.builders_atlas import BagEncoder, feature_id
from tests.builders_hostile import FILE_NAMES, build_hostile_atlas
from tests.hostile import HOSTILE

pytestmark = pytest.mark.slow  # seconds in all, for some hundred whole pages
TAGS = frozenset(
    "a article aside b body br button canvas caption code col colgroup dd details div dl dt em fieldset figcaption "
    "figure footer form g h1 h2 h3 h4 header hr html i img input label legend li line main mark meter nav ol option "
    "output p path pre progress q rect circle s section select small span strong summary sub sup svg table tbody td "
    "text textarea tfoot th thead time title tr ul polyline polygon title use dialog head link meta base".split()
)
ADDRESSES = re.compile(r"^(iconoscope/|#|\?|https://arxiv\.org/|data:image/webp;|\.\./\.\./\.\./$)")
ENOUGH = 40


class Strict(HTMLParser):
    """Reads HTML and notes whatever could run, and everything that would be read."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        if self.open:
            self.problems.append(f"never closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS and not (
            tag == "script" and (dict(attrs).get("src") or "").startswith("iconoscope/static/")
        ):
            self.problems.append(f"element {tag}")
        for name, value in attrs:
            if name.startswith("on") or name in {"srcdoc", "formaction", "xlink:href", "srcset"}:
                self.problems.append(f"attribute {name}={value!r}")
            if name in {"href", "src"} and not ADDRESSES.match(value or ""):
                self.problems.append(f"address {name}={value!r}")
            if name == "style" and re.search(r"url|expression|import|[<>\"'{}]", value or ""):
                self.problems.append(f"style {value!r}")
        if tag not in VOID_TAGS | {"link", "meta", "base", "col"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"stray </{tag}>")

    def handle_comment(self, data: str) -> None:
        self.problems.append(f"comment {data[:40]!r}")

    def handle_data(self, data: str) -> None:
        self.text += data


def words(text: str) -> str:
    """As a browser shows it: runs of white space are one space."""
    return " ".join(visible(text).split())


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder = build_hostile_atlas(tmp_path_factory.mktemp("hostile") / "atlas")
    return open_catalogue([folder], verify=True, encoder=BagEncoder())


@pytest.fixture(scope="module")
def hub(catalogue: Catalogue) -> Hub:
    with gr.Blocks(analytics_enabled=False) as blocks:
        return wire(blocks, catalogue, layout(catalogue))


def html_of(updates: dict[Any, Any]) -> list[str]:
    """The HTML among updates: what a gr.HTML component without a template of its own is given."""
    values = {key: value for key, value in updates.items() if isinstance(key, gr.HTML)}
    texts = [value.get("value") if isinstance(value, dict) else value for value in values.values()]
    return [text for text in texts if isinstance(text, str)]


def test_there_are_enough_of_them() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= ENOUGH
    assert max(len(text.encode()) for text in HOSTILE) >= 10_000


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_hostile_words_stay_words_in_every_tab(hub: Hub, catalogue: Catalogue, place: int) -> None:
    feature = feature_id(place)
    query = {"tab": "feature", "feature": str(feature), "q": HOSTILE[place][:900], "prompt": HOSTILE[place][:500]}
    updates, _ = Loading(hub).restored(query)
    pieces = html_of(updates)
    assert len(pieces) >= len(TABS) // 2
    problems = [problem for piece in pieces for problem in Strict(piece).problems]
    assert problems == []
    assert catalogue.default.store.feature(feature).best_text == HOSTILE[place]
    shown = [words(Strict(piece).text) for piece in pieces]
    assert any(words(HOSTILE[place]) in text for text in shown)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_wishes_of_a_browser_do_nothing_or_say_so(hub: Hub, text: str) -> None:
    event: Any = type("Event", (), {"value": {"action": text, "value": text}})
    assert hub.act(hub.catalogue.default, event) == {}
    updates, notices = Loading(hub).restored(dict.fromkeys(("tab", "atlas", "feature", "q", "image"), text[:600]))
    problems = [problem for piece in html_of(updates) for problem in Strict(piece).problems]
    assert problems == []
    assert notices


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_hostile_words_stay_words_in_the_framed_page_and_the_document(catalogue: Catalogue, place: int) -> None:
    services = catalogue.default
    client = TestClient(Starlette(routes=server.routes(catalogue)))
    answer = client.get(f"/iconoscope/embed/{services.key}/{feature_id(place)}")
    assert answer.status_code == 200
    read = Strict(answer.text.removeprefix("<!doctype html>"))
    assert read.problems == []
    assert words(HOSTILE[place]) in words(read.text)
    document = feature_document(services, feature_id(place))
    assert document["text"] == HOSTILE[place]
    json.dumps(document, allow_nan=False).encode("utf-8")


@pytest.mark.parametrize("name", FILE_NAMES)
def test_hostile_file_names_lead_to_their_own_picture(catalogue: Catalogue, name: str) -> None:
    services = catalogue.default
    client = TestClient(Starlette(routes=server.routes(catalogue)))
    address = addresses.image(name, services.version)
    assert re.fullmatch(r"[A-Za-z0-9%/._~-]+", address)
    assert client.get(f"/{address}").content == services.store.image_bytes(name)


def test_names_of_the_atlas_stay_words_in_its_address(catalogue: Catalogue) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", catalogue.default.key)
