"""Scores by arm and metric as columns over the features of an atlas. Read once per atlas, shared by the views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from backend.feature_store import FeatureStore

Column = Float[np.ndarray, " feature"]
ATLASES_KEPT = 8


@lru_cache(maxsize=ATLASES_KEPT)
def score_columns(store: FeatureStore) -> Mapping[tuple[str, str], Column]:
    """(arm key, metric) to float64 values in the row order of the features; NaN where there is no score."""
    table = store.table("scores").select(["feature", "arm", "metric", "value"])
    table = table.filter(table["value"].is_valid())
    ids = store.feature_ids
    places = rows_of(store, table["feature"].to_numpy())
    values = table["value"].to_numpy().astype(np.float64)
    arms, arm_names = codes_of(table["arm"])
    metrics, metric_names = codes_of(table["metric"])
    found: dict[tuple[str, str], Column] = {}
    for code in np.unique(arms.astype(np.int64) * len(metric_names) + metrics).tolist():
        arm, metric = divmod(code, len(metric_names))
        rows = np.flatnonzero((arms == arm) & (metrics == metric))
        column = np.full(len(ids), np.nan)
        column[places[rows]] = values[rows]
        found[arm_names[arm], metric_names[metric]] = column
    return found


def rows_of(store: FeatureStore, features: Int[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
    """Row of each feature in the order of the features; all of them must be in the atlas."""
    ids = store.feature_ids
    order = np.argsort(ids, kind="stable")
    return order[np.searchsorted(ids[order], features)]


def codes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A text column as whole numbers and the names that they stand for."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    whole = encoded.unify_dictionaries().combine_chunks()
    return np.asarray(whole.indices), whole.dictionary.to_pylist()


@lru_cache(maxsize=ATLASES_KEPT)
def texts_of(store: FeatureStore, arm: str) -> Mapping[int, str]:
    """Feature id to the text of an arm; failures are left out."""
    return {feature: text for feature, text in _written(store, arm, "text") if text is not None}


@lru_cache(maxsize=ATLASES_KEPT)
def outcomes_of(store: FeatureStore, arm: str) -> Mapping[int, str]:
    """Feature id to the verdict of truth on what an arm said."""
    return {feature: verdict for feature, verdict in _written(store, arm, "truth_outcome") if verdict is not None}


def _written(store: FeatureStore, arm: str, column: str) -> Iterable[tuple[int, str | None]]:
    """Feature and value of a column of the explanations, for one arm."""
    table = store.table("explanations").select(["feature", "arm", column])
    arms, names = codes_of(table["arm"])
    if arm not in names:
        return ()
    rows = table.take(pa.array(np.flatnonzero(arms == names.index(arm))))
    return zip(rows["feature"].to_pylist(), rows[column].to_pylist(), strict=True)
