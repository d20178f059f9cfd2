"""What the public functions that only read answer: the atlases, and the hits of a search."""

from __future__ import annotations

from typing import Any, TypedDict

from app.feature_document import AtlasStamp, ScoreDocument, link, score_documents, stamp
from app.services import Services
from backend.search import Hit


class AtlasAnswer(AtlasStamp):
    """One atlas that is served here."""

    subject: dict[str, Any]
    hook_point: dict[str, Any]
    sae: dict[str, Any]
    methods: list[dict[str, str]]
    metrics: list[dict[str, Any]]
    prompts: dict[str, str]
    concept_coverage: dict[str, Any] | None
    recipe: str | None
    link: str


class AtlasesAnswer(TypedDict):
    """The atlases of this explorer; ``default`` is used where no key is given."""

    default: str
    atlases: list[AtlasAnswer]


class HitAnswer(TypedDict):
    """One feature that answers a query, why, and how far its words can be trusted."""

    feature: int
    text: str
    written_by: str | None
    why: str
    score: float
    similarity: float | None
    truth: str
    firing_fraction: float
    n_images_active: int
    scores: list[ScoreDocument]
    link: str


class SearchAnswer(TypedDict):
    """Hits, best first; ``n_searched`` features were considered."""

    atlas: AtlasStamp
    query: str
    n: int
    n_searched: int
    hits: list[HitAnswer]


def atlas_answer(services: Services) -> AtlasAnswer:
    meta = services.meta
    subject = meta.get("subject") or {}
    return {
        **stamp(services),
        "subject": {name: subject.get(name) for name in ("name", "repository", "fingerprint")},
        "hook_point": dict(meta.get("hook_point") or {}),
        "sae": dict(meta.get("sae") or {}),
        "methods": [
            {"arm": arm.key, "label": arm.label, "kind": "control" if arm.is_control else "method"}
            for arm in services.store.arms
        ],
        "metrics": [dict(card) for card in services.metric_cards.values()],
        "prompts": dict(meta.get("prompts") or {}),
        "concept_coverage": meta.get("concept_coverage"),
        "recipe": meta.get("recipe"),
        "link": f"?atlas={services.key}",
    }


def hit_answer(services: Services, hit: Hit) -> HitAnswer:
    record = services.store.feature(hit.feature)
    scores = services.store.scores(hit.feature)
    return {
        "feature": hit.feature,
        "text": hit.text,
        "written_by": hit.arm.label if hit.arm is not None else None,
        "why": hit.why,
        "score": hit.score,
        "similarity": hit.similarity,
        "truth": services.best_outcome(hit.feature),
        "firing_fraction": record.firing_fraction,
        "n_images_active": record.n_images_active,
        "scores": score_documents(services, scores.get(hit.arm, ())) if hit.arm is not None else [],
        "link": link(services, hit.feature),
    }
