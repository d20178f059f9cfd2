"""A small, complete, valid atlas with planted structure, written in about a second.

Feature ``i`` shows concept ``i % 13``; every thirteenth feature shows nothing in particular. Features of one family lie
together on the map and form one cluster. Methods differ by plan: STEERING names only the group for every third feature,
TOP_K (heatmaps) fails for every eleventh, the controls are wrong. Everything else follows from the seed.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32
from PIL import Image, ImageDraw

from backend.artifact_writer import ArtifactWriter
from backend.atlas_schema import ATLAS_TABLES, NEIGHBOUR_KINDS
from backend.lexical import terms
from backend.text_encoders import TextEncoder, load_text_encoder
from backend.types import ARMS, Arm, Method
from tests.planted_atlas import (
    CHANCE,
    COLS,
    CONCEPTS,
    FAMILIES,
    IMAGE_PX,
    METRICS,
    N_EXEMPLARS,
    N_SYNTHETIC,
    ROWS,
    PlantedConcept,
    meta_document,
    summary_document,
    write_index,
    write_sae,
)


class BagEncoder:
    """A tiny stand-in for MiniLM: hashed word stems, unit rows. Same words, same place; nothing to load."""

    fingerprint = "bag-of-stems-384"

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d"]:
        rows = np.full((len(texts), 384), 1e-4, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for term in terms(text):
                row[zlib.crc32(term.encode()) % 384] += 1.0
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@dataclass
class _Plan:
    """Rows collected while walking over the features."""

    features: list[dict[str, Any]] = field(default_factory=list)
    explanations: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    exemplars: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)
    text_masks: list[dict[str, Any]] = field(default_factory=list)
    synthetic: list[dict[str, Any]] = field(default_factory=list)
    synthetic_activations: list[dict[str, Any]] = field(default_factory=list)
    neighbours: list[dict[str, Any]] = field(default_factory=list)
    clusters: list[dict[str, Any]] = field(default_factory=list)


def planted_concept(place: int) -> PlantedConcept | None:
    """The concept of the feature in row ``place``, or None."""
    index = place % (len(CONCEPTS) + 1)
    return CONCEPTS[index] if index < len(CONCEPTS) else None


def feature_id(place: int) -> int:
    """Ids have gaps, because dead features have no row."""
    return place + place // 10


def build_atlas(folder: Path, n_features: int = 60, seed: int = 0, encoder: TextEncoder | None = None) -> Path:
    """Write the atlas into ``folder`` and return it. ``encoder`` defaults to the packaged MiniLM (slow to import)."""
    rng = np.random.default_rng(seed)
    writer = ArtifactWriter(
        folder, "atlas", 1, {"atlas": {"n_features": n_features, "seed": seed}}, {"score": "0" * 64}
    )
    plan = _Plan()
    _add_images(plan)
    for place in range(n_features):
        _add_feature(plan, place, rng)
    _add_texts(plan)
    _add_text_masks(plan)
    chosen = encoder or load_text_encoder("all-MiniLM-L6-v2")
    vectors = chosen.encode([row["text"] for row in plan.texts])
    place_of = {row["text"]: place for place, row in enumerate(plan.texts)}
    _add_neighbours(plan, vectors[[place_of[row["best_text"]] for row in plan.features]], rng)
    _add_synthetic(plan, rng)
    for name, schema in ATLAS_TABLES.items():
        writer.write_table(name, pa.Table.from_pylist(_halves(getattr(plan, name)), schema=schema))
    writer.write_array("embeddings", vectors.astype(np.float16))
    write_index(writer, vectors)
    write_sae(writer, rng)
    writer.write_json("meta", meta_document(n_features, getattr(chosen, "name", chosen.fingerprint)))
    writer.write_json("summary", summary_document(plan.explanations, plan.scores))
    writer.commit({"failures": {"empty answer": sum(row["failure"] is not None for row in plan.explanations)}})
    return folder


def _halves(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Grids as NumPy halves, the only form Arrow takes for float16."""
    return [{**row, "grid": np.asarray(row["grid"], np.float16)} if "grid" in row else row for row in rows]


def draw(concept: PlantedConcept | None, variant: int) -> tuple[bytes, tuple[int, int]]:
    """A thumbnail with one 4x4-patch square of the concept's colour; also the square's first patch (row, col)."""
    image = Image.new("RGB", (IMAGE_PX, IMAGE_PX), (205 + 5 * (variant % 5), 215, 225))
    row, col = (3 * variant + 2) % 12, (5 * variant + 1) % 12
    left, top = col * 8, row * 8
    colour = concept.colour if concept else (120, 120, 120)
    ImageDraw.Draw(image).rectangle((left, top, left + 31, top + 31), fill=colour, outline=(20, 20, 20))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue(), (row, col)


def _add_images(plan: _Plan) -> None:
    for index in range(len(CONCEPTS) + 1):
        concept = planted_concept(index)
        for variant in range(2 * N_EXEMPLARS):
            webp, _ = draw(concept, variant)
            split = "explain" if variant < N_EXEMPLARS else "score"
            name = f"{split}-{index:02d}-{variant:02d}"
            plan.images.append({"image_id": name, "split": split, "webp": webp, "width": IMAGE_PX, "height": IMAGE_PX})


