"""Server-built HTML is escaped by construction."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.markup import Markup, escape, h, join, visible
from tests.hostile import HOSTILE


class Reader(HTMLParser):
    """Collects the elements and the text that a browser would see."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes = dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.one_of(st.text(), st.sampled_from(HOSTILE), st.integers(), st.floats()))
def test_text_without_anything_special_is_not_treated_otherwise(value: object) -> None:
    assert escape(value) == html.escape(visible(str(value)), quote=True)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    read = Reader(h("p", text, title=text))
    assert read.tags == ["p"]
    assert read.text == visible(text)
    # An HTML parser normalises line ends of attributes; nothing else may differ.
    assert (read.attributes["title"] or "").replace("\r", "\n") == visible(text).replace("\r", "\n")


@given(st.text())
def test_any_text_is_read_back_as_itself(text: str) -> None:
    read = Reader(h("span", text))
    assert read.tags == ["span"]
    assert read.text.replace("\r\n", "\n").replace("\r", "\n") == visible(text).replace("\r\n", "\n").replace(
        "\r", "\n"
    )


def test_markup_is_not_escaped_twice_but_strings_inside_are() -> None:
    assert h("p", h("b", "<i>"), "&") == "<p><b>&lt;i&gt;</b>&amp;</p>"
    assert join(["<", Markup("<br>")], ", ") == "&lt;, <br>"
    assert escape("a") == "a"


@pytest.mark.parametrize("name", ["onclick", "onerror", "ONLOAD", "x y", "a>b"])
def test_event_handlers_and_broken_attribute_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        h("p", attributes={name: "1"})


@pytest.mark.parametrize("tag", ["script", "SCRIPT", "iframe", "style", "p onclick=x"])
def test_dangerous_elements_are_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        h(tag)


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "//elsewhere.example/x", "http://x", " iconoscope/", "data:text/html,x"]
)
def test_addresses_stay_on_this_site(address: str) -> None:
    with pytest.raises(ValueError, match="addresses"):
        h("a", "x", href=address)


def test_control_and_direction_characters_are_made_visible() -> None:
    assert visible("a\x00b\u202ec\n") == "a\ufffdb\ufffdc\n"
