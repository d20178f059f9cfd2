"""What a visitor steers with, as one value: read from the page or from an address, checked before the model sees it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from app.url_fields import BadField, Field
from backend.errors import SubjectError
from backend.types import Intervention, Operation, PatchScope

if TYPE_CHECKING:
    from backend.models.base import Sampling

MAX_ROWS = 8
"""Features in one set."""
MAX_PROMPT_CHARACTERS = 600
ANSWER_TOKENS = 48
"""Longest answer of the columns and of an ablation."""
DOSES = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.6, 2.5, 4.0, 8.0)
"""Strengths of the dose-response strip, in multiples of the set's own."""
DOSE_TOKENS = 16
"""Longest answer of the dose-response strip."""
MAX_STRENGTH = 1e6
"""Residual-stream L2 units; far beyond what any tower survives."""
MAX_TEMPERATURE = 5.0
MIN_TEMPERATURE = 0.05
MIN_TOP_P = 0.05
MAX_SEED = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerRow:
    """One feature of the set, and what is done along its direction."""

    feature: int
    operation: Operation = Operation.ADD
    strength: float = 0.0
    """Residual-stream L2 units; 0 for ABLATE, which has none."""

    def __str__(self) -> str:
        """As in an address: ``12:add:34.5`` or ``97:ablate``."""
        if self.operation is Operation.ABLATE:
            return f"{self.feature}:{self.operation.value}"
        return f"{self.feature}:{self.operation.value}:{self.strength:.6g}"


class Where(NamedTuple):
    """Which patches are edited."""

    scope: PatchScope = PatchScope.ALL
    patches: tuple[int, ...] = ()
    """Flat row-major numbers, sorted, for GIVEN."""

    def __str__(self) -> str:
        return self.scope.value if self.scope is not PatchScope.GIVEN else written_patches(self.patches)


ALL_PATCHES = Where()


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerSetup:
    """Everything an answer depends on; the same set-up gives the same answers."""

    rows: tuple[SteerRow, ...]
    where: Where = ALL_PATCHES
    image_id: str = ""
    """See app/pictures.py; "" is the blank image."""
    prompt: str
    temperature: float | None = None
    """None is greedy: always the likeliest token."""
    top_p: float = 0.95
    seed: int = 0
    """Of the sampling; every column draws with the same random numbers."""

    def __post_init__(self) -> None:
        if not self.rows:
            raise SubjectError("No feature is chosen. Type a number, or press “Steer this feature” on its page.")
        if len(self.rows) > MAX_ROWS:
            raise SubjectError(f"The set has {len(self.rows)} features; at most {MAX_ROWS} can be steered at once.")
        if not self.prompt.strip():
            raise SubjectError("The prompt is empty. Choose one of the prompts, or write a question about the image.")
        if len(self.prompt) > MAX_PROMPT_CHARACTERS:
            raise SubjectError(f"The prompt has {len(self.prompt)} characters; at most {MAX_PROMPT_CHARACTERS} fit.")
        if self.where.scope is PatchScope.GIVEN and not self.where.patches:
            raise SubjectError("No patch is painted. Drag over the picture, or choose all patches.")
        for row in self.rows:
            if row.operation is Operation.ADD and row.strength == 0:
                raise SubjectError(f"A strength of 0 changes nothing. Choose a strength for feature {row.feature}.")
        if self.temperature is not None and not MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE:
            raise SubjectError(f"The temperature must lie between {MIN_TEMPERATURE} and {MAX_TEMPERATURE:g}.")
        if not MIN_TOP_P <= self.top_p <= 1:
            raise SubjectError(f"Top-p must lie between {MIN_TOP_P} and 1.")

    @property
    def interventions(self) -> list[Intervention]:
        """In the order in which they are applied."""
        scope, patches = self.where
        return [
            Intervention(
                feature=row.feature, strength=row.strength, operation=row.operation, scope=scope, patches=patches
            )
            for row in self.rows
        ]

    @property
    def has_strength(self) -> bool:
        """Whether any row has one."""
        return any(row.operation is not Operation.ABLATE for row in self.rows)

    def scaled(self, factor: float) -> SteerSetup:
        """All strengths times ``factor``; what is ablated stays so."""
        return replace(self, rows=tuple(replace(row, strength=row.strength * factor) for row in self.rows))

    def sampling(self) -> Sampling | None:
        """How tokens are drawn; None is greedy. Imports the model code."""
        if self.temperature is None:
            return None
        from backend.models.base import Sampling

        return Sampling(temperature=self.temperature, top_p=self.top_p, seed=self.seed, paired=True)


def written_rows(rows: Iterable[SteerRow]) -> str:
    """A set as in an address: ``12:add:34.5,97:ablate``."""
    return ",".join(str(row) for row in rows)


def read_row(text: str) -> SteerRow:
    """One row of an address. Raises BadField."""
    number, _, rest = text.partition(":")
    word, _, amount = rest.partition(":")
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise BadField("does not start with a feature number")
    if word not in set(Operation):
        raise BadField(f"names no operation: {', '.join(Operation)}")
    operation = Operation(word)
    if operation is Operation.ABLATE:
        return SteerRow(feature=int(number), operation=operation)
    return SteerRow(feature=int(number), operation=operation, strength=read_strength(amount))


def read_strength(text: object) -> float:
    """A strength in residual-stream L2 units. Raises BadField."""
    try:
        value = float(str(text))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > MAX_STRENGTH:
        raise BadField("holds no usable strength")
    return value


def written_patches(patches: Iterable[int]) -> str:
    """Patches as in an address, runs joined: ``3-5.9``."""
    runs: list[list[int]] = []
    for patch in sorted(set(patches)):
        if runs and patch == runs[-1][1] + 1:
            runs[-1][1] = patch
        else:
            runs.append([patch, patch])
    return ".".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


@dataclass(frozen=True, slots=True)
class Rows(Field):
    """A set of features with operation and strength; () when the address does not say."""

    @property
    def default(self) -> tuple[SteerRow, ...]:
        return ()

    def parse(self, text: str) -> tuple[SteerRow, ...]:
        parts = text[:600].split(",")
        if len(parts) > MAX_ROWS:
            raise BadField(f"holds more than {MAX_ROWS} features")
        return tuple(read_row(part) for part in parts)

    def text(self, value: Iterable[SteerRow]) -> str:
        return written_rows(value)


@dataclass(frozen=True, slots=True)
class Patches(Field):
    """All patches, the active ones, or a list of them."""

    most: int = 4096
    """Patches of the largest grid."""

    @property
    def default(self) -> Where:
        return ALL_PATCHES

    def parse(self, text: str) -> Where:
        if text in {PatchScope.ALL.value, PatchScope.ACTIVE.value}:
            return Where(PatchScope(text))
        found: set[int] = set()
        for part in text[: 5 * self.most].split("."):
            first, dash, last = part.partition("-")
            ends = (first, last) if dash else (first, first)
            if not all(one.isascii() and one.isdigit() and len(one) <= 5 for one in ends):
                raise BadField("is neither all, active nor a list of patches like 3-5.9")
            if not int(ends[0]) <= int(ends[1]) < self.most:
                raise BadField(f"names patches outside 0 to {self.most - 1}")
            found |= set(range(int(ends[0]), int(ends[1]) + 1))
        return Where(PatchScope.GIVEN, tuple(sorted(found)))

    def text(self, value: Where) -> str:
        return str(value)
