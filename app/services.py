"""What the tabs work with: the opened atlas and the steering worker, wired once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.serving import DEFAULT, OWN, Answering, Serving, answering
from app.subject_worker import AtlasWorker, SubjectWorkers, workers_for
from backend.atlas import FeatureAtlas
from backend.feature_store import ExemplarRecord, FeatureStore
from backend.search import Search
from backend.text_encoders import TextEncoder
from backend.types import TruthOutcome

METRIC_ORDER = ("iou", "clip_score", "synthetic_activation", "auroc_per_feature", "auroc_pooled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Read-only access to one atlas, and the workers that run its subject model."""

    atlas: FeatureAtlas
    worker: AtlasWorker
    key: str = "atlas"
    """Names the atlas in addresses; set by the catalogue."""
    answering: Answering = OWN
    """Which model the worker runs."""

    @property
    def store(self) -> FeatureStore:
        return self.atlas.store

    @property
    def search(self) -> Search:
        return self.atlas.search

    @property
    def meta(self) -> Mapping[str, Any]:
        return self.store.meta

    @property
    def version(self) -> str:
        """First 12 hex digits of the atlas fingerprint: names the data in addresses, so that browsers may cache."""
        return self.store.artifact.manifest.fingerprint[:12]

    @property
    def metric_cards(self) -> dict[str, Mapping[str, Any]]:
        """Metric cards by name, the paper's metrics first, then as the atlas lists them."""
        cards = {card["name"]: card for card in self.meta.get("metrics", ())}
        return {name: cards[name] for name in (*METRIC_ORDER, *cards) if name in cards}

    @property
    def subject_name(self) -> str:
        subject = self.meta.get("subject") or {}
        named = subject.get("repository") or self.meta.get("title") or subject.get("name")
        return str(named or "unnamed subject model")

    @property
    def steered_name(self) -> str:
        """Name of the model that the atlas is steered with: the explainer's where it has the subject's tower."""
        model = self.store.steered_model
        if model == (self.meta.get("subject") or {}):
            return self.subject_name
        return str(model.get("repository") or model["name"])

    @property
    def live_answers(self) -> str:
        """Which model answers live and at which precision, or why none can, in sentences."""
        cannot = self.store.cannot_steer
        return f"{cannot}." if cannot else self.answering.sentence(self.steered_name)

    def pictures(self, feature: int, n: int) -> tuple[ExemplarRecord, ...]:
        """The ``n`` exemplars that show best what a feature looks at: those with its strongest single patches.

        Raises UnknownFeature.
        """
        strongest = self.store.exemplars(feature, pooling="max")
        return (strongest or self.store.exemplars(feature))[:n]

    def best_outcome(self, feature: int) -> str:
        """Truth verdict on the best explanation of a feature. Raises UnknownFeature."""
        verdicts = [record.truth_outcome for record in self.store.explanations(feature) if record.is_best]
        return (verdicts[0] if verdicts else TruthOutcome.UNDECIDABLE).value


def open_services(
    atlas_path: str | Path,
    *,
    verify: bool = True,
    encoder: TextEncoder | None = None,
    workers: SubjectWorkers | None = None,
    serving: Serving = DEFAULT,
) -> Services:
    """Open the atlas; its subject model is not loaded. Raises the artifact errors of FeatureAtlas.open.

    Where ``serving`` names another subject, its tower is compared first; errors as for :func:`app.serving.answering`.

    ``encoder`` embeds queries; None takes the one the atlas names, loaded on the first query. ``workers`` are those
    of all atlases served together; None makes new ones.
    """
    atlas = FeatureAtlas.open(atlas_path, encoder=encoder, verify=verify)
    worker = (workers or workers_for(serving)).of(atlas)
    return Services(atlas=atlas, worker=worker, answering=answering(atlas, serving))
