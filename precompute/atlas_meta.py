"""meta.json: what an atlas is about, where it came from, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from backend.artifacts import Artifact
from backend.atlas_schema import ATLAS_FORMAT
from backend.models.base import SubjectModel, VisionTower
from backend.types import Method
from precompute.arms import absent_arms, possible_arms
from precompute.given_sae import trained_tokens
from precompute.metrics import metric_cards, truth
from precompute.recipe import Recipe
from precompute.stage import StageContext
from precompute.subject import explainer_document

LICENCES = {
    "world": {
        "code and trained models": "Apache-2.0",
        "sprites": "Noto Color Emoji, SIL Open Font License 1.1",
        "text embeddings": "all-MiniLM-L6-v2, Apache-2.0",
    }
}


def meta_document(context: StageContext, subject: VisionTower, n_features: int, n_kept: int) -> dict[str, Any]:
    """The document; everything in it follows from the recipe and the earlier stages."""
    recipe = context.recipe
    stream = context.upstream["harvest"].json("stream")
    summary = context.upstream["score"].json("summary")
    return {
        "format": ATLAS_FORMAT,
        "title": recipe.title or recipe.name,
        "recipe": recipe.name,
        "subject": {
            "name": subject.card.name,
            "path": recipe.subject.path,
            "repository": subject.card.repository_id,
            "fingerprint": subject.fingerprint,
            **({} if isinstance(subject, SubjectModel) else {"answers": False}),
            **({"note": subject.card.note} if subject.card.note else {}),
        },
        "hook_point": asdict(subject.hook_point),
        "grid": stream["grid"],
        "image_px": subject.image_px,
        "sae": _sae(recipe, context.upstream["train_sae"], subject.d_model, stream["alive"]),
        "concept_coverage": summary["concept_coverage"],
        "prompts": asdict(recipe.explain.prompts),
        "strengths": context.upstream["explain"].json("strengths"),
        **_images_read(context.upstream["explain"]),
        "mean_residual_norm": stream["mean_residual_norm"],
        "arms": [arm.key for arm in possible_arms(recipe)],
        **_others(recipe),
        # TRUTH is no single number per explanation, so it has its own tables instead of a card.
        "metrics": [asdict(card) for name, card in metric_cards().items() if name != truth.NAME],
        "chance": _chance(summary),
        "n_features": n_features,
        "blank_answer": _blank_answer(context.upstream["explain"]),
        "text_encoder": recipe.judges.text_encoder,
        **({} if recipe.data.share == "thumbnails" else {"share": recipe.data.share}),
        "licences": LICENCES.get(recipe.data.kind, {}),
        "quality_filter": {
            "iou": recipe.score.quality_iou,
            "synthetic_activation": recipe.score.quality_synthetic,
            "kept": n_kept,
            "dropped": n_features - n_kept,
        },
    }


def _others(recipe: Recipe) -> dict[str, Any]:
    """What only an atlas has whose features another model explained: that model, and the arms it could not have."""
    explainer, absent = explainer_document(recipe), absent_arms(recipe)
    return {**({"explainer": explainer} if explainer else {}), **({"absent_arms": absent} if absent else {})}


def _images_read(explain: Artifact) -> dict[str, Any]:
    """How the model that explained attended to several images, and in which version of transformers."""
    read = explain.manifest.notes.get("images_read")
    return {"images_read": read} if read else {}


def _sae(recipe: Recipe, train_sae: Artifact, d_model: int, alive: int) -> dict[str, Any]:
    quality = train_sae.json("quality")
    return {
        "d_model": d_model,
        "d_sae": recipe.sae.d_sae,
        "k": recipe.sae.k,
        "nmse": quality["nmse"],
        "l0": quality["l0"],
        "explained_variance": quality["explained_variance"],
        "alive": alive,
        "dead": recipe.sae.d_sae - alive,
        "n_tokens": trained_tokens(recipe, train_sae.folder),
        "n_held_out_tokens": quality["n_tokens"],
    }


def _chance(summary: Mapping[str, Any]) -> dict[str, float]:
    """Chance level by metric: from its card where it is a constant, for TRUTH the highest over the arms."""
    levels = {name: card.chance for name, card in metric_cards().items() if card.chance is not None}
    shuffled = [(entry["truth_chance"] or {}).get("value") for entry in summary["arms"].values()]
    known = [value for value in shuffled if value is not None]
    return {**levels, **({truth.NAME: max(known)} if known else {})}


def _blank_answer(explain: Artifact) -> str | None:
    """What the subject says about the blank image without any steering."""
    for row in explain.table("explanations").select(["arm", "text", "raw_text"]).to_pylist():
        if row["arm"] == Method.NO_STEERING.value:
            return row["text"] or row["raw_text"] or None
    return None
