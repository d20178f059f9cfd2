"""Regions of patches: as packed bits for the browser, as outlines in SVG, and how two of them overlap."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from app.components.markup import Markup, h


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Two regions of one picture, counted in patches."""

    first: int
    second: int
    both: int
    n: int
    """Patches of the picture."""

    @property
    def union(self) -> int:
        return self.first + self.second - self.both

    @property
    def iou(self) -> float | None:
        """Patches in both over patches in either; None if both are empty."""
        return self.both / self.union if self.union else None


def overlap(first: Bool[np.ndarray, "row col"], second: Bool[np.ndarray, "row col"]) -> Overlap:
    """Count the patches of two regions of the same grid."""
    counts = (np.count_nonzero(region) for region in (first, second, first & second))
    one, other, both = (int(count) for count in counts)
    return Overlap(first=one, second=other, both=both, n=int(first.size))


def active(grid: Float[np.ndarray, "row col"]) -> Bool[np.ndarray, "row col"]:
    """The patches where a feature fires."""
    return grid > 0


def pack_region(region: Bool[np.ndarray, "row col"]) -> str:
    """A region as base64 of its bits, row-major, the first patch in the highest bit of the first byte."""
    return base64.b64encode(np.packbits(region.ravel()).tobytes()).decode("ascii")


def outline_path(region: Bool[np.ndarray, "row col"]) -> str:
    """The boundary of a region as an SVG path in patch units; edges between patches on the same side are joined."""
    padded = np.pad(region, 1)
    level = padded[1:, 1:-1] != padded[:-1, 1:-1]  # [row + 1, col]: an edge above the patch
    upright = padded[1:-1, 1:] != padded[1:-1, :-1]  # [row, col + 1]: an edge left of the patch
    across = [f"M{start} {row}H{stop}" for row in range(level.shape[0]) for start, stop in _runs(level[row])]
    down = [f"M{col} {start}V{stop}" for col in range(upright.shape[1]) for start, stop in _runs(upright[:, col])]
    return "".join(across + down)


def fill_path(region: Bool[np.ndarray, "row col"]) -> str:
    """The area of a region as an SVG path in patch units, one bar per run of patches in a row."""
    bars = [(row, *run) for row in range(region.shape[0]) for run in _runs(region[row])]
    return "".join(f"M{start} {row}H{stop}V{row + 1}H{start}Z" for row, start, stop in bars)


def _runs(line: Bool[np.ndarray, " place"]) -> list[tuple[int, int]]:
    """Start and stop of each run of True."""
    steps = np.diff(np.concatenate([[0], line.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True))


def overlay(*layers: Markup, rows: int, cols: int) -> Markup:
    """An SVG that lies exactly over a picture of ``rows`` x ``cols`` patches. Decorative: its numbers stand beside."""
    view = {"viewBox": f"0 0 {cols} {rows}", "preserveAspectRatio": "none"}
    return h("svg", *layers, attributes=view, class_="ico-regions", aria_hidden="true")


def outlined(region: Bool[np.ndarray, "row col"], role: str) -> Markup:
    """The boundary of a region, drawn twice so that it shows on any picture. ``role`` names its colour."""
    path = outline_path(region)
    return h(
        "g",
        h("path", d=path, class_="halo", attributes={"vector-effect": "non-scaling-stroke"}),
        h("path", d=path, class_="edge", attributes={"vector-effect": "non-scaling-stroke"}),
        data_region=role,
    )


def shaded(region: Bool[np.ndarray, "row col"], role: str) -> Markup:
    """The area of a region."""
    return h("path", d=fill_path(region), class_="area", data_region=role)
