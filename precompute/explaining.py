"""All arms for a range of features: exemplars in, explanations and failures out, in the arms' fixed order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from backend.artifacts import Artifact
from backend.explainers import explainer_for
from backend.explainers.base import (
    ExemplarInput,
    ExplainerContext,
    ExplanationRequest,
    PrefixCache,
    Result,
)
from backend.sae import TopKSAE
from backend.types import ARMS, Arm, Explanation, Method, Split, Variant
from precompute.datasets import open_image_set
from precompute.exemplars import Exemplar, ExemplarIndex, ImageCache, alive_features, grid_of
from precompute.judges import Segmenter
from precompute.metrics import mask_overlap
from precompute.recipe import Recipe, Runtime
from precompute.strengths import Trial
from precompute.subject import device_of, open_explainer

STEERING = Arm(method=Method.STEERING)
INFORMED = tuple(arm for arm in ARMS if arm.method is Method.STEERING_INFORMED_TOP_K)
_ON_BLANK = frozenset({Method.STEERING, Method.NO_STEERING, Method.RANDOM_DIRECTION, Method.PERMUTED_DIRECTION})

EXPLANATION_SCHEMA = pa.schema(
    [
        ("feature", pa.int32()),
        ("arm", pa.string()),
        ("text", pa.string()),
        ("raw_text", pa.string()),
        ("failure", pa.string()),
        ("strength", pa.float32()),
        ("n_patches_edited", pa.int32()),
        ("image_ids", pa.list_(pa.string())),
    ]
)
TRIAL_SCHEMA = pa.schema(
    [
        ("feature", pa.int32()),
        ("arm", pa.string()),
        ("strength", pa.float64()),
        ("text", pa.string()),
        ("iou", pa.float32()),
        ("n_images", pa.int32()),
    ]
)


def arms_by_picture(arms: Sequence[Arm] = ARMS) -> tuple[Arm, ...]:
    """The arms, those that look at the same pictures next to one another, so that the tower runs once for them."""
    order = {None: 0, Variant.MASKS: 1, Variant.HEATMAPS: 2}
    return tuple(sorted(arms, key=lambda arm: (order[arm.variant], ARMS.index(arm))))


class ExplanationSession:
    """The model that explains, SAE and exemplars of one run of the explain stage."""

    def __init__(self, recipe: Recipe, runtime: Runtime, train_sae: Artifact, harvest: Artifact) -> None:
        self._explain = recipe.explain
        self._grid = grid_of(harvest)
        self.alive = alive_features(harvest)
        subject = open_explainer(recipe, runtime)
        prompts = recipe.explain.prompts
        self._context = {
            "subject": subject,
            "sae": TopKSAE.load(train_sae.folder / "sae", device=device_of(runtime)),
            "prompts": {
                "steering": prompts.steering,
                "top_k_masks": prompts.top_k_masks,
                "top_k_heatmaps": prompts.top_k_heatmaps,
            },
            "max_new_tokens": recipe.explain.max_new_tokens,
            "seed": recipe.explain.seed,
            "informed_scope": recipe.explain.informed_scope,
            "heatmap_alpha": recipe.explain.heatmap_alpha,
            "answer_prefixes": recipe.explain.answer_prefixes,
            "alive_features": self.alive,
            "exemplar_grid": self._grid,
            "batch_size": runtime.prompts_per_batch,
            "image_batch_size": runtime.images_per_batch,
        }
        self._shown = {
            split: (ExemplarIndex(harvest, split, "mean", self._grid), ImageCache(open_image_set(recipe, split)))
            for split in (Split.EXPLAIN, Split.SELECT)
        }

    def context(self) -> ExplainerContext:
        """A context with an empty prefix cache, to be shared by the arms of one shard."""
        return ExplainerContext(**self._context, prefixes=PrefixCache())

    def explain(
        self, arm: Arm, features: Sequence[int], strengths: Mapping[int, float], context: ExplainerContext
    ) -> list[Result]:
        """One result per feature, in order. ``strengths`` is used by the arms that steer."""
        steered = arm.method not in (Method.TOP_K, Method.NO_STEERING)
        requests = [
            ExplanationRequest(
                feature=feature,
                strength=strengths[feature] if steered else None,
                exemplars=() if arm.method in _ON_BLANK else self._inputs(feature),
            )
            for feature in features
        ]
        return explainer_for(arm).explain(requests, context)

    def _inputs(self, feature: int) -> tuple[ExemplarInput, ...]:
        index, cache = self._shown[Split.EXPLAIN]
        return tuple(
            ExemplarInput(image_id=one.image_id, image=cache[one.image_id], grid=one.grid)
            for one in index.of(feature, self._explain.n_images)
        )

    def trials(
        self,
        arm: Arm,
        features: Sequence[int],
        strengths: Sequence[float],
        context: ExplainerContext,
        segmenter: Segmenter,
    ) -> tuple[list[Trial], dict[tuple[int, float], Result]]:
        """Try every strength on every feature and measure the answers on the select split."""
        results: dict[tuple[int, float], Result] = {}
        for strength in strengths:
            answers = self.explain(arm, features, dict.fromkeys(features, strength), context)
            results.update({(result.feature, strength): result for result in answers})
        # Feature by feature, so that a segmenter embeds an image once for all strengths.
        measured = {
            (feature, strength): self._trial(arm, feature, strength, results[feature, strength], segmenter)
            for feature in features
            for strength in strengths
        }
        return [measured[feature, strength] for strength in strengths for feature in features], results

    def _trial(self, arm: Arm, feature: int, strength: float, result: Result, segmenter: Segmenter) -> Trial:
        text = result.text if isinstance(result, Explanation) else None
        exemplars = self._selecting(feature)
        iou = None
        if text is not None:
            images = [self._shown[Split.SELECT][1][one.image_id] for one in exemplars]
            ids, grids = [one.image_id for one in exemplars], [one.grid for one in exemplars]
            iou = mask_overlap.score(text, ids, images, grids, segmenter).value
        return Trial(feature=feature, arm=arm.key, strength=strength, text=text, iou=iou, n_images=len(exemplars))

    def _selecting(self, feature: int) -> tuple[Exemplar, ...]:
        return self._shown[Split.SELECT][0].of(feature, self._explain.n_images)


def explanation_row(result: Result) -> dict[str, object]:
    """One row of explanations.parquet."""
    common = {
        "feature": result.feature,
        "arm": result.arm.key,
        "raw_text": result.raw_text,
        "strength": result.strength,
    }
    if isinstance(result, Explanation):
        return {
            **common,
            "text": result.text,
            "failure": None,
            "n_patches_edited": result.n_patches_edited,
            "image_ids": list(result.image_ids),
        }
    return {**common, "text": None, "failure": result.reason, "n_patches_edited": None, "image_ids": []}


def trial_row(trial: Trial) -> dict[str, object]:
    """One row of selection.parquet."""
    return {name: getattr(trial, name) for name in TRIAL_SCHEMA.names}
