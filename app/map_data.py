"""What the map needs besides coordinates: cluster names and colours, and words for one or for many features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from app.components import addresses
from app.components.exemplars import pack_grid
from app.components.numbers import count, firing_words, number, percent, precision_words
from app.map_columns import ARM_COLOURS, CATEGORIES, TRUTH_NAMES, columns, on_dark
from app.services import METRIC_ORDER, Services
from backend.errors import UnknownFeature
from backend.feature_store import FeatureRecord
from backend.map_points import NO_CLUSTER
from backend.types import Score

__all__ = ["ARM_COLOURS", "MOST_WORDS", "cluster_colours", "column", "hover_card", "info", "words"]

MOST_WORDS = 500
"""Features whose words one request may ask for; also the longest list of an address."""
CLUSTER_FIELD = {
    "key": "cluster",
    "label": "Cluster",
    "kind": "cluster",
    "note": "Each point is a feature: something the model looks for in pictures. Near points are explained in words "
    "that mean alike. Clusters (k-means) have names; their ten colours repeat.",
}


@lru_cache(maxsize=16)
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
            "words": list(one.top_words),
            "colour": colours[one.cluster],
            "colour_dark": on_dark([colours[one.cluster]])[0],
        }
        for one in services.store.clusters
        if 0 <= one.cluster < NO_CLUSTER
    ]
    fields = [CLUSTER_FIELD, *(column.field for column in columns(services).values())]
    return {"clusters": clusters, "fields": fields, "fingerprint": services.store.artifact.manifest.fingerprint}


def column(services: Services, key: str) -> bytes:
    """uint8 per feature, in row order (app/map_columns.py). Raises KeyError for a colouring that does not exist."""
    found = columns(services).get(key)
    if found is None:
        raise KeyError(f"the map has no colouring {key!r}")
    return found.codes.tobytes()


def words(services: Services, features: Sequence[int]) -> dict[str, Any]:
    """The best explanation of each feature, in the order asked for. Raises UnknownFeature; cut to MOST_WORDS."""
    asked = np.asarray(features[:MOST_WORDS], dtype=np.int64)
    ids = services.store.feature_ids.astype(np.int64)
    order = np.argsort(ids, kind="stable")
    place = np.minimum(np.searchsorted(ids[order], asked), max(len(ids) - 1, 0))
    rows = order[place] if len(ids) else place
    unknown = asked[ids[rows] != asked] if len(ids) else asked
    if unknown.size:
        raise UnknownFeature(f"There is no feature {int(unknown[0])} in this atlas.")
    chosen = services.store.features.select(["feature", "best_text"]).take(rows).to_pylist()
    return {"features": [{"feature": row["feature"], "text": row["best_text"]} for row in chosen]}


def hover_card(services: Services, feature: int) -> dict[str, Any]:
    """Words, numbers and one picture for the card that follows the pointer. Raises UnknownFeature."""
    record = services.store.feature(feature)
    arm = record.best_arm
    card: dict[str, Any] = {
        "feature": feature,
        "text": record.best_text,
        "why": "No method found words for this feature.",
        "arm": None if arm is None else {"label": arm.label, "colour": ARM_COLOURS.get(arm.key, "#777777")},
        "scores": _score_lines(services, record),
        "firing": f"fires on {percent(record.firing_fraction)} {firing_words(record)}",
        "truth": _truth_line(services, record),
        "verdict": services.best_outcome(feature),
        "kept": record.quality_kept,
        "exemplar": None,
    }
    exemplars = services.pictures(feature, 1)
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


def _truth_line(services: Services, record: FeatureRecord) -> str | None:
    if not record.truth_concept or record.truth_ap is None:
        return None
    said = TRUTH_NAMES.get(services.best_outcome(record.feature))
    concept = record.truth_concept.replace("_", " ")
    return f"detects {concept}, {precision_words(record)}" + (f": words are {said}" if said else "")


def _score_lines(services: Services, record: FeatureRecord) -> list[dict[str, str]]:
    """The scores of the best explanation, each with its interval and n; metrics without a value are left out."""
    if record.best_arm is None:
        return []
    scores = {score.metric: score for score in services.store.scores(record.feature).get(record.best_arm, ())}
    lines = []
    for name in METRIC_ORDER:
        score, card = scores.get(name), services.metric_cards.get(name)
        if score is not None and card is not None and score.value is not None:
            lines.append({"key": name, "text": f"{card.get('label') or name} {_estimate(score, score.value)}"})
    return lines


def _estimate(score: Score, value: float) -> str:
    interval = "" if score.low is None or score.high is None else f" [{number(score.low)}, {number(score.high)}]"
    return f"{number(value)}{interval}, n = {count(score.n)}"
