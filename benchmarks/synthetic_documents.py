"""meta.json and summary.json of a synthetic atlas: as complete as true ones, and plain about what they are."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backend.atlas_schema import ATLAS_FORMAT
from backend.types import ARMS, MetricCard
from benchmarks.synthetic_pictures import IMAGE_PX
from benchmarks.synthetic_tables import METRICS, SIDE, Plan

TEXT_ENCODER = "all-MiniLM-L6-v2"
D_MODEL, K = 16, 8
_SOURCE = "benchmarks/synthetic_atlas.py"


def _card(name: str) -> MetricCard:
    return MetricCard(
        name=name,
        label=name.replace("_", " ").capitalize(),
        unit="share",
        low=0.0,
        high=1.0,
        chance=0.5 if name.startswith("auroc") else None,
        higher_is_better=True,
        source=_SOURCE,
        description="Drawn by a random generator: it measures nothing.",
    )


def meta_document(made: Plan, n_kept: int) -> dict[str, Any]:
    d_sae = int(made.features[-1]) + 1
    return {
        "format": ATLAS_FORMAT,
        "title": f"Synthetic atlas of {made.n:,} made-up features (for benchmarks, no result)",
        "recipe": "synthetic",
        "subject": {"name": "no subject: synthetic", "path": "no-subject", "repository": None, "fingerprint": "0" * 64},
        "hook_point": {"tower": "vision", "layer": 0, "stream": "residual"},
        "grid": {"rows": SIDE, "cols": SIDE},
        "image_px": IMAGE_PX,
        "sae": {
            "d_model": D_MODEL,
            "d_sae": d_sae,
            "k": K,
            "nmse": None,
            "l0": float(K),
            "explained_variance": None,
            "alive": made.n,
            "dead": d_sae - made.n,
            "n_tokens": 0,
        },
        "concept_coverage": None,
        "prompts": {arm.key: "Made up: no model was asked." for arm in ARMS if not arm.is_control},
        "strengths": {"steering": 40.0},
        "mean_residual_norm": 20.0,
        "arms": [arm.key for arm in ARMS],
        "metrics": [asdict(_card(name)) for name in METRICS],
        "chance": {"auroc_pooled": 0.5, "auroc_per_feature": 0.5},
        "n_features": made.n,
        "blank_answer": "nothing",
        "text_encoder": TEXT_ENCODER,
        "licences": {"everything": f"made by {_SOURCE}"},
        "quality_filter": {
            "iou": 0.2,
            "synthetic_activation": 0.3,
            "kept": n_kept,
            "dropped": made.n - n_kept,
        },
    }


def summary_document(made: Plan, explanations: pa.Table, scores: pa.Table) -> dict[str, Any]:
    """Totals of the made-up scores. Nobody knows a truth here, so every verdict is undecidable."""
    measured = scores.filter(pc.field("value").is_valid()).group_by(["arm", "metric"])
    found = measured.aggregate([("value", "mean"), ("value", "stddev"), ("value", "count")]).to_pylist()
    means = {(row["arm"], row["metric"]): row for row in found}
    best = explanations.filter(pc.field("is_best"))
    wins = best["arm"].to_pylist()
    absent = {"value": None, "low": None, "high": None, "n": 0}
    arms: dict[str, Any] = {}
    for place, arm in enumerate(ARMS):
        n_failed = int(np.count_nonzero(made.text[:, place] < 0))
        arms[arm.key] = {
            "n": made.n - n_failed,
            "failures": {"empty answer": n_failed} if n_failed else {},
            **{metric: _interval(means.get((arm.key, metric))) for metric in METRICS},
            "truth": {
                **{name: {**absent, "count": 0} for name in ("right", "partly", "wrong")},
                "undecidable": {"count": made.n},
            },
            "truth_chance": None,
            "wins": wins.count(arm.key),
        }
    return {"arms": arms, "n_best_texts": len(best["text"].unique()), "tests": []}


def _interval(row: dict[str, Any] | None) -> dict[str, float | int | None]:
    """Mean with a normal 95 % interval."""
    if row is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    mean, n = row["value_mean"], row["value_count"]
    half = 1.96 * row["value_stddev"] / n**0.5
    return {"value": mean, "low": mean - half, "high": mean + half, "n": n}
