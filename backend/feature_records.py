"""Records of an atlas: frozen and plain; absent values are None (never 0, never NaN)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from backend.types import Arm, TruthOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRecord:
    """One alive feature of the SAE. Activations are in the SAE's own units (residual-stream L2)."""

    feature: int
    x: float
    y: float
    cluster: int
    firing_fraction: float
    """Share of patches with an activation above 0, in [0, 1]."""
    mean_when_active: float
    maximum: float
    n_images_active: int
    histogram: tuple[int, ...]
    """Counts of active patches per bin."""
    histogram_edges: tuple[float, ...]
    """Bin edges, one more than there are bins."""
    decoder_norm: float | None
    truth_concept: str | None
    truth_ap: float | None
    """Average precision of the activation against the concept's exact masks, in [0, 1]."""
    truth_ap_low: float | None
    truth_ap_high: float | None
    """Ends of its 95 % interval."""
    truth_n_images: int | None
    """Held-out images it was measured on."""
    truth_group: str | None
    truth_terms: tuple[str, ...]
    """Concept name, family and hypernyms: the words under which the truth can be searched."""
    best_arm: Arm | None
    best_text: str | None
    agreement: float | None
    """Cosine between the embeddings of the STEERING and the Top-k (masks) text, in [-1, 1]."""
    quality_kept: bool
    recommended_strength: float | None
    """For steering, in residual-stream L2 units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationRecord:
    """What one arm wrote for one feature: ``text`` or the reason of its failure."""

    feature: int
    arm: Arm
    text: str | None
    raw_text: str
    failure: str | None
    strength: float | None
    n_patches_edited: int | None
    image_ids: tuple[str, ...]
    truth_outcome: TruthOutcome
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemplarRecord:
    """An image on which a feature is active, with its activation per patch."""

    feature: int
    split: str
    pooling: str
    rank: int
    image_id: str
    activation_mean: float
    activation_max: float
    grid: Float[np.ndarray, "row col"]
    """float32 activation of the feature at each patch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticRecord:
    """An image generated from an explanation and the feature's activation on it (None: not measured)."""

    text: str
    image_index: int
    webp: bytes
    activation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourRecord:
    """A feature near another by ``kind``: cosine of meaning or direction, or co-activation."""

    kind: str
    rank: int
    feature: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord:
    """A region of the map with its label."""

    cluster: int
    label: str
    x: float
    y: float
    n_features: int
    top_words: tuple[str, ...]
