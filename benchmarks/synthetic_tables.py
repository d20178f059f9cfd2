"""The tables of a synthetic atlas, column by column. Everything follows from the plan, which follows from the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from backend.atlas_schema import ATLAS_TABLES
from backend.types import ARMS, Method
from benchmarks.synthetic_grammar import ATTRIBUTES, CONTEXTS, N_TOPICS, NO_CONTEXT, Codes, topic_name

SIDE = 8
"""Patches per side of an image."""
METRICS = ("iou", "clip_score", "synthetic_activation", "auroc_pooled", "auroc_per_feature")
_POOLED = METRICS.index("auroc_pooled")
N_NEIGHBOURS = 8
METHODS = tuple(place for place, arm in enumerate(ARMS) if not arm.is_control)
_KEPT_SHARE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every table agrees on."""

    features: Int64[np.ndarray, " feature"]
    """Ids with gaps, because dead features have no row."""
    topic: Int64[np.ndarray, " feature"]
    text: Int64[np.ndarray, "feature arm"]
    """Row of the text of every arm; -1 for a failure, in the order of ARMS."""
    codes: Codes
    """Of the distinct texts but the last, which is the unsteered answer."""
    texts: tuple[str, ...]
    best: Int64[np.ndarray, " feature"]
    """Place of the winning arm."""
    maximum: Float32[np.ndarray, " feature"]
    seed: int

    @property
    def n(self) -> int:
        return len(self.features)

    def rng(self, table: str) -> np.random.Generator:
        """Each table draws from its own stream, so that one may change without the others."""
        return np.random.default_rng([self.seed, *table.encode()])


def plan(n_features: int, seed: int) -> Plan:
    """Topics of very different sizes; the methods agree mostly, and now and then one of them fails."""
    rng = np.random.default_rng([seed, n_features])
    sizes = 1 / (rng.permutation(N_TOPICS) + 20.0)
    topic = rng.choice(N_TOPICS, n_features, p=sizes / sizes.sum())
    attribute, context = rng.integers(len(ATTRIBUTES), size=n_features), rng.integers(len(CONTEXTS), size=n_features)

    def said(p_other: float, bare: bool = False) -> np.ndarray:
        """Packed texts that name another attribute or context with probability ``p_other`` each."""
        attributes, contexts = (
            np.where(rng.random(n_features) < p_other, rng.integers(count, size=n_features), own)
            for own, count in ((attribute, len(ATTRIBUTES)), (context, len(CONTEXTS)))
        )
        chosen = np.full_like(contexts, NO_CONTEXT) if bare else contexts
        return Codes(topic=topic, attribute=attributes, context=chosen).packed()

    methods = [said(0.1, bare=True), *(said(0.1) for _ in range(4))]
    nothing = np.full(n_features, -2)
    packed = np.stack([*methods, nothing, rng.permutation(methods[1]), np.roll(methods[0], 1)], axis=1)
    packed[rng.random(packed.shape) < 0.01] = -1
    distinct = np.unique(packed[packed >= 0])
    codes = Codes.unpack(distinct)
    text = np.searchsorted(distinct, packed)
    text[packed == -2], text[packed == -1] = len(distinct), -1
    given = rng.random((n_features, len(METHODS))) * (text[:, METHODS] >= 0)
    return Plan(
        features=np.arange(n_features) + np.arange(n_features) // 9,
        topic=topic,
        text=text,
        codes=codes,
        texts=(*codes.texts(), "nothing"),
        best=given.argmax(axis=1),
        maximum=rng.uniform(4, 40, n_features).astype(np.float32),
        seed=seed,
    )


# -------------------------------------------------------------------------------------------------------- columns


def chosen(values: Sequence[str | None], places: Int64[np.ndarray, " row"]) -> pa.Array:
    """A text column from its few distinct values; place -1 is null."""
    indices = pa.array(places.astype(np.int32), mask=places < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string())).cast(pa.string())