def _texts(place: int) -> dict[str, str | None]:
    """The words of every arm for one feature; None is a failure."""
    concept = planted_concept(place)
    texts: dict[str, str | None] = {}
    for arm in ARMS:
        if arm.method is Method.NO_STEERING:
            texts[arm.key] = "nothing"
        elif arm.is_control:
            texts[arm.key] = CONCEPTS[(place * 5 + 7) % len(CONCEPTS)].texts[0]
        elif concept is None:
            texts[arm.key] = "a mixed scene"
        elif arm.method is Method.STEERING:
            texts[arm.key] = f"a {concept.terms[0]}" if place % 3 == 0 else concept.texts[0]
        else:
            texts[arm.key] = concept.texts[place % 2]
    if place % 11 == 5:
        texts["top_k_heatmaps"] = None
    return texts


def _outcome(place: int, arm: Arm, text: str | None) -> str:
    concept = planted_concept(place)
    if concept is None:
        return "undecidable"
    if text in concept.texts:
        return "right"
    return "partly" if text and any(term in text for term in concept.terms) else "wrong"


def _add_feature(plan: _Plan, place: int, rng: np.random.Generator) -> None:
    concept, texts = planted_concept(place), _texts(place)
    feature, group = feature_id(place), concept.family if concept else "mixed"
    cluster = FAMILIES.index(group)
    angle = 2 * np.pi * cluster / len(FAMILIES)
    maximum = float(rng.uniform(4, 12))
    edges = np.linspace(0, maximum, 11)
    plan.features.append(
        {
            "feature": feature,
            "x": float(4 * np.cos(angle) + rng.normal(0, 0.5)),
            "y": float(4 * np.sin(angle) + rng.normal(0, 0.5)),
            "cluster": cluster,
            "firing_fraction": float(rng.uniform(0.001, 0.05)),
            "mean_when_active": maximum * 0.4,
            "maximum": maximum,
            "n_images_active": int(rng.integers(20, 400)),
            "histogram": sorted(rng.integers(1, 500, 10).tolist(), reverse=True),
            "histogram_edges": edges.tolist(),
            "decoder_norm": 1.0,
            "truth_concept": concept.id if concept else None,
            "truth_ap": (precision := float(rng.uniform(0.35, 0.95)) if concept else None),
            "truth_ap_low": precision - 0.1 if precision else None,
            "truth_ap_high": precision + 0.05 if precision else None,
            "truth_n_images": 1000 if concept else None,
            "truth_group": concept.family if concept else None,
            "truth_terms": [concept.id, concept.family, *concept.terms] if concept else [],
            "best_arm": "steering_informed_top_k_masks",
            "best_text": texts["steering_informed_top_k_masks"],
            "agreement": float(rng.uniform(0.2, 1.0)),
            "quality_kept": place % 4 != 3,
            "recommended_strength": 2.0 * maximum,
        }
    )
    for arm in ARMS:
        _add_arm(plan, place, arm, texts[arm.key], maximum, rng)
    _add_exemplars(plan, place, maximum)
    _add_silent(plan, place)


def _add_arm(plan: _Plan, place: int, arm: Arm, text: str | None, maximum: float, rng: np.random.Generator) -> None:
    feature, steered = feature_id(place), arm.method is not Method.TOP_K and arm.method is not Method.NO_STEERING
    shows_images = arm.variant is not None
    names = [f"explain-{place % (len(CONCEPTS) + 1):02d}-{rank:02d}" for rank in range(5)] if shows_images else []
    outcome = _outcome(place, arm, text)
    plan.explanations.append(
        {
            "feature": feature,
            "arm": arm.key,
            "text": text,
            "raw_text": "" if text is None else f"The image shows {text}.",
            "failure": "empty answer" if text is None else None,
            "strength": 2.0 * maximum if steered else None,
            "n_patches_edited": ROWS * COLS if steered else 0,
            "image_ids": names,
            "truth_outcome": outcome,
            "is_best": arm.key == "steering_informed_top_k_masks",
        }
    )
    good = {"right": 0.45, "partly": 0.25, "wrong": 0.0, "undecidable": 0.1}[outcome]
    for metric in METRICS:
        missing = text is None or metric == "auroc_pooled"
        value = None if missing else float(CHANCE[metric] + good + rng.normal(0, 0.02))
        reason = "scored over all features together" if metric == "auroc_pooled" else "empty answer"
        plan.scores.append(
            {
                "feature": feature,
                "arm": arm.key,
                "metric": metric,
                "value": value,
                "n": 0 if missing else 20,
                "low": None if value is None else value - 0.05,
                "high": None if value is None else value + 0.05,
                "reason": reason if missing else None,
            }
        )


