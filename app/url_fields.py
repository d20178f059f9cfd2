"""Fields of the address: what a tab keeps there, how it is written, and how it is read back from strangers.

A tab names its fields; nothing else needs to know them. Reading never raises: a value that cannot be understood counts
as absent and is told to the visitor. Writing and reading are inverse (a property test runs over every field).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.components import addresses

MOST_CHARACTERS = 600
SHOWN_CHARACTERS = 40
BIGGEST = 1e9


class BadField(ValueError):
    """The text of a field is not understood; the message completes the sentence "name=text …"."""


@dataclass(frozen=True, slots=True)
class Field(ABC):
    """One named value of the address."""

    name: str

    @property
    @abstractmethod
    def default(self) -> Any:
        """The value when the address does not say."""

    @abstractmethod
    def parse(self, text: str) -> Any:
        """The value that ``text`` (not empty) stands for. Raises BadField."""

    def write(self, value: Any) -> str:
        """The text of a value; "" is the default's."""
        return "" if value == self.default else self.text(value)

    def text(self, value: Any) -> str:
        """The text of a value that is not the default."""
        return str(value)


@dataclass(frozen=True, slots=True)
class Text(Field):
    """Free text, cut to ``most`` characters."""

    most: int = MOST_CHARACTERS
    initial: str = ""

    @property
    def default(self) -> str:
        return self.initial

    def parse(self, text: str) -> str:
        return text[: self.most]


@dataclass(frozen=True, slots=True)
class Choice(Field):
    """One of a few words; the default is the first unless ``initial`` names another."""

    options: tuple[str, ...]
    initial: str | None = None

    @property
    def default(self) -> str:
        return self.options[0] if self.initial is None else self.initial

    def parse(self, text: str) -> str:
        if text not in self.options:
            raise BadField(f"is not one of {', '.join(self.options)}")
        return text


@dataclass(frozen=True, slots=True)
class Flag(Field):
    """On or off."""

    initial: bool = False

    @property
    def default(self) -> bool:
        return self.initial

    def parse(self, text: str) -> bool:
        if text not in {"0", "1"}:
            raise BadField("is neither 0 nor 1")
        return text == "1"

    def text(self, value: bool) -> str:
        return "1" if value else "0"


@dataclass(frozen=True, slots=True)
class Number(Field):
    """A finite number in [low, high]; None when absent."""

    low: float = -BIGGEST
    high: float = BIGGEST

    @property
    def default(self) -> None:
        return None

    def parse(self, text: str) -> float:
        value = _finite(text)
        if not self.low <= value <= self.high:
            raise BadField(f"lies outside {self.low:g} to {self.high:g}")
        return value

    def text(self, value: float) -> str:
        return repr(float(value))


@dataclass(frozen=True, slots=True)
class Whole(Field):
    """A whole number of at least 0; None when absent."""

    high: int = 10**9

    @property
    def default(self) -> None:
        return None

    def parse(self, text: str) -> int:
        return _whole(text, self.high)


@dataclass(frozen=True, slots=True)
class Ids(Field):
    """Whole numbers in their order, at most ``most``, joined by dots (which need no escaping)."""

    most: int = 500

    @property
    def default(self) -> tuple[int, ...]:
        return ()

    def parse(self, text: str) -> tuple[int, ...]:
        # Cut before parsing: a stranger's address must not cost more than the longest list that is accepted.
        parts = text[: 11 * self.most].split(".")[: self.most]
        return tuple(_whole(part, 10**9) for part in parts)

    def text(self, value: Iterable[int]) -> str:
        return ".".join(str(one) for one in value)


@dataclass(frozen=True, slots=True)
class Numbers(Field):
    """Exactly ``n`` finite numbers joined by commas; () when absent."""

    n: int

    @property
    def default(self) -> tuple[float, ...]:
        return ()

    def parse(self, text: str) -> tuple[float, ...]:
        parts = text[: 40 * self.n].split(",")
        if len(parts) != self.n:
            raise BadField(f"does not hold {self.n} numbers")
        return tuple(_finite(part) for part in parts)

    def text(self, value: Iterable[float]) -> str:
        return ",".join(repr(float(one)) for one in value)


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > BIGGEST:
        raise BadField("is not a usable number")
    return value


def _whole(text: str, high: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > high:
        raise BadField("is not a whole number that could be meant")
    return int(text)


class UrlState(Mapping[str, Any]):
    """Values by field name, defaults where the address says nothing. Immutable."""

    __slots__ = ("_fields", "_given", "notices")

    def __init__(self, fields: Mapping[str, Field], given: Mapping[str, Any], notices: tuple[str, ...] = ()) -> None:
        unknown = given.keys() - fields.keys()
        if unknown:
            raise KeyError(f"the address has no fields {sorted(unknown)}")
        self._fields = fields
        self._given = dict(given)
        self.notices = notices
        """What of the address was not understood, for the visitor."""

    def __getitem__(self, name: str) -> Any:
        return self._given[name] if name in self._given else self._fields[name].default

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def says(self, name: str) -> bool:
        """Whether the address gives a value other than the default."""
        return self[name] != self._fields[name].default


def parse(fields: Mapping[str, Field], query: Mapping[str, str]) -> UrlState:
    """Read an address. Never raises; unknown names are left alone (Gradio has its own)."""
    given: dict[str, Any] = {}
    notices: list[str] = []
    for name, field in fields.items():
        text = query.get(name)
        if not text:
            continue
        try:
            given[name] = field.parse(text)
        except BadField as error:
            notices.append(f"{name}={text[:SHOWN_CHARACTERS]} {error}")
    return UrlState(fields, given, tuple(notices))


def to_query(state: UrlState) -> str:
    """The address of a state, defaults left out, starting with ``?``."""
    return addresses.page(**{name: field.write(state[name]) for name, field in state._fields.items()})


def by_name(groups: Iterable[Iterable[Field]]) -> dict[str, Field]:
    """All fields by name. Raises ValueError if two groups use one name."""
    found: dict[str, Field] = {}
    for field in (field for group in groups for field in group):
        if field.name in found:
            raise ValueError(f"two fields of the address are named {field.name!r}")
        found[field.name] = field
    return found