def lists(rows: np.ndarray, kind: pa.DataType) -> pa.Array:
    """A list column from rows of one length."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.ravel(), kind))


def numbers(values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=missing)


def table(name: str, columns: dict[str, pa.Array | np.ndarray]) -> pa.Table:
    """Columns as the atlas table ``name``."""
    schema = ATLAS_TABLES[name]
    return pa.table({field.name: columns[field.name] for field in schema}).cast(schema)


# --------------------------------------------------------------------------------------------------------- tables


def features_table(made: Plan, places: Float32[np.ndarray, "feature xy"], cluster: np.ndarray) -> pa.Table:
    """One row per feature; nothing is known about its truth."""
    rng, n = made.rng("features"), made.n
    best_text = made.text[np.arange(n), made.best]
    edges = np.linspace(0, 1, 11, dtype=np.float32) * made.maximum[:, None]
    absent = pa.nulls(n, pa.string())
    columns: dict[str, pa.Array | np.ndarray] = {
        "feature": made.features,
        "x": places[:, 0],
        "y": places[:, 1],
        "cluster": cluster,
        "firing_fraction": numbers(10 ** rng.uniform(-4, -1, n)),
        "mean_when_active": numbers(made.maximum * 0.4),
        "maximum": numbers(made.maximum),
        "n_images_active": rng.integers(20, 4000, n),
        "histogram": lists(np.sort(rng.integers(1, 900, (n, 10)))[:, ::-1], pa.int32()),
        "histogram_edges": lists(edges, pa.float32()),
        "decoder_norm": numbers(np.ones(n)),
        "truth_concept": absent,
        "truth_ap": pa.nulls(n, pa.float32()),
        "truth_ap_low": pa.nulls(n, pa.float32()),
        "truth_ap_high": pa.nulls(n, pa.float32()),
        "truth_n_images": pa.nulls(n, pa.int32()),
        "truth_group": absent,
        "truth_terms": pa.array([[]] * n, pa.list_(pa.string())),
        "best_arm": chosen([arm.key for arm in ARMS], np.where(best_text < 0, -1, made.best)),
        "best_text": chosen(made.texts, best_text),
        "agreement": numbers(rng.uniform(0.1, 1, n)),
        "quality_kept": pa.array(rng.random(n) < _KEPT_SHARE),
        "recommended_strength": numbers(made.maximum * 2),
    }
    return table("features", columns)


def explanations_table(made: Plan) -> pa.Table:
    """Every arm of every feature."""
    n_arms, text = len(ARMS), made.text.ravel()
    arm = np.tile(np.arange(n_arms), made.n)
    failed = text < 0
    maximum = np.repeat(made.maximum, n_arms)
    steered = np.array([arm.method not in (Method.TOP_K, Method.NO_STEERING) for arm in ARMS])[arm]
    columns: dict[str, pa.Array | np.ndarray] = {
        "feature": np.repeat(made.features, n_arms),
        "arm": chosen([arm.key for arm in ARMS], arm),
        "text": chosen(made.texts, text),
        "raw_text": chosen(["", *(f"The image shows {words}." for words in made.texts)], np.where(failed, 0, text + 1)),
        "failure": chosen(["empty answer"], np.where(failed, 0, -1)),
        "strength": numbers(2 * maximum, ~steered),
        "n_patches_edited": np.where(steered, SIDE * SIDE, 0),
        "image_ids": pa.array([[]] * len(arm), pa.list_(pa.string())),
        "truth_outcome": chosen(["undecidable"], np.zeros_like(arm)),
        "is_best": pa.array(arm == np.repeat(made.best, n_arms)),
    }
    return table("explanations", columns)


def scores_table(made: Plan) -> pa.Table:
    """Five metrics of every arm; absent where there is no text, and pooled ones are of no single feature."""
    rng, n_arms, n_metrics = made.rng("scores"), len(ARMS), len(METRICS)
    n_rows = made.n * n_arms * n_metrics
    metric = np.tile(np.arange(n_metrics), made.n * n_arms)
    failed = np.repeat(made.text.ravel() < 0, n_metrics)
    missing = failed | (metric == _POOLED)
    value = np.clip(rng.normal(0.5, 0.15, n_rows), 0, 1)
    columns: dict[str, pa.Array | np.ndarray] = {
        "feature": np.repeat(made.features, n_arms * n_metrics),
        "arm": chosen([arm.key for arm in ARMS], np.tile(np.repeat(np.arange(n_arms), n_metrics), made.n)),
        "metric": chosen(METRICS, metric),
        "value": numbers(value.round(3), missing),
        "n": np.where(missing, 0, 20),
        "low": numbers((value - 0.05).round(3), missing),
        "high": numbers((value + 0.05).round(3), missing),
        "reason": chosen(
            ["empty answer", "scored over all features together"], np.where(failed, 0, np.where(missing, 1, -1))
        ),
    }
    return table("scores", columns)


def neighbours_table(made: Plan) -> pa.Table:
    """Other features of the same topic, which stand beside a feature in a list sorted by topic."""
    parts = []
    count = min(N_NEIGHBOURS, made.n - 1)
    for kind, step in (("meaning", 1), ("direction", 3), ("coactivation", 7)):
        order = np.lexsort((made.rng(kind).random(made.n), made.topic))
        place = np.empty(made.n, np.int64)
        place[order] = np.arange(made.n)
        rank = np.tile(np.arange(count), made.n)
        steps = (1 + rank * step - 1) % max(made.n - 1, 1) + 1
        other = order[(np.repeat(place, count) + steps) % made.n]
        columns: dict[str, pa.Array | np.ndarray] = {
            "feature": np.repeat(made.features, count),
            "kind": chosen([kind], np.zeros(len(rank), np.int64)),
            "rank": rank,
            "neighbour": made.features[other],
            "value": numbers(0.95 - 0.05 * rank),
        }
        parts.append(table("neighbours", columns))
    together = pa.concat_tables(parts)
    return together.take(pa.array(np.argsort(together["feature"].to_numpy(), kind="stable")))


def clusters_table(made: Plan, places: Float32[np.ndarray, "feature xy"], cluster: np.ndarray) -> pa.Table:
    """One row per topic that has features; clusters are numbered from the largest to the smallest."""
    rows = []
    for key in range(int(cluster.max()) + 1):
        members = np.flatnonzero(cluster == key)
        name = topic_name(int(made.topic[members[0]]))
        x, y = np.median(places[members], axis=0)
        rows.append(
            {
                "cluster": key,
                "label": name.capitalize(),
                "x": float(x),
                "y": float(y),
                "n_features": len(members),
                "top_words": name.split()[-1:],
            }
        )
    return pa.Table.from_pylist(rows, schema=ATLAS_TABLES["clusters"])
