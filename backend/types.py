"""The vocabulary: frozen records and closed enums, with no behaviour beyond validation.

This module knows neither tensors nor files. Words follow docs/glossary.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Quantization = Literal["int8", "int4"]
"""Bits of the language model's weights; the vision tower is never quantised."""


class Method(StrEnum):
    """How an explanation was made (arXiv 2603.22593, section 3) or which control replaced it."""

    STEERING = "steering"
    TOP_K = "top_k"
    STEERING_INFORMED_TOP_K = "steering_informed_top_k"
    NO_STEERING = "no_steering"
    RANDOM_DIRECTION = "random_direction"
    PERMUTED_DIRECTION = "permuted_direction"


class Variant(StrEnum):
    """How the active patches of an exemplar are shown to the explainer."""

    MASKS = "masks"
    HEATMAPS = "heatmaps"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Arm:
    """One row of every results table: a method with its variant, or a control."""

    method: Method
    variant: Variant | None = None

    @property
    def key(self) -> str:
        """Stable name used in tables and URLs, e.g. ``top_k_masks``."""
        return self.method.value if self.variant is None else f"{self.method.value}_{self.variant.value}"

    @property
    def is_control(self) -> bool:
        return self.method in CONTROL_METHODS

    @property
    def label(self) -> str:
        """Words for a screen, e.g. ``Steering-informed Top-k (masks)``."""
        name = METHOD_LABELS[self.method]
        return name if self.variant is None else f"{name} ({self.variant.value})"


CONTROL_METHODS = frozenset({Method.NO_STEERING, Method.RANDOM_DIRECTION, Method.PERMUTED_DIRECTION})

METHOD_LABELS = {
    Method.STEERING: "Steering",
    Method.TOP_K: "Top-k",
    Method.STEERING_INFORMED_TOP_K: "Steering-informed Top-k",
    Method.NO_STEERING: "No steering",
    Method.RANDOM_DIRECTION: "Random direction",
    Method.PERMUTED_DIRECTION: "Permuted direction",
}

ARMS: tuple[Arm, ...] = (
    Arm(method=Method.STEERING),
    Arm(method=Method.TOP_K, variant=Variant.MASKS),
    Arm(method=Method.TOP_K, variant=Variant.HEATMAPS),
    Arm(method=Method.STEERING_INFORMED_TOP_K, variant=Variant.MASKS),
    Arm(method=Method.STEERING_INFORMED_TOP_K, variant=Variant.HEATMAPS),
    Arm(method=Method.NO_STEERING),
    Arm(method=Method.RANDOM_DIRECTION),
    Arm(method=Method.PERMUTED_DIRECTION),
)
ARM_BY_KEY: dict[str, Arm] = {arm.key: arm for arm in ARMS}


class Operation(StrEnum):
    """What an intervention does to the residual stream at the chosen patches."""

    ADD = "add"
    SET = "set"
    ABLATE = "ablate"


class PatchScope(StrEnum):
    """Which patches an intervention touches."""

    ALL = "all"
    ACTIVE = "active"
    GIVEN = "given"


class Split(StrEnum):
    """Disjoint image splits: explaining, selecting strengths, scoring (and SAE training)."""

    TRAIN = "train"
    EXPLAIN = "explain"
    SELECT = "select"
    SCORE = "score"


class TruthOutcome(StrEnum):
    """Verdict on an explanation where the concept of its feature is known."""

    RIGHT = "right"
    PARTLY = "partly"
    WRONG = "wrong"
    UNDECIDABLE = "undecidable"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookPoint:
    """A site in the subject model: the residual stream after block ``layer`` of ``tower``."""

    layer: int
    tower: str = "vision"
    stream: str = "residual"

    def __str__(self) -> str:
        return f"{self.tower}.{self.layer}.{self.stream}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchGrid:
    """The only conversion between patches and tokens. Rows come before columns."""

    rows: int
    cols: int
    n_prefix_tokens: int = 0
    """Tokens before the first patch (CLS, registers); excluded from SAE and steering."""

    @property
    def n_patches(self) -> int:
        return self.rows * self.cols

    def token(self, row: int, col: int) -> int:
        """Sequence index of the patch at (row, col)."""
        if not (0 <= row < self.rows and 0 <= col < self.cols):
            raise ValueError(f"patch ({row}, {col}) lies outside the {self.rows}x{self.cols} grid")
        return self.n_prefix_tokens + row * self.cols + col


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """An edit of the residual stream along one feature's direction."""

    feature: int
    strength: float
    """Residual-stream L2 units (decoder rows are unit-norm). Ignored by ABLATE."""
    operation: Operation = Operation.ADD
    scope: PatchScope = PatchScope.ALL
    patches: tuple[int, ...] = ()
    """Flat patch indices (row-major), used when scope is GIVEN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Words for one feature by one arm; ``raw_text`` is what the model wrote, untouched."""

    feature: int
    arm: Arm
    text: str
    raw_text: str
    strength: float | None
    n_patches_edited: int
    image_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationFailure:
    """A recorded failure: it has a reason and never a sentinel sentence."""

    feature: int
    arm: Arm
    reason: str
    raw_text: str = ""
    strength: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A metric's value with its n and 95 % interval, or absent with the reason. Missing is never zero."""

    metric: str
    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError(f"score {self.metric!r} is absent without a reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricCard:
    """What a metric means: shown by the explorer and the tables."""

    name: str
    label: str
    unit: str
    low: float | None
    high: float | None
    chance: float | None
    higher_is_better: bool
    source: str
    description: str = field(default="")
