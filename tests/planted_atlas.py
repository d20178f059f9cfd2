"""The plan of the planted atlas: its concepts, sizes and the documents that do not depend on single features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.artifact_writer import ArtifactWriter
from backend.atlas_schema import ATLAS_FORMAT
from backend.types import ARMS

ROWS = COLS = 16
IMAGE_PX = 128
D_MODEL, D_SAE, K = 32, 96, 8
METRICS = ("iou", "clip_score", "synthetic_activation", "auroc_pooled", "auroc_per_feature")
CHANCE = {"iou": 0.05, "clip_score": 0.12, "synthetic_activation": 0.1, "auroc_pooled": 0.5, "auroc_per_feature": 0.5}
N_EXEMPLARS, N_SYNTHETIC = 6, 2


@dataclass(frozen=True)
class PlantedConcept:
    """What a feature shows: its id, its words and the colour that stands for it on the thumbnails."""

    id: str
    family: str
    texts: tuple[str, ...]
    terms: tuple[str, ...]
    colour: tuple[int, int, int]


CONCEPTS: tuple[PlantedConcept, ...] = (
    PlantedConcept("cat", "animal", ("a cat", "a kitten with a long tail"), ("pet", "animal"), (150, 110, 70)),
    PlantedConcept("zebra", "animal", ("a zebra", "a zebra with striped fur"), ("animal",), (60, 60, 60)),
    PlantedConcept("crab", "animal", ("a red crab", "a crab with claws"), ("sea creature", "animal"), (200, 50, 40)),
    PlantedConcept("car", "vehicle", ("a red car", "an automobile"), ("vehicle",), (190, 30, 60)),
    PlantedConcept("train", "vehicle", ("a train", "a steam locomotive"), ("vehicle",), (70, 80, 110)),
    PlantedConcept("stripes", "texture", ("horizontal stripes", "a striped pattern"), ("pattern",), (230, 200, 40)),
    PlantedConcept("dots", "texture", ("polka dots", "a dotted pattern"), ("pattern",), (240, 120, 180)),
    PlantedConcept(
        "road", "background", ("a receding road", "converging lines"), ("perspective", "depth"), (90, 90, 95)
    ),
    PlantedConcept("blur", "photometric", ("a blurred background", "out of focus"), ("depth",), (160, 170, 180)),
    PlantedConcept("sand", "background", ("desert sand", "sand dunes"), ("landscape",), (220, 190, 130)),
    PlantedConcept("apple", "food", ("a red apple", "a ripe apple"), ("fruit", "food"), (210, 40, 40)),
    PlantedConcept("banana", "food", ("a banana", "a ripe banana"), ("fruit", "food"), (240, 220, 70)),
)
FAMILIES = (*dict.fromkeys(concept.family for concept in CONCEPTS), "mixed")


def write_index(writer: ArtifactWriter, vectors: np.ndarray) -> None:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    writer.write_with("index.faiss", lambda path: faiss.write_index(index, str(path)))


def write_sae(writer: ArtifactWriter, rng: np.random.Generator) -> None:
    from safetensors.numpy import save

    decoder = rng.normal(size=(D_SAE, D_MODEL)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    weights = {
        "W_enc": np.ascontiguousarray(decoder.T),
        "W_dec": decoder,
        "b_enc": np.zeros(D_SAE, np.float32),
        "b_dec": np.zeros(D_MODEL, np.float32),
    }
    writer.write_bytes("sae/sae_weights.safetensors", save(weights))
    writer.write_json("sae/cfg", {"architecture": "topk", "d_in": D_MODEL, "d_sae": D_SAE, "k": K, "dtype": "float32"})


def _interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean with a normal 95 % interval, as summary.json holds it."""
    if not values:
        return {"value": None, "low": None, "high": None, "n": 0}
    mean = float(np.mean(values))
    half = float(1.96 * np.std(values) / np.sqrt(len(values)))
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def summary_document(explanations: list[dict[str, Any]], scores: list[dict[str, Any]]) -> dict[str, Any]:
    arms: dict[str, Any] = {}
    for arm in ARMS:
        rows = [row for row in explanations if row["arm"] == arm.key]
        measured = [row for row in scores if row["arm"] == arm.key and row["value"] is not None]
        outcomes = [row["truth_outcome"] for row in rows]
        decidable = [outcome for outcome in outcomes if outcome != "undecidable"]
        failed = sum(row["failure"] is not None for row in rows)
        entry: dict[str, Any] = {"n": len(rows), "failures": {"empty answer": failed} if failed else {}}
        for metric in METRICS:
            entry[metric] = _interval([row["value"] for row in measured if row["metric"] == metric])
        pooled = 0.5 + 0.4 * sum(outcome == "right" for outcome in decidable) / max(len(decidable), 1)
        entry["auroc_pooled"] = {"value": pooled, "low": pooled - 0.03, "high": pooled + 0.03, "n": len(rows)}
        entry["truth"] = {
            name: {
                **_interval([float(outcome == name) for outcome in decidable]),
                "count": sum(outcome == name for outcome in decidable),
            }
            for name in ("right", "partly", "wrong")
        }
        entry["truth"]["undecidable"] = {"count": len(outcomes) - len(decidable)}
        entry["truth_chance"] = 1 / len(CONCEPTS)
        entry["wins"] = sum(row["is_best"] for row in rows)
        arms[arm.key] = entry
    test = {"metric": "iou", "a": "steering", "b": "top_k_masks", "test": "wilcoxon", "p": 0.03, "n": 50, "effect": 0.2}
    n_best_texts = len({row["text"] for row in explanations if row["is_best"]})
    return {"arms": arms, "n_best_texts": n_best_texts, "tests": [test]}


