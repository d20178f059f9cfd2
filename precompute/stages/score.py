"""Stage 4, score: every explanation measured on the score split, which no explanation and no strength has seen.

Shards: ``truth`` (average precision of every feature for every concept, where masks are known), ranges of distinct
texts (images generated once per text, and every feature's activation on them), and feature ranges (IoU and CLIP score).

Output: scores, outcomes (truth verdict and vote per explanation), truth, concepts, votes, synthetic,
synthetic_activations, summary.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from backend.artifacts import Artifact
from backend.models.base import VisionTower
from backend.sae import TopKSAE
from backend.types import Split
from precompute.datasets import open_image_set, require_disjoint
from precompute.encoding import encode_images, fixed_threads
from precompute.exemplars import ExemplarIndex, ImageCache, alive_features, grid_of
from precompute.judges import Judges, open_judges
from precompute.metrics.truth import average_precisions, precision_intervals
from precompute.recipe import Recipe, section_science
from precompute.score_results import ScoreResults
from precompute.scoring import SCORE_SCHEMA, RegionScorer, require_unseen, score_row
from precompute.sparse_codes import by_feature
from precompute.stage import Stage, StageContext
from precompute.subject import device_of, open_tower
from precompute.synthesis import draw, pooled_activations, synthetic_table
from precompute.texts import distinct_texts

TRUTH_KEY = "truth"
TEXTS_PER_SHARD = 128
FEATURES_PER_SHARD = 128
_DISJOINT = (Split.EXPLAIN, Split.SELECT, Split.SCORE)


class ScoringSession:
    """What the shards of one run share: models, judges, explanations by feature."""

    def __init__(self, context: StageContext) -> None:
        self.recipe = context.recipe
        self.images = open_image_set(context.recipe, Split.SCORE)
        require_disjoint({split: open_image_set(context.recipe, split).ids for split in _DISJOINT})
        self.judges: Judges = open_judges(context.recipe, context.runtime)
        self.harvest: Artifact = context.upstream["harvest"]
        self.subject: VisionTower = open_tower(context.recipe, context.runtime)
        self.sae = TopKSAE.load(context.upstream["train_sae"].folder / "sae", device=device_of(context.runtime))
        self.cache = ImageCache(self.images)
        self.rows = context.upstream["explain"].table("explanations").to_pylist()

    @cached_property
    def exemplars(self) -> ExemplarIndex:
        """Scoring exemplars, by mean pooling."""
        return ExemplarIndex(self.harvest, Split.SCORE, "mean", grid_of(self.harvest))

    @cached_property
    def by_feature(self) -> dict[int, list[dict[str, Any]]]:
        """Explanations and failures of each feature."""
        grouped: dict[int, list[dict[str, Any]]] = {}
        for row in self.rows:
            grouped.setdefault(row["feature"], []).append(row)
        return grouped


class ScoreStage(Stage):
    """See the module docstring."""

    name = "score"
    version = 4
    upstream = ("train_sae", "harvest", "explain")
    keep_shards = False

    def __init__(self) -> None:
        self._session: tuple[Path, ScoringSession] | None = None

    def science(self, recipe: Recipe) -> dict[str, Any]:
        return {"score": section_science(recipe.score), "judges": dict(open_judges(recipe).fingerprints)}

    def shards(self, context: StageContext) -> Sequence[str]:
        n_texts = len(distinct_texts(context.upstream["explain"]))
        alive = alive_features(context.upstream["harvest"])
        starts = sorted({feature // FEATURES_PER_SHARD * FEATURES_PER_SHARD for feature in alive})
        truth = [TRUTH_KEY] if open_judges(context.recipe).truth is not None else []
        texts = [f"texts-{start:06d}" for start in range(0, n_texts, TEXTS_PER_SHARD)]
        return [*truth, *texts, *(f"features-{start:06d}" for start in starts)]

    def phases(self, keys: Sequence[str]) -> Sequence[Sequence[str]]:
        last = [key for key in keys if key.startswith("features-")]  # they read the embeddings of all texts
        return [[key for key in keys if key not in last], last]

    def _open(self, context: StageContext) -> ScoringSession:
        if self._session is None or self._session[0] != context.out_dir:
            self._session = (context.out_dir, ScoringSession(context))
        return self._session[1]

    def run_shard(self, context: StageContext, key: str) -> None:
        session = self._open(context)
        with fixed_threads(context.runtime.workers):
            if key == TRUTH_KEY:
                self._truth(context, session)
            elif key.startswith("texts-"):
                self._texts(context, session, key)
            else:
                self._features(context, session, key)

    def _truth(self, context: StageContext, session: ScoringSession) -> None:
        """Average precision of every feature for every concept on the score split."""
        oracle = session.judges.truth
        assert oracle is not None, "the truth shard exists only with an oracle"
        values, indices, masks = [], [], []
        with context.progress.track("truth (images)", len(session.images.ids)) as advance:
            batch = context.runtime.images_per_batch
            for chunk in encode_images(session.subject, session.images, session.images.ids, images_per_batch=batch):
                codes = session.sae.encode(chunk.residuals)
                values.append(codes.values.cpu())
                indices.append(codes.indices.to(torch.int32).cpu())
                exact = oracle.masks(session.images, chunk.image_ids)
                masks.append(np.moveaxis(exact.reshape(*exact.shape[:2], -1), 1, 2))
                advance(len(chunk.image_ids))
        codes, all_masks = by_feature(torch.cat(values), torch.cat(indices)), np.concatenate(masks)
        table = average_precisions(codes, all_masks, session.sae.d_sae).astype(np.float32)
        context.writer.write_array("average_precision", table, shard=TRUTH_KEY)
        score = context.recipe.score
        intervals = precision_intervals(
            codes, all_masks, table, score.ap_threshold, n_bootstrap=score.n_bootstrap, seed=score.seed
        )
        context.writer.write_array("precision_intervals", intervals.astype(np.float32), shard=TRUTH_KEY)

    def _texts(self, context: StageContext, session: ScoringSession, key: str) -> None:
        """Generate the images of a range of texts, and measure every feature on them."""
        score = context.recipe.score
        start = int(key.removeprefix("texts-"))
        texts = distinct_texts(context.upstream["explain"])[start : start + TEXTS_PER_SHARD]
        drawn = draw(session.judges.generator, texts, score.n_synthetic, score.seed)
        batch = context.runtime.images_per_batch
        matrix = pooled_activations(session.subject, session.sae, drawn.images, batch)
        context.writer.write_table("synthetic", synthetic_table(drawn), shard=key)
        context.writer.write_array("activations", matrix, shard=key)
        context.writer.write_array("text_embeddings", session.judges.image_text.encode_texts(texts), shard=key)

    def _features(self, context: StageContext, session: ScoringSession, key: str) -> None:
        """IoU and CLIP score of a range of features."""
        start = int(key.removeprefix("features-"))
        features = [feature for feature in sorted(session.by_feature) if start <= feature < start + FEATURES_PER_SHARD]
        exemplars = {feature: session.exemplars.of(feature, context.recipe.score.n_images) for feature in features}
        scorer = RegionScorer(session.judges, session.cache, self._text_embeddings(context))
        masked = scorer.embed(exemplars, context.runtime.images_per_batch)
        rows: list[dict[str, Any]] = []
        with context.progress.track("IoU and CLIP (features)", len(features)) as advance:
            for feature in features:
                require_unseen(session.by_feature[feature], exemplars[feature])
                done: dict[str, list[dict[str, Any]]] = {}
                for row in session.by_feature[feature]:
                    text, arm = row["text"], row["arm"]
                    if text is None:
                        continue
                    if text not in done:
                        scores = scorer.scores(text, exemplars[feature], masked[feature])
                        done[text] = [score_row(feature, arm, score) for score in scores]
                    rows += [{**scored, "arm": arm} for scored in done[text]]
                advance(1)
        context.writer.write_table("scores", pa.Table.from_pylist(rows, schema=SCORE_SCHEMA), shard=key)

    def _text_embeddings(self, context: StageContext) -> dict[str, np.ndarray]:
        keys = [key for key in context.shard_keys if key.startswith("texts-")]
        parts = [np.load(context.writer.path("text_embeddings.npy", key)) for key in keys]
        texts = distinct_texts(context.upstream["explain"])
        return dict(zip(texts, np.concatenate(parts), strict=True)) if parts else {}

    def finish(self, context: StageContext) -> Mapping[str, Any]:
        with fixed_threads(context.runtime.workers):
            judges, texts = self._open(context).judges, distinct_texts(context.upstream["explain"])
            results = ScoreResults(context, judges.truth)
            failures = results.write()
            cut = {"n_texts": len(texts), "texts_cut": judges.cut_texts(texts)}
        self._session = None
        return {"failures": failures, "notes": {**results.notes(), **cut}}


STAGE = ScoreStage()
