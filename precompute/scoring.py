"""Scores of single explanations, feature by feature; aggregation over features is precompute/summary.py.

Every score is a row (feature, arm, metric, value, n, reason); what could not be measured has no value and a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32
from PIL import Image

from backend.batching import in_batches
from backend.errors import DataError
from backend.heatmaps import masked_image
from backend.types import Score, TruthOutcome
from precompute.exemplars import Exemplar, ImageCache
from precompute.judges import Judges, TruthOracle
from precompute.metrics import auroc, clip_score, mask_overlap, synthetic_activation
from precompute.synthesis import SyntheticActivations

NO_TEXT = "no explanation"
NO_SYNTHETIC = "no image could be generated from the text"
SCORE_SCHEMA = pa.schema(
    [
        ("feature", pa.int32()),
        ("arm", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float32()),
        ("n", pa.int32()),
        ("low", pa.float32()),
        ("high", pa.float32()),
        ("reason", pa.string()),
    ]
)


def score_row(feature: int, arm: str, score: Score) -> dict[str, Any]:
    """One row of scores.parquet."""
    return {
        "feature": feature,
        "arm": arm,
        "metric": score.metric,
        "value": score.value,
        "n": score.n,
        "low": score.low,
        "high": score.high,
        "reason": score.reason,
    }


def absent(metrics: Iterable[str], reason: str) -> list[Score]:
    """The same reason for several metrics."""
    return [Score(metric=metric, value=None, n=0, reason=reason) for metric in metrics]


def require_unseen(rows: Sequence[Mapping[str, Any]], exemplars: Sequence[Exemplar]) -> None:
    """Raise DataError if a scoring image was shown to the explainer."""
    seen = {image_id for row in rows for image_id in row["image_ids"]}
    shared = seen & {one.image_id for one in exemplars}
    if shared:
        raise DataError(f"Feature {rows[0]['feature']} would be scored on {min(shared)!r}, which its explainer saw.")


class RegionScorer:
    """IoU and CLIP score of explanations on the scoring exemplars of their feature."""

    def __init__(
        self, judges: Judges, images: ImageCache, text_embeddings: Mapping[str, Float32[np.ndarray, " d"]]
    ) -> None:
        self._judges = judges
        self._images = images
        self._text_embeddings = text_embeddings

    def embed(
        self, exemplars: Mapping[int, Sequence[Exemplar]], images_per_batch: int
    ) -> dict[int, Float32[np.ndarray, "image d"]]:
        """CLIP embeddings of each feature's masked scoring images; they serve every arm."""
        flat: list[Image.Image] = [
            masked_image(self._images[one.image_id], one.grid) for ones in exemplars.values() for one in ones
        ]
        encode = self._judges.image_text.encode_images
        parts = list(in_batches("images", len(flat), images_per_batch, lambda part: encode(flat[part])))
        rows = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
        stops = np.cumsum([len(ones) for ones in exemplars.values()])
        return {
            feature: rows[stop - len(ones) : stop]
            for (feature, ones), stop in zip(exemplars.items(), stops, strict=True)
        }

    def scores(self, text: str, exemplars: Sequence[Exemplar], masked: Float32[np.ndarray, "image d"]) -> list[Score]:
        """``iou`` and ``clip_score`` of one text."""
        images = [self._images[one.image_id] for one in exemplars]
        ids, grids = [one.image_id for one in exemplars], [one.grid for one in exemplars]
        return [
            mask_overlap.score(text, ids, images, grids, self._judges.segmenter),
            clip_score.score(self._text_embeddings[text], masked),
        ]


def truth_outcome(oracle: TruthOracle | None, concept: str | None, text: str | None) -> TruthOutcome:
    """Verdict on one explanation; a failed explanation of a decidable feature is wrong."""
    if oracle is None or concept is None:
        return TruthOutcome.UNDECIDABLE
    return TruthOutcome.WRONG if text is None else oracle.judge(concept, text)


class SyntheticScorer:
    """Synthetic activation and AUROC of explanations, from activations that are already computed."""

    def __init__(
        self,
        synthetic: SyntheticActivations,
        real: Float[np.ndarray, "image d_sae"],
        texts: Iterable[str],
        *,
        n_negatives: int,
        seed: int,
    ) -> None:
        """``texts``: what the methods say about any feature; the hard negatives of every arm come from there."""
        self._synthetic = synthetic
        self._real = real
        self._pool = synthetic.pool(texts)
        self._n_negatives = n_negatives
        self._seed = seed

    def scores(self, feature: int, text: str, strongest: float | None) -> list[Score]:
        """All metrics that need generated images; the same text gets the same scores, whichever arm wrote it."""
        if text not in self._synthetic:
            names = (synthetic_activation.NAME, synthetic_activation.NORMALISED)
            return absent([*names, auroc.PER_FEATURE, auroc.REAL, auroc.SYNTHETIC], NO_SYNTHETIC)
        positives = self._synthetic.of(text, feature)
        rng = self._random(feature, 0)
        hard = self._synthetic.others(self._pool, text, feature, self._n_negatives, rng)
        # Harvest stores real activations as float16: both sides must be rounded alike.
        return [
            *synthetic_activation.scores(positives, strongest),
            *auroc.scores(_half(positives), _half(self.real_negatives(feature, self._n_negatives)), _half(hard)),
        ]

    def real_negatives(self, feature: int, n: int) -> Float[np.ndarray, " image"]:
        """Activations on random scoring images, the same ones for every arm."""
        rows = self._random(feature, 1).choice(len(self._real), size=min(n, len(self._real)), replace=False)
        return np.asarray(self._real[rows, feature])

    def pooled_rows(
        self, texts: Mapping[int, str], n_synthetic: int
    ) -> tuple[Float[np.ndarray, "feature positive"], Float[np.ndarray, "feature negative"], list[int]]:
        """Positives and equally many real negatives of every feature whose text gave images, and these features."""
        usable = {feature: text for feature, text in texts.items() if text in self._synthetic}
        positives = [_half(self._synthetic.of(text, feature)[:n_synthetic]) for feature, text in usable.items()]
        negatives = [_half(self.real_negatives(feature, n_synthetic)) for feature in usable]
        if not usable:
            return np.zeros((0, n_synthetic)), np.zeros((0, n_synthetic)), []
        return np.stack(positives), np.stack(negatives), list(usable)

    def _random(self, feature: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, purpose, feature])


def _half(values: np.ndarray) -> Float[np.ndarray, " image"]:
    return values.astype(np.float16).astype(np.float64)