def _metric_card(metric: str) -> dict[str, Any]:
    return {
        "name": metric,
        "label": metric.replace("_", " ").capitalize(),
        "unit": "standard deviations" if metric == "synthetic_activation" else "share",
        "low": None if metric == "synthetic_activation" else 0.0,
        "high": None if metric == "synthetic_activation" else 1.0,
        "chance": CHANCE[metric],
        "higher_is_better": True,
        "source": "arXiv 2603.22593, section 4",
        "description": f"A planted {metric} for tests.",
    }


def meta_document(n_features: int, text_encoder: str) -> dict[str, Any]:
    coverage = {"value": 0.9, "n": len(CONCEPTS), "low": 0.7, "high": 0.97}
    return {
        "format": ATLAS_FORMAT,
        "title": "Planted atlas",
        "subject": {
            "name": "Planted Gemma 3",
            "path": "assets/world/subject",
            "repository": None,
            "fingerprint": "0" * 64,
        },
        "hook_point": {"tower": "vision", "layer": 4, "stream": "residual"},
        "grid": {"rows": ROWS, "cols": COLS},
        "image_px": IMAGE_PX,
        "sae": {
            "d_model": D_MODEL,
            "d_sae": D_SAE,
            "k": K,
            "nmse": 0.08,
            "l0": float(K),
            "explained_variance": 0.92,
            "alive": n_features,
            "dead": D_SAE - n_features,
            "n_tokens": 1_000_000,
            "n_held_out_tokens": 64_000,
        },
        "concept_coverage": {"all": coverage, "by_kind": {"object": coverage, "texture": {**coverage, "n": 2}}},
        "prompts": {"steering": "What is in this image?", "top_k_masks": "What do the images share?"},
        "strengths": {"steering": 16.0, "steering_informed_top_k_masks": 8.0, "steering_informed_top_k_heatmaps": 8.0},
        "mean_residual_norm": 12.5,
        "arms": [arm.key for arm in ARMS],
        "metrics": [_metric_card(metric) for metric in METRICS],
        "chance": CHANCE,
        "n_features": n_features,
        "blank_answer": "nothing",
        "text_encoder": text_encoder,
        "recipe": "planted",
        "licences": {"images": "drawn by the test suite"},
        "quality_filter": {
            "iou": 0.1,
            "synthetic_activation": 0.2,
            "kept": n_features * 3 // 4,
            "dropped": n_features // 4,
        },
    }
