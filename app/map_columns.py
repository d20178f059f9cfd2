"""What the points of the map can be coloured and filtered by: one byte per feature and colouring.

A category's byte is the place of its name; a number's byte says between which two edges it lies, so that "at least an
edge" is exact. 255 is absent. Edges are round numbers, because people read them on a slider.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, UInt8

from app.components.numbers import number, percent
from app.services import METRIC_ORDER, Services
from backend.types import ARM_BY_KEY

ABSENT = 255
MOST_EDGES = 254
# Paul Tol's "muted" set and Okabe-Ito's, merged to ten that stay apart for every kind of colour vision.
CATEGORIES = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#882255", "#999933", "#E69F00", "#332288", "#44AA99",
)  # fmt: skip
ARM_COLOURS = {
    "steering": "#D55E00",
    "top_k_masks": "#0072B2",
    "top_k_heatmaps": "#56B4E9",
    "steering_informed_top_k_masks": "#8A4F9E",
    "steering_informed_top_k_heatmaps": "#CC79A7",
}
TRUTH_COLOURS = {"right": "#117733", "partly": "#DDAA33", "wrong": "#AA3377"}
TRUTH_NAMES = {"right": "right", "partly": "partly right", "wrong": "wrong"}
# Viridis, cut where it would vanish against the page: its light end on white, its dark end on black.
RAMP = (
    "#440154", "#482475", "#463480", "#414487", "#355F8D", "#2A788E", "#21918C", "#22A884", "#44BF70", "#7AD151",
)  # fmt: skip
RAMP_DARK = (
    "#5566B0", "#4676B5", "#3A86B0", "#2F96A6", "#26A69A", "#35B57F", "#5CC566", "#8CD24D", "#C3DC3B", "#FDE725",
)  # fmt: skip
# The same hues, lighter: for those too dark on the dark page, and for those that must stay apart from them.
_LIGHTER = {
    "#882255": "#D0589A",
    "#8A4F9E": "#C792D8",
    "#332288": "#8C7FE0",
    "#0072B2": "#3F9BD8",
    "#56B4E9": "#A3D8F5",
    "#D55E00": "#F0803C",
    "#CC79A7": "#F0A8CC",
    "#AA3377": "#D0589A",
    "#117733": "#3DAA66",
}
# Steps of a logarithmic scale, twenty a decade, rounded so that they can be read.
_DECADE = (1, 1.1, 1.25, 1.4, 1.6, 1.8, 2, 2.2, 2.5, 2.8, 3.2, 3.6, 4, 4.5, 5, 5.6, 6.3, 7, 8, 9)

Codes = UInt8[np.ndarray, " feature"]
Values = Float64[np.ndarray, " feature"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One colouring: what the browser is told of it, and the byte of every feature in row order."""

    field: dict[str, Any]
    codes: Codes


def on_dark(colours: Sequence[str]) -> list[str]:
    """The same colours for a dark page."""
    return [_LIGHTER.get(colour, colour) for colour in colours]


@lru_cache(maxsize=16)
def columns(services: Services) -> dict[str, Column]:
    """Every colouring of an atlas by key, in the order in which they are offered. Clusters come with the points."""
    found = [_best_arm(services), *_scores(services), _agreement(services), _firing(services)]
    found += [_verdict(services), _truth_group(services)]
    return {one.field["key"]: one for one in found if one is not None}


# categories ------------------------------------------------------------------------------------------------------


def _category(
    key: str, label: str, note: str, names: dict[str, str], colours: Sequence[str], values: pa.Array | pa.ChunkedArray
) -> Column:
    """``names`` gives the words of each value; values without words are absent."""
    places = _places(values, names)
    field = {
        "key": key,
        "label": label,
        "kind": "category",
        "note": note,
        "keys": list(names),
        "names": list(names.values()),
        "colours": list(colours),
        "colours_dark": on_dark(colours),
    }
    return Column(field=field, codes=np.where(places < 0, ABSENT, places).astype(np.uint8))


def _best_arm(services: Services) -> Column:
    keys = [arm.key for arm in services.store.arms if not arm.is_control]
    return _category(
        "best_arm",
        "Winning method",
        "The method whose explanation was voted best; of several that tie, often with the same words, a seed drew one.",
        {key: ARM_BY_KEY[key].label for key in keys},
        [ARM_COLOURS.get(key, "#777777") for key in keys],
        services.store.features["best_arm"],
    )


def _verdict(services: Services) -> Column:
    table = services.store.table("explanations")
    best = np.flatnonzero(table["is_best"].fill_null(False).to_numpy(zero_copy_only=False))
    chosen = table.select(["feature", "truth_outcome"]).take(best)
    place = _places(services.store.features["feature"], chosen["feature"].combine_chunks())
    return _category(
        "verdict",
        "Truth of the best explanation",
        "Right: names the concept that the feature detects. Partly: its family, or something else of the family.",
        {kind: TRUTH_NAMES[kind] for kind in TRUTH_COLOURS},
        list(TRUTH_COLOURS.values()),
        chosen["truth_outcome"].take(pa.array(place, mask=place < 0)),
    )


