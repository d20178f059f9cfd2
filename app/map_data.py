"""What the map needs besides coordinates: colour columns, cluster names, and words for one point at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from app.components import addresses
from app.components.exemplars import pack_grid
from app.components.numbers import count, number, percent
from app.services import Services
from backend.errors import UnknownFeature
from backend.types import ARM_BY_KEY, TruthOutcome

# Paul Tol's "muted" set and Okabe-Ito's, merged to ten that stay apart for every kind of colour vision.
CATEGORIES = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#882255", "#999933", "#E69F00", "#332288", "#44AA99",
)  # fmt: skip
ARM_COLOURS = {
    "steering": "#D55E00",
    "top_k_masks": "#0072B2",
    "top_k_heatmaps": "#56B4E9",
    "steering_informed_top_k_masks": "#882255",
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
# The same hues, lighter, for those that are too dark on the dark page.
_LIGHTER = {
    "#882255": "#D0589A",
    "#332288": "#8C7FE0",
    "#0072B2": "#3F9BD8",
    "#AA3377": "#D0589A",
    "#117733": "#3DAA66",
}
N_CLUSTER_FEATURES = 400


def cluster_colours(services: Services) -> dict[int, str]:
    """A colour for each cluster so that clusters near each other differ (greedy colouring, largest first)."""
    clusters = sorted(services.store.clusters, key=lambda one: (-one.n_features, one.cluster))
    chosen: dict[int, str] = {}
    for cluster in clusters:
        others = sorted(
            (one for one in clusters if one.cluster in chosen),
            key=lambda one: math.hypot(one.x - cluster.x, one.y - cluster.y),
        )
        near = [chosen[one.cluster] for one in others[: len(CATEGORIES) - 1]]
        used = list(chosen.values())
        free = [colour for colour in CATEGORIES if colour not in near]
        chosen[cluster.cluster] = min(free, key=lambda colour: (used.count(colour), CATEGORIES.index(colour)))
    return chosen


def _category(
    key: str, label: str, note: str, names: Sequence[str], colours: Sequence[str], show_names: bool = True
) -> dict[str, Any]:
    return {
        "key": key,
        "label": label,
        "kind": "category",
        "note": note,
        "names": list(names),
        "colours": list(colours),
        "colours_dark": on_dark(colours),
        "show_names": show_names,
    }


def on_dark(colours: Sequence[str]) -> list[str]:
    """The same colours for a dark page."""
    return [_LIGHTER.get(colour, colour) for colour in colours]


def info(services: Services) -> dict[str, Any]:
    """Clusters and colourings of the map, as JSON."""
    colours = cluster_colours(services)
    clusters = [
        {
            "cluster": one.cluster,
            "label": one.label,
            "x": one.x,
            "y": one.y,
            "n_features": one.n_features,
            "colour": colours[one.cluster],
            "colour_dark": on_dark([colours[one.cluster]])[0],
        }
        for one in services.store.clusters
    ]
    return {"clusters": clusters, "fields": [field for field, _ in _fields(services)]}


def column(services: Services, key: str) -> bytes:
    """float32 per feature, in row order: a category's code, or a number scaled to [0, 1]; NaN where absent.

    Raises KeyError for a colouring that does not exist.
    """
    for field, values in _fields(services):
        if field["key"] == key:
            return np.asarray(values, dtype="<f4").tobytes()
    raise KeyError(f"the map has no colouring {key!r}")


def _codes(values: Sequence[str | None], names: Sequence[str]) -> Float32[np.ndarray, " feature"]:
    place = {name: code for code, name in enumerate(names)}
    return np.array([place.get(value, math.nan) if value is not None else math.nan for value in values], np.float32)


def _fields(services: Services) -> list[tuple[dict[str, Any], Float32[np.ndarray, " feature"]]]:
    table = services.store.features
    found = [_clusters_field(services), _best_arm_field(services), _verdict_field(services)]
    groups = table["truth_group"].to_pylist()
    names = sorted({group for group in groups if group})
    if names:
        shades = [CATEGORIES[code % len(CATEGORIES)] for code in range(len(names))]
        note = "Family of the concept that the feature detects best on held-out images."
        found.append((_category("truth_group", "Concept family", note, names, shades), _codes(groups, names)))
    firing = table["firing_fraction"].to_numpy().astype(np.float64)
    found.append(_number_field("firing_fraction", "Firing fraction", "Share of patches where it fires.", firing, True))
    agreement = table["agreement"].to_numpy(zero_copy_only=False).astype(np.float64)
    if np.isfinite(agreement).any():
        note = "Cosine between what steering and the top images say: do cause and correlation agree?"
        found.append(_number_field("agreement", "Agreement of methods", note, agreement, False))
    return found


def _clusters_field(services: Services) -> tuple[dict[str, Any], Float32[np.ndarray, " feature"]]:
    colours = cluster_colours(services)
    order = [one.cluster for one in services.store.clusters]
    names = [one.label for one in services.store.clusters]
    shades = [colours[one] for one in order]
    n = len(order)
    note = f"{n} clusters of explanations by meaning (k-means). Colours repeat; names tell them apart."
    field = _category("cluster", "Cluster", note, names, shades, show_names=False)
    place = {cluster: code for code, cluster in enumerate(order)}
    clusters = services.store.features["cluster"].to_pylist()
    return field, np.array([place.get(one, math.nan) for one in clusters], np.float32)


def _best_arm_field(services: Services) -> tuple[dict[str, Any], Float32[np.ndarray, " feature"]]:
    keys = [arm.key for arm in services.store.arms if not arm.is_control]
    field = _category(
        "best_arm",
        "Best method",
        "The method whose explanation scored best (rank vote over the metrics).",
        [ARM_BY_KEY[key].label for key in keys],
        [ARM_COLOURS.get(key, "#777777") for key in keys],
    )
    return field, _codes(services.store.features["best_arm"].to_pylist(), keys)


def _verdict_field(services: Services) -> tuple[dict[str, Any], Float32[np.ndarray, " feature"]]:
    table = services.store.table("explanations")
    best = table["is_best"].to_numpy(zero_copy_only=False).astype(bool)
    features = table["feature"].to_numpy()[best].tolist()
    outcomes = table["truth_outcome"].take(np.flatnonzero(best)).to_pylist()
    verdict = dict(zip(features, outcomes, strict=True))
    field = _category(
        "verdict",
        "Truth of the best explanation",
        "Right: names the concept that the feature detects. Partly: names its family.",
        [TRUTH_NAMES[kind] for kind in TRUTH_COLOURS],
        list(TRUTH_COLOURS.values()),
    )
    known = [verdict.get(int(feature)) for feature in services.store.feature_ids]
    return field, _codes([None if one == TruthOutcome.UNDECIDABLE else one for one in known], list(TRUTH_COLOURS))


def _number_field(
    key: str, label: str, note: str, values: np.ndarray, log: bool
) -> tuple[dict[str, Any], Float32[np.ndarray, " feature"]]:
    finite = values[np.isfinite(values) & ((values > 0) if log else True)]
    low, high = (float(np.quantile(finite, 0.01)), float(np.quantile(finite, 0.99))) if finite.size else (0.0, 1.0)
    scaled = np.log(np.clip(values, low, high) / low) / (math.log(high / low) or 1.0) if log else None
    if scaled is None:
        scaled = (np.clip(values, low, high) - low) / ((high - low) or 1.0)
    show = percent if key == "firing_fraction" else number
    field = {
        "key": key,
        "label": label,
        "kind": "number",
        "note": note + (" Logarithmic scale, 1st to 99th percentile." if log else " 1st to 99th percentile."),
        "colours": list(RAMP),
        "colours_dark": list(RAMP_DARK),
        "low_text": show(low),
        "high_text": show(high),
    }
    return field, scaled.astype(np.float32)


def hover_card(services: Services, feature: int) -> dict[str, Any]:
    """Words and one picture for the card that follows the pointer. Raises UnknownFeature."""
    record = services.store.feature(feature)
    labels = {one.cluster: one.label for one in services.store.clusters}
    lines = [f"fires on {percent(record.firing_fraction)} of patches, n = {count(record.n_images_active)} images"]
    if record.truth_concept and record.truth_ap is not None:
        lines.append(f"truth: {record.truth_concept.replace('_', ' ')}, AP {number(record.truth_ap)}")
    exemplars = services.pictures(feature, 1)
    card: dict[str, Any] = {
        "feature": feature,
        "text": record.best_text,
        "why": "No method found words for this feature.",
        "cluster": labels.get(record.cluster),
        "lines": lines,
        "exemplar": None,
    }
    if exemplars:
        rows, cols = exemplars[0].grid.shape
        card["exemplar"] = {
            "src": addresses.image(exemplars[0].image_id, services.version),
            "grid": pack_grid(exemplars[0].grid),
            "rows": rows,
            "cols": cols,
            "maximum": record.maximum,
        }
    return card


def cluster_features(services: Services, cluster: int) -> dict[str, Any]:
    """The features of one cluster, the most frequently firing first. Raises UnknownFeature for an empty cluster."""
    table = services.store.features
    rows = np.flatnonzero(table["cluster"].to_numpy() == cluster)
    if not rows.size:
        raise UnknownFeature(f"There is no cluster {cluster} in this atlas.")
    firing = table["firing_fraction"].to_numpy()[rows]
    rows = rows[np.argsort(-firing, kind="stable")]
    chosen = table.select(["feature", "best_text"]).take(rows[:N_CLUSTER_FEATURES]).to_pylist()
    features = [{"feature": row["feature"], "text": row["best_text"], "why": "no words"} for row in chosen]
    return {"n": int(rows.size), "features": features}
