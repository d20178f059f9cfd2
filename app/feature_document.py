"""The JSON document of one feature: what its page shows, for programs and for citing.

Plain data only: strings, numbers, lists and dictionaries. An absent value is null with its reason beside it, never 0.
Activations and strengths are in residual-stream L2 units; shares are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from app.components import addresses
from app.services import Services
from backend.atlas_schema import NEIGHBOUR_KINDS
from backend.feature_store import ExemplarRecord, ExplanationRecord, FeatureRecord
from backend.types import Score

FORMAT = "iconoscope.feature/1"
N_EXEMPLARS = 12
N_NEIGHBOURS = 8
POOLINGS = ("mean", "max", "decile")


class AtlasStamp(TypedDict):
    """Which data an answer comes from; stands in every answer."""

    key: str
    """Name of the atlas in addresses and arguments."""
    artifact: str
    """SHA-256 fingerprint of everything that determines the atlas."""
    title: str
    n_features: int


class ScoreDocument(TypedDict):
    """One metric's value with its n and 95 % interval, or null with the reason."""

    metric: str
    label: str
    value: float | None
    n: int
    low: float | None
    high: float | None
    reason: str | None
    chance: float | None
    higher_is_better: bool


class ExplanationDocument(TypedDict):
    """What one method or control wrote, with its scores."""

    arm: str
    label: str
    is_control: bool
    is_best: bool
    text: str | None
    raw_text: str
    failure: str | None
    strength: float | None
    n_patches_edited: int | None
    image_ids: list[str]
    truth: str
    scores: list[ScoreDocument]


class ExemplarDocument(TypedDict):
    """An image on which the feature fires; ``image`` is its address below the explorer's."""

    image_id: str
    image: str
    pooling: str
    split: str
    rank: int
    activation_mean: float
    activation_max: float
    n_active_patches: int
    n_patches: int


class NeighbourDocument(TypedDict):
    """A feature near this one, and how near."""

    kind: str
    feature: int
    text: str | None
    value: float


class FeatureDocument(TypedDict):
    """Everything the atlas knows about one feature."""

    format: str
    atlas: AtlasStamp
    feature: int
    link: str
    text: str | None
    written_by: str | None
    truth: str
    cluster: str | None
    activation: dict[str, Any]
    concept: dict[str, Any] | None
    agreement: float | None
    quality_kept: bool
    recommended_strength: float | None
    explanations: list[ExplanationDocument]
    exemplars: list[ExemplarDocument]
    neighbours: list[NeighbourDocument]
    provenance: dict[str, Any]
    citation: str


def stamp(services: Services) -> AtlasStamp:
    """Where an answer comes from."""
    return {
        "key": services.key,
        "artifact": services.store.artifact.manifest.fingerprint,
        "title": str(services.meta.get("title") or services.subject_name),
        "n_features": len(services.store),
    }


def feature_document(services: Services, feature: int, n_exemplars: int = N_EXEMPLARS) -> FeatureDocument:
    """The document of a feature, with ``n_exemplars`` of each ranking. Raises UnknownFeature."""
    record = services.store.feature(feature)
    scores = services.store.scores(feature)
    clusters = {one.cluster: one.label for one in services.store.clusters}
    return {
        "format": FORMAT,
        "atlas": stamp(services),
        "feature": feature,
        "link": link(services, feature),
        "text": record.best_text,
        "written_by": record.best_arm.label if record.best_arm else None,
        "truth": services.best_outcome(feature),
        "cluster": clusters.get(record.cluster),
        "activation": _activation(record),
        "concept": _concept(record),
        "agreement": record.agreement,
        "quality_kept": record.quality_kept,
        "recommended_strength": record.recommended_strength,
        "explanations": [
            _explanation(services, one, scores.get(one.arm, ())) for one in services.store.explanations(feature)
        ],
        "exemplars": [
            _exemplar(services, one)
            for pooling in POOLINGS
            for one in services.store.exemplars(feature, pooling=pooling)[:n_exemplars]
        ],
        "neighbours": _neighbours(services, feature),
        "provenance": _provenance(services),
        "citation": citation(services, record),
    }


def link(services: Services, feature: int) -> str:
    """The feature's page, relative to the explorer's address."""
    return addresses.page(atlas=services.key, tab="feature", feature=feature)


