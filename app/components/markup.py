"""Server-built HTML, escaped by construction.

This is the only place of the explorer that turns text into HTML. Everything an atlas, a model or a visitor
wrote reaches the page as a plain ``str`` and is escaped here; only :class:`Markup`, which nothing but
:func:`h` and :func:`join` makes, passes through untouched.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

VOID_TAGS = frozenset({"br", "hr", "img", "input", "line", "rect", "path", "circle", "use"})
_URL_ATTRIBUTES = frozenset({"href", "src"})
_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_SPECIAL = re.compile(f"[{_CONTROLS}&<>\"']")
"""What must not stand in HTML as it is. Most texts hold none of it, and one look tells."""
_NAME = re.compile(r"^[a-zA-Z][a-zA-Z0-9:-]*$")


class Markup(str):
    """A string that is already HTML."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]
Attribute = str | int | float | bool | None


def visible(text: str) -> str:
    """``text`` with control characters, bidirectional overrides and lone surrogates shown as a replacement sign."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def escape(text: object) -> Markup:
    """HTML-escaped text, safe inside elements and quoted attributes."""
    shown = str(text)
    return Markup(html.escape(visible(shown), quote=True) if _SPECIAL.search(shown) else shown)


@lru_cache(maxsize=512)
def _attribute_name(name: str) -> str:
    """``name`` as HTML has it. Raises ValueError if it is none, or that of an event handler."""
    name = name.rstrip("_").replace("_", "-")
    if not _NAME.match(name) or name.lower().startswith("on"):
        raise ValueError(f"attribute name {name!r} is not allowed in built HTML")
    return name


@lru_cache(maxsize=128)
def _tag(tag: str) -> str:
    """``tag`` if it may be built. Raises ValueError."""
    if not _NAME.match(tag) or tag.lower() in {"script", "style", "iframe", "object"}:
        raise ValueError(f"element {tag!r} is not allowed in built HTML")
    return tag


def _attribute(name: str, value: Attribute) -> str:
    name = _attribute_name(name)
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    if name in _URL_ATTRIBUTES and not str(value).startswith(("iconoscope/", "#", "?", "https://", "data:image/webp;")):
        raise ValueError(f"attribute {name} may only hold addresses of this site or https ones, not {value!r}")
    return f' {name}="{escape(value)}"'


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int | float):
        return escape(child)
    return "".join([_child(item) for item in child])


def h(tag: str, *children: Child, attributes: Mapping[str, Attribute] | None = None, **more: Attribute) -> Markup:
    """One element. ``class_`` and ``data_x`` become ``class`` and ``data-x``; strings are escaped.

    Raises ValueError for event-handler attributes and for addresses that leave the site other than by https.
    """
    given = {**attributes, **more} if attributes else more
    packed = "".join([_attribute(name, value) for name, value in given.items()])
    if _tag(tag) in VOID_TAGS:
        return Markup(f"<{tag}{packed}>" if tag in {"br", "hr", "img", "input"} else f"<{tag}{packed}/>")
    return Markup(f"<{tag}{packed}>{''.join([_child(child) for child in children])}</{tag}>")


def join(parts: Iterable[Child], separator: Child = "") -> Markup:
    """Several pieces one after another, each escaped unless it is markup."""
    return Markup(_child(separator).join(_child(part) for part in parts))