def _add_exemplars(plan: _Plan, place: int, maximum: float) -> None:
    concept_place = place % (len(CONCEPTS) + 1)
    for pooling in ("mean", "max", "decile"):
        for variant in range(2 * N_EXEMPLARS):
            split, rank = ("explain", variant) if variant < N_EXEMPLARS else ("score", variant - N_EXEMPLARS)
            _, (row, col) = draw(planted_concept(place), variant)
            grid = np.zeros((ROWS, COLS), np.float32)
            grid[row : row + 4, col : col + 4] = maximum * (1 - 0.1 * rank)
            plan.exemplars.append(
                {
                    "feature": feature_id(place),
                    "split": split,
                    "pooling": pooling,
                    "rank": rank,
                    "image_id": f"{split}-{concept_place:02d}-{variant:02d}",
                    "activation_mean": float(grid.mean()),
                    "activation_max": float(grid.max()),
                    "grid": grid.ravel().tolist(),
                }
            )


def _family_of(text: str) -> str | None:
    """The family that a planted text names, if any."""
    for concept in CONCEPTS:
        if text in concept.texts or text in {f"a {term}" for term in concept.terms}:
            return concept.family
    return None


def _add_texts(plan: _Plan) -> None:
    texts = sorted({row["text"] for row in plan.explanations if row["text"] is not None})
    for text in texts:
        family = _family_of(text)
        plan.texts.append({"text": text, "groups": None if family is None else [family]})


def _add_text_masks(plan: _Plan) -> None:
    """The square of the concept a text names, on the images of the features it was written for; else nothing."""
    method_arms = {arm.key for arm in ARMS if not arm.is_control}
    pairs: dict[tuple[str, str], np.ndarray] = {}
    for place in range(len(plan.features)):
        concept, index = planted_concept(place), place % (len(CONCEPTS) + 1)
        texts = {text for arm, text in _texts(place).items() if text and arm in method_arms}
        for text in texts & {text for known in CONCEPTS for text in known.texts}:
            for variant in range(2 * N_EXEMPLARS):
                mask = np.zeros((ROWS, COLS), bool)
                if concept and text in concept.texts:
                    _, (row, col) = draw(concept, variant)
                    mask[row : row + 4, col : col + 4] = True
                split = "explain" if variant < N_EXEMPLARS else "score"
                pairs[text, f"{split}-{index:02d}-{variant:02d}"] = mask
    plan.text_masks += [
        {"text": text, "image_id": name, "mask": np.packbits(mask).tobytes()}
        for (text, name), mask in sorted(pairs.items(), key=lambda item: item[0])
    ]


def _add_silent(plan: _Plan, place: int) -> None:
    """Scoring images of the next concept: the feature fires on none of them."""
    other = (place + 1) % (len(CONCEPTS) + 1)
    for rank in range(N_EXEMPLARS):
        plan.exemplars.append(
            {
                "feature": feature_id(place),
                "split": "score",
                "pooling": "silent",
                "rank": rank,
                "image_id": f"score-{other:02d}-{N_EXEMPLARS + rank:02d}",
                "activation_mean": 0.0,
                "activation_max": 0.0,
                "grid": [0.0] * (ROWS * COLS),
            }
        )


def _add_neighbours(plan: _Plan, vectors: np.ndarray, rng: np.random.Generator) -> None:
    n = len(plan.features)
    noise = rng.normal(size=(n, 16)).astype(np.float32)
    others = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    for kind in NEIGHBOUR_KINDS:
        similarity = vectors @ vectors.T if kind == "meaning" else others @ others.T
        np.fill_diagonal(similarity, -np.inf)
        for place in range(n):
            for rank, other in enumerate(np.argsort(-similarity[place], kind="stable")[: min(8, n - 1)]):
                plan.neighbours.append(
                    {
                        "feature": feature_id(place),
                        "kind": kind,
                        "rank": rank,
                        "neighbour": feature_id(int(other)),
                        "value": float(similarity[place, other]),
                    }
                )
    for cluster, family in enumerate(FAMILIES):
        rows = [row for row in plan.features if row["cluster"] == cluster]
        if rows:
            plan.clusters.append(
                {
                    "cluster": cluster,
                    "label": "Mixed scenes" if family == "mixed" else f"{family.capitalize()} features",
                    "x": float(np.mean([row["x"] for row in rows])),
                    "y": float(np.mean([row["y"] for row in rows])),
                    "n_features": len(rows),
                    "top_words": sorted({term for row in rows for term in row["truth_terms"]})[:5],
                }
            )


def _add_synthetic(plan: _Plan, rng: np.random.Generator) -> None:
    drawn: set[str] = set()
    colour_of = {text: concept for concept in CONCEPTS for text in concept.texts}
    for row in plan.explanations:
        text = row["text"]
        if text is None or text not in colour_of:
            continue
        for index in range(N_SYNTHETIC):
            if text not in drawn:
                webp, _ = draw(colour_of[text], index + 3)
                plan.synthetic.append({"text": text, "image_index": index, "webp": webp})
            plan.synthetic_activations.append(
                {
                    "feature": row["feature"],
                    "arm": row["arm"],
                    "text": text,
                    "image_index": index,
                    "activation": float(rng.uniform(0, 2)),
                }
            )
        drawn.add(text)