def citation(services: Services, record: FeatureRecord) -> str:
    """One line to cite a feature by; the fingerprint pins the data."""
    said = f"“{record.best_text}” ({record.best_arm.label})" if record.best_text and record.best_arm else "no words"
    hook = services.meta.get("hook_point") or {}
    return (
        f"Feature {record.feature}: {said}. SAE of {services.subject_name}, {hook.get('tower')} tower, block "
        f"{hook.get('layer')}. Iconoscope atlas {services.key}, artifact sha256:"
        f"{services.store.artifact.manifest.fingerprint}. Method: arXiv 2603.22593."
    )


def score_documents(services: Services, scores: Iterable[Score]) -> list[ScoreDocument]:
    """Scores in the order of the metric cards, each with what chance gives."""
    cards = services.metric_cards
    order = {name: place for place, name in enumerate(cards)}
    return [
        {
            "metric": one.metric,
            "label": str(cards.get(one.metric, {}).get("label") or one.metric),
            "value": one.value,
            "n": one.n,
            "low": one.low,
            "high": one.high,
            "reason": one.reason,
            "chance": cards.get(one.metric, {}).get("chance"),
            "higher_is_better": bool(cards.get(one.metric, {}).get("higher_is_better", True)),
        }
        for one in sorted(scores, key=lambda one: order.get(one.metric, len(order)))
    ]


def _activation(record: FeatureRecord) -> dict[str, Any]:
    return {
        "unit": "residual-stream L2",
        "firing_fraction": record.firing_fraction,
        "mean_when_active": record.mean_when_active,
        "maximum": record.maximum,
        "n_images_active": record.n_images_active,
        "n_patches_active": sum(record.histogram) if record.histogram else None,
        "histogram": {"counts": list(record.histogram), "edges": list(record.histogram_edges)},
    }


def _concept(record: FeatureRecord) -> dict[str, Any] | None:
    """The known concept that the feature detects best; None where none is detected well enough."""
    if record.truth_concept is None:
        return None
    return {
        "name": record.truth_concept,
        "group": record.truth_group,
        "terms": list(record.truth_terms),
        "average_precision": record.truth_ap,
        "low": record.truth_ap_low,
        "high": record.truth_ap_high,
        "n_images": record.truth_n_images,
    }


def _explanation(services: Services, record: ExplanationRecord, scores: Iterable[Score]) -> ExplanationDocument:
    return {
        "arm": record.arm.key,
        "label": record.arm.label,
        "is_control": record.arm.is_control,
        "is_best": record.is_best,
        "text": record.text,
        "raw_text": record.raw_text,
        "failure": record.failure,
        "strength": record.strength,
        "n_patches_edited": record.n_patches_edited,
        "image_ids": list(record.image_ids),
        "truth": record.truth_outcome.value,
        "scores": score_documents(services, scores),
    }


def _exemplar(services: Services, record: ExemplarRecord) -> ExemplarDocument:
    return {
        "image_id": record.image_id,
        "image": addresses.image(record.image_id, services.version),
        "pooling": record.pooling,
        "split": record.split,
        "rank": record.rank,
        "activation_mean": record.activation_mean,
        "activation_max": record.activation_max,
        "n_active_patches": int((record.grid > 0).sum()),
        "n_patches": int(record.grid.size),
    }


def _neighbours(services: Services, feature: int) -> list[NeighbourDocument]:
    store = services.store
    return [
        {
            "kind": kind,
            "feature": one.feature,
            "text": store.feature(one.feature).best_text,
            "value": one.value,
        }
        for kind in NEIGHBOUR_KINDS
        for one in store.neighbours(feature, kind)[:N_NEIGHBOURS]
        if one.feature in store
    ]


def _provenance(services: Services) -> dict[str, Any]:
    manifest, meta = services.store.artifact.manifest, services.meta
    subject: Mapping[str, Any] = meta.get("subject") or {}
    return {
        "artifact": manifest.fingerprint,
        "stage_version": manifest.stage_version,
        "upstream": dict(manifest.inputs.get("upstream") or {}),
        "recipe": meta.get("recipe"),
        "subject": {name: subject.get(name) for name in ("name", "repository", "fingerprint")},
        "hook_point": dict(meta.get("hook_point") or {}),
        "sae": dict(meta.get("sae") or {}),
        "prompts": dict(meta.get("prompts") or {}),
        "licences": meta.get("licences"),
    }
