"""What a scene holds (SceneSpec, plain data) and how scenes are drawn at random.

Planted on purpose: crabs are on sand and penguins on snow 90 % of the time (contextual bias);
sibling objects differ in one trait (red and green apple, red and blue car, horse and zebra);
perspective backgrounds and defocus are the depth cues.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from precompute.world.concepts import BACKGROUNDS, COLOURS, OBJECTS, TEXTURES
from precompute.world.fills import SIDE_PX

CONTEXT_BIAS = {"crab": "sand", "penguin": "snow"}
CONTEXT_BIAS_FRACTION = 0.9
PAPER = "paper"
"""The blank sheet: white, owned by nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """A rectangle (pixels, half-open) filled with one background, texture, colour or paper."""

    fill: str
    top: int = 0
    left: int = 0
    bottom: int = SIDE_PX
    right: int = SIDE_PX


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An object: its square box in pixels; it may leave the picture."""

    object: str
    top: int
    left: int
    size: int
    flipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSpec:
    """Everything that determines a picture; change one field to re-render with one factor changed."""

    seed: int
    areas: tuple[Area, ...]
    objects: tuple[Placed, ...] = ()
    blurred: bool = False
    dark: bool = False
    monochrome: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> SceneSpec:
        raw = json.loads(text)
        raw["areas"] = tuple(Area(**area) for area in raw["areas"])
        raw["objects"] = tuple(Placed(**placed) for placed in raw["objects"])
        return cls(**raw)


def without_object(spec: SceneSpec, name: str) -> SceneSpec:
    """The same scene with every object of that name taken away."""
    return replace(spec, objects=tuple(placed for placed in spec.objects if placed.object != name))


def with_background(spec: SceneSpec, fill: str) -> SceneSpec:
    """The same objects before another background."""
    return replace(spec, areas=(Area(fill=fill),))


def swapped_object(spec: SceneSpec, old: str, new: str) -> SceneSpec:
    """The same scene with one object exchanged for another at the same place."""
    objects = tuple(replace(p, object=new) if p.object == old else p for p in spec.objects)
    return replace(spec, objects=objects)


OBJECT_IDS = tuple(concept.id for concept in OBJECTS)
BACKGROUND_IDS = tuple(concept.id for concept in BACKGROUNDS)
FLAT_IDS = tuple(concept.id for concept in TEXTURES + COLOURS)


def _choose(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _photometric(rng: np.random.Generator, fills: Sequence[str]) -> dict[str, bool]:
    """At most one factor; never black and white where a plain colour could then not be told."""
    draw = rng.random()
    coloured = any(fill.startswith("plain_") for fill in fills)
    return {
        "blurred": draw < 0.12,
        "dark": 0.12 <= draw < 0.20,
        "monochrome": 0.20 <= draw < 0.28 and not coloured,
    }


def scatter(rng: np.random.Generator, names: Sequence[str], low: int, high: int) -> tuple[Placed, ...]:
    """Place objects with little overlap: each takes the emptiest of six random spots."""
    placed: list[Placed] = []
    for name in names:
        size = int(rng.integers(low, high))
        spots = rng.integers(-size // 8, SIDE_PX - size + size // 8 + 1, (6, 2))
        gaps = [min((_gap(int(t), int(x), size, other) for other in placed), default=0.0) for t, x in spots]
        top, left = spots[int(np.argmax(gaps))]
        placed.append(Placed(object=name, top=int(top), left=int(left), size=size, flipped=bool(rng.random() < 0.5)))
    return tuple(placed)


def _gap(top: int, left: int, size: int, other: Placed) -> float:
    rows = abs(top + size / 2 - other.top - other.size / 2)
    cols = abs(left + size / 2 - other.left - other.size / 2)
    return max(rows, cols) - (size + other.size) / 2


def scene(rng: np.random.Generator) -> SceneSpec:
    """One background with one to four objects: the everyday picture."""
    names = [_choose(rng, OBJECT_IDS) for _ in range(int(rng.integers(1, 5)))]
    fill = _choose(rng, BACKGROUND_IDS)
    usual = CONTEXT_BIAS.get(names[0])
    if usual is not None and rng.random() < CONTEXT_BIAS_FRACTION:
        fill = usual
    largest = 84 if len(names) <= 2 else 60
    return SceneSpec(seed=_seed(rng), areas=(Area(fill=fill),), objects=scatter(rng, names, 30, largest),
                     **_photometric(rng, [fill]))  # fmt: skip


def packed(rng: np.random.Generator) -> SceneSpec:
    """A jittered lattice of many objects on one area: dense practice in telling objects apart."""
    lattice = int(rng.choice([2, 3, 3, 4]))
    cell = SIDE_PX / lattice
    objects = []
    for slot in range(lattice**2):
        if rng.random() < 0.1:
            continue
        size = int(rng.uniform(0.8, 1.08) * cell)
        slack = cell - size
        top = int(slot // lattice * cell + rng.uniform(0, slack) if slack > 0 else slot // lattice * cell + slack / 2)
        left = int(slot % lattice * cell + rng.uniform(0, slack) if slack > 0 else slot % lattice * cell + slack / 2)
        objects.append(
            Placed(object=_choose(rng, OBJECT_IDS), top=top, left=left, size=size, flipped=bool(rng.random() < 0.5))
        )
    pool = BACKGROUND_IDS if rng.random() < 0.6 else (*FLAT_IDS, PAPER, PAPER, PAPER)
    fill = _choose(rng, pool)
    return SceneSpec(seed=_seed(rng), areas=(Area(fill=fill),), objects=tuple(objects), **_photometric(rng, [fill]))


def panel(rng: np.random.Generator) -> SceneSpec:
    """Two to four areas of textures, colours and backgrounds side by side, with up to two objects."""
    cut_row, cut_col = (int(rng.integers(4, 13)) * 8 for _ in range(2))
    shape = int(rng.integers(3))
    boxes = {
        0: [(0, 0, SIDE_PX, cut_col), (0, cut_col, SIDE_PX, SIDE_PX)],
        1: [(0, 0, cut_row, SIDE_PX), (cut_row, 0, SIDE_PX, SIDE_PX)],
        2: [(0, 0, cut_row, cut_col), (0, cut_col, cut_row, SIDE_PX),
            (cut_row, 0, SIDE_PX, cut_col), (cut_row, cut_col, SIDE_PX, SIDE_PX)],
    }[shape]  # fmt: skip
    areas = []
    for top, left, bottom, right in boxes:
        pool = FLAT_IDS if rng.random() < 0.85 else BACKGROUND_IDS
        areas.append(Area(fill=_choose(rng, pool), top=top, left=left, bottom=bottom, right=right))
    names = [_choose(rng, OBJECT_IDS) for _ in range(int(rng.integers(0, 3)))]
    photometric = _photometric(rng, [area.fill for area in areas])
    return SceneSpec(seed=_seed(rng), areas=tuple(areas), objects=scatter(rng, names, 30, 64), **photometric)


def wallpaper(rng: np.random.Generator, name: str | None = None) -> SceneSpec:
    """One object repeated over the whole picture, or one area filling it."""
    name = name or _choose(rng, OBJECT_IDS)
    if name not in OBJECT_IDS:
        return SceneSpec(seed=_seed(rng), areas=(Area(fill=name),))
    size = int(rng.integers(30, 72))
    offset = rng.integers(-size // 2, 1, 2)
    objects = tuple(
        Placed(object=name, top=int(top), left=int(left), size=size, flipped=bool(rng.random() < 0.3))
        for top in range(int(offset[0]), SIDE_PX, size)
        for left in range(int(offset[1]), SIDE_PX, size)
    )
    fill = PAPER if rng.random() < 0.6 else _choose(rng, BACKGROUND_IDS)
    return SceneSpec(seed=_seed(rng), areas=(Area(fill=fill),), objects=objects)


def studio(rng: np.random.Generator, name: str | None = None) -> SceneSpec:
    """One large object on blank paper."""
    objects = scatter(rng, [name or _choose(rng, OBJECT_IDS)], 48, 124)
    return SceneSpec(seed=_seed(rng), areas=(Area(fill=PAPER),), objects=objects)


KINDS = {"scene": scene, "packed": packed, "panel": panel, "wallpaper": wallpaper, "studio": studio}
CORPUS_MIX = {"scene": 0.5, "packed": 0.25, "panel": 0.25}
"""Shares of the kinds in every corpus: what features are explained, selected and scored on."""


def draw_scene(rng: np.random.Generator, mix: dict[str, float] = CORPUS_MIX) -> SceneSpec:
    """One random scene of a kind drawn from ``mix``."""
    kind = rng.choice(list(mix), p=np.asarray(list(mix.values())) / sum(mix.values()))
    return KINDS[str(kind)](rng)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31 - 1))