def _truth_group(services: Services) -> Column | None:
    groups = services.store.features["truth_group"]
    names = sorted({group for group in groups.unique().to_pylist() if group})[: ABSENT - 1]
    if not names:
        return None
    shades = [CATEGORIES[code % len(CATEGORIES)] for code in range(len(names))]
    note = "Family of the concept that the feature detects best on held-out images."
    return _category("truth_group", "Concept family", note, {name: name for name in names}, shades, groups)


# numbers ---------------------------------------------------------------------------------------------------------


def _firing(services: Services) -> Column | None:
    values = services.store.features["firing_fraction"].to_numpy().astype(np.float64)
    note = "Share of patches on which the feature fires; logarithmic."
    return _number("firing_fraction", "Firing fraction", note, values, log=True, unit="percent")


def _agreement(services: Services) -> Column | None:
    values = services.store.features["agreement"].to_numpy(zero_copy_only=False).astype(np.float64)
    note = "Cosine between what steering and what the top images say: do cause and correlation agree?"
    return _number("agreement", "Agreement of methods", note, values)


def _scores(services: Services) -> list[Column | None]:
    """The score of the best explanation by each metric; metrics without a value per feature are left out."""
    table, features = services.store.table("scores"), services.store.features
    n, arms = len(features), [arm.key for arm in services.store.arms]
    best = _places(features["best_arm"], arms)
    row = _places(table["feature"], features["feature"].combine_chunks())
    arm = _places(table["arm"], arms)
    of_best = (row >= 0) & (arm >= 0) & (arm == best[row])
    metric = _places(table["metric"], METRIC_ORDER)
    measured = table["value"].to_numpy(zero_copy_only=False).astype(np.float64)
    found = []
    for place, name in enumerate(METRIC_ORDER):
        card = services.metric_cards.get(name)
        if card is None:
            continue
        values = np.full(n, np.nan)
        rows = np.flatnonzero(of_best & (metric == place))
        values[row[rows]] = measured[rows]
        label = str(card.get("label") or name)
        found.append(_number(name, label, "Score of the best explanation of each feature.", values))
    return found


def _places(values: pa.ChunkedArray | pa.Array, known: Iterable[str] | pa.Array) -> np.ndarray:
    """Where each value stands among the known ones; -1 for others. Reads dictionary columns by their few words."""
    value_set = known if isinstance(known, pa.Array) else pa.array(list(known), pa.string())
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if not isinstance(whole, pa.DictionaryArray):
        return _found(whole, value_set)
    # One more place at the end, so that an absent value (-1) finds "none".
    of_words = np.append(_found(whole.dictionary, value_set), -1)
    return of_words[np.asarray(whole.indices.fill_null(-1))]


def _found(values: pa.Array, value_set: pa.Array) -> np.ndarray:
    options = pc.SetLookupOptions(value_set=value_set)
    return np.asarray(pc.call_function("index_in", [values], options).fill_null(-1))


def _number(key: str, label: str, note: str, values: Values, *, log: bool = False, unit: str = "") -> Column | None:
    """None if no feature has this number. Colours span the 1st to the 99th percentile; edges span all."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    edges = log_edges(finite) if log and finite.min() > 0 else even_edges(finite)
    codes = np.full(values.shape, ABSENT, np.uint8)
    known = np.isfinite(values)
    # In the tables' own precision: a score of 0.7 is at least 0.7 only as long as both are float32.
    codes[known] = np.searchsorted(edges.astype(np.float32), values[known].astype(np.float32), side="right") - 1
    low, high = np.quantile(finite, [0.01, 0.99])
    show = percent if unit == "percent" else number
    field = {
        "key": key,
        "label": label,
        "kind": "number",
        "note": note,
        "unit": unit,
        "edges": edges.tolist(),
        "low_code": int(np.searchsorted(edges, low, side="right") - 1),
        "high_code": int(np.searchsorted(edges, high, side="right") - 1),
        "low_text": show(float(finite.min())),
        "high_text": show(float(finite.max())),
        "colours": list(RAMP),
        "colours_dark": list(RAMP_DARK),
    }
    return Column(field=field, codes=codes)


def even_edges(values: Values) -> Float64[np.ndarray, " edge"]:
    """Multiples of a round step from at or below the least value to at or below the greatest; at most 254."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([low])
    least = (high - low) / (MOST_EDGES - 3)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least)
    first, last = math.floor(low / step), math.floor(high / step)
    # Rounded to the digits of the step, so that 3 * 0.1 is 0.3; the ends yield to the values, which must lie inside.
    digits = max(0, 2 - math.floor(math.log10(step)))
    edges = np.round(np.arange(first, last + 1) * step, digits)
    edges[0] = min(edges[0], low)
    return edges


def log_edges(values: Values) -> Float64[np.ndarray, " edge"]:
    """Twenty round edges a decade over positive values; the widest twelve decades."""
    top = math.floor(math.log10(float(values.max())))
    bottom = max(math.floor(math.log10(float(values.min()))), top - 11)
    edges = np.array([float(f"{step}e{power}") for power in range(bottom, top + 1) for step in _DECADE])
    inside = edges[(edges <= values.max()) & (edges >= edges[edges <= max(values.min(), edges[0])].max())]
    inside[0] = min(inside[0], values.min())
    return inside
