"""Metrics: known values on planted inputs, absent scores with reasons, and one card per metric."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from backend.errors import DataError
from backend.types import TruthOutcome
from precompute.exemplars import Exemplar
from precompute.metrics import auroc, clip_score, mask_overlap, metric_cards, synthetic_activation, truth
from precompute.scoring import NO_SYNTHETIC, SyntheticScorer, require_unseen, truth_outcome
from precompute.sparse_codes import CodesByFeature, by_feature
from precompute.synthesis import SyntheticActivations, draw, text_seed
from tests.builders_pipeline import PATCH_PX, PlantedJudge, grid_of, picture

RIGHT, PARTLY, WRONG, UNDECIDABLE = TruthOutcome


def test_every_metric_has_one_card_with_a_range() -> None:
    cards = metric_cards()
    names = {"iou", "clip_score", "synthetic_activation", "auroc_pooled", "auroc_per_feature", "truth"}
    assert names <= set(cards)
    for card in cards.values():
        assert card.description and card.label and card.higher_is_better
        assert card.chance is None or (card.low is not None and card.high is not None and card.low < card.chance)


# ------------------------------------------------------------------------------------------------------------ IoU


def test_iou_is_one_where_text_and_feature_agree() -> None:
    ids = ["score-0000", "score-0001"]
    grids = [(grid_of(one) == 0).astype(np.float32) for one in ids]
    grids = [grid if grid.any() else np.eye(4, dtype=np.float32) for grid in grids]
    images = [picture(grid_of(one)) for one in ids]
    expected = [1.0 if (grid_of(one) == 0).any() else 0.0 for one in ids]
    score = mask_overlap.score("something red", ids, images, grids, PlantedJudge())
    assert score.value == pytest.approx(np.mean(expected)) and score.n == 2


def test_iou_counts_both_kinds_of_error() -> None:
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    first[0, :3], second[0, 1:] = True, True
    assert mask_overlap.overlap(first, second) == pytest.approx(2 / 4)
    assert mask_overlap.overlap(first, np.zeros((4, 4), bool)) == 0
    assert mask_overlap.overlap(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 0


def test_active_region_keeps_rows_before_columns() -> None:
    grid = np.zeros((2, 3), np.float32)
    grid[0, 2] = 0.5
    region = mask_overlap.active_region(grid, 2 * PATCH_PX, 3 * PATCH_PX)
    assert region[:PATCH_PX, 2 * PATCH_PX :].all() and region.sum() == PATCH_PX * PATCH_PX


def test_iou_of_an_unparsable_text_is_absent_with_its_reason() -> None:
    grid = np.ones((4, 4), np.float32)
    score = mask_overlap.score("gibberish", ["score-0000"], [picture(grid_of("score-0000"))], [grid], PlantedJudge())
    assert score.value is None and score.reason == mask_overlap.UNPARSABLE
    assert mask_overlap.score("red", [], [], [], PlantedJudge()).reason == mask_overlap.NO_IMAGES


def test_clip_score_is_the_mean_cosine() -> None:
    text = np.array([1.0, 0.0], np.float32)
    images = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    score = clip_score.score(text, images)
    assert score.value == pytest.approx(0.8) and score.n == 2
    assert clip_score.score(text, np.zeros((0, 2), np.float32)).value is None


# --------------------------------------------------------------------------------------------- generated images


def test_synthetic_activation_raw_and_normalised() -> None:
    raw, normalised = synthetic_activation.scores(np.array([1.0, 3.0]), 4.0)
    assert raw.value == 2.0 and normalised.value == 0.5 and raw.n == 2
    assert raw.low == 0.0 and raw.high is not None and normalised.high == pytest.approx(raw.high / 4)
    assert synthetic_activation.scores(np.array([1.0]), None)[1].reason == synthetic_activation.NO_REFERENCE


def test_auroc_per_feature_is_the_mean_of_its_parts() -> None:
    both, real, synthetic = auroc.scores(np.array([2.0, 3.0]), np.array([0.0, 1.0]), np.array([2.5, 2.5]))
    assert real.value == 1.0 and synthetic.value == 0.5 and both.value == 0.75 and both.n == 6
    for score in (both, real, synthetic):
        assert score.value is not None and score.low is not None and score.high is not None
        assert score.low < score.value <= score.high
    both, real, synthetic = auroc.scores(np.array([2.0]), np.array([0.0]), np.empty(0))
    assert both.value is None and synthetic.reason == auroc.NO_OTHERS and real.value == 1.0


def test_drawing_is_seeded_by_text_and_leaves_out_what_it_cannot_draw() -> None:
    drawn = draw(PlantedJudge(), ["a red thing", "gibberish", "blue"], 2, seed=1)
    assert drawn.texts == ("a red thing", "a red thing", "blue", "blue") and drawn.indices == (0, 1, 0, 1)
    alone = draw(PlantedJudge(), ["blue"], 2, seed=1)
    assert alone.images[1].tobytes() == drawn.images[3].tobytes()
    assert text_seed(1, "blue") != text_seed(2, "blue") != text_seed(2, "red")


def synthetic_scorer(
    n_negatives: int = 4, texts: Collection[str] = ("red", "blue", "green", "nonsense")
) -> SyntheticScorer:
    """Feature 0 fires on images of "red" and on no real image; feature 1 fires everywhere alike."""
    matrix = np.array([[5, 1], [5, 1], [0, 1], [0, 1], [1, 1], [0, 1]], np.float32)
    synthetic = SyntheticActivations(["red", "red", "blue", "blue", "green", "green"], matrix)
    real = np.tile(np.array([[0.0, 1.0]], np.float16), (10, 1))
    return SyntheticScorer(synthetic, real, texts, n_negatives=n_negatives, seed=0)


def test_scores_on_generated_images_join_by_text() -> None:
    scores = {score.metric: score for score in synthetic_scorer().scores(0, "red", 10.0)}
    assert scores["synthetic_activation"].value == 5.0
    assert scores["synthetic_activation_normalised"].value == 0.5
    assert scores["auroc_real"].value == scores["auroc_synthetic"].value == scores["auroc_per_feature"].value == 1.0
    assert scores["auroc_synthetic"].n == 2 + 4
    even = {score.metric: score for score in synthetic_scorer().scores(1, "red", 1.0)}
    assert even["auroc_per_feature"].value == 0.5
    wrong = {score.metric: score for score in synthetic_scorer().scores(0, "blue", 10.0)}
    assert wrong["auroc_synthetic"].value is not None and wrong["auroc_synthetic"].value < 0.5


def test_hard_negatives_never_hold_the_own_text() -> None:
    scores = {score.metric: score for score in synthetic_scorer(texts=["red", "red"]).scores(0, "red", 10.0)}
    assert scores["auroc_synthetic"].reason == auroc.NO_OTHERS and scores["auroc_real"].value == 1.0


def test_text_without_images_gives_absent_scores() -> None:
    scores = synthetic_scorer().scores(0, "nonsense", 10.0)
    assert {score.reason for score in scores} == {NO_SYNTHETIC} and len(scores) == 5


def test_pooled_rows_leave_out_texts_without_images() -> None:
    positives, negatives, features = synthetic_scorer().pooled_rows({0: "red", 1: "nonsense"}, 2)
    assert features == [0]
    assert positives.tolist() == [[5.0, 5.0]] and negatives.tolist() == [[0.0, 0.0]]


def test_an_image_that_the_explainer_saw_is_refused() -> None:
    seen = Exemplar(image_id="explain-1", activation_mean=1, activation_max=1, grid=np.ones((4, 4), np.float32))
    rows = [{"feature": 3, "image_ids": ["explain-1"]}]
    with pytest.raises(DataError, match="explain-1"):
        require_unseen(rows, [seen])


# ---------------------------------------------------------------------------------------------------------- truth


def test_average_precisions_equal_scikit_learn_feature_by_feature(rng: np.random.Generator) -> None:
    n_images, n_patches, d_sae, k, n_concepts = 12, 9, 6, 2, 4
    order = rng.permuted(np.tile(np.arange(d_sae), (n_images, n_patches, 1)), axis=-1)[..., :k]
    values = torch.from_numpy(rng.integers(0, 4, order.shape)).float()
    masks = rng.random((n_images, n_patches, n_concepts)) < 0.2
    masks[..., 3] = False
    indices = torch.from_numpy(order)
    table = truth.average_precisions(by_feature(values, indices), masks, d_sae)
    dense = torch.zeros(n_images, n_patches, d_sae).scatter_(2, indices, values).numpy().reshape(-1, d_sae)
    flat = masks.reshape(-1, n_concepts)
    for feature in range(d_sae):
        for concept in range(3):
            expected = average_precision_score(flat[:, concept], dense[:, feature])
            assert table[feature, concept] == pytest.approx(expected)
    assert np.isnan(table[:, 3]).all()


def _planted_codes(rng: np.random.Generator, n_images: int) -> tuple[CodesByFeature, np.ndarray]:
    """Feature 0 sees concept 0 fairly well; feature 1 is noise; feature 2 never fires."""
    masks = rng.random((n_images, 9, 2)) < 0.3
    seen = np.where(masks[..., 0], rng.integers(0, 6, masks.shape[:2]), rng.integers(0, 4, masks.shape[:2]))
    values = torch.from_numpy(np.stack([seen, rng.integers(0, 4, seen.shape)], axis=-1)).float()
    indices = torch.tensor([0, 1]).expand(n_images, 9, 2)
    return by_feature(values, indices), masks


def test_precision_intervals_equal_a_bootstrap_that_ranks_every_draw_anew(rng: np.random.Generator) -> None:
    codes, masks = _planted_codes(rng, 14)
    table = truth.average_precisions(codes, masks, 3)
    found = truth.precision_intervals(codes, masks, table, 0.4, n_bootstrap=200, seed=5)
    dense = np.zeros((14, 9))
    lengths = codes.pair_stop - codes.pair_start
    mine = codes.active_feature == 0
    dense[np.repeat(codes.pair_image, lengths)[mine], codes.patch[mine]] = codes.value[mine]
    weights = np.random.default_rng(5).multinomial(14, np.full(14, 1 / 14), size=200)
    draws = []
    for one in weights:
        rows = np.repeat(np.arange(14), one)
        draws.append(average_precision_score(masks[rows, :, 0].ravel(), dense[rows].ravel()))
    assert found[0] == pytest.approx(np.percentile(draws, [2.5, 97.5]))
    assert found[0, 0] < table[0, 0] < found[0, 1]
    assert np.isnan(found[2]).all()


def test_precision_intervals_narrow_with_more_images(rng: np.random.Generator) -> None:
    width = {}
    for n_images in (30, 480):
        codes, masks = _planted_codes(rng, n_images)
        table = truth.average_precisions(codes, masks, 3)
        low, high = truth.precision_intervals(codes, masks, table, 0.0, n_bootstrap=400, seed=0)[0]
        width[n_images] = high - low
    assert 2.5 < width[30] / width[480] < 6.5  # a sixteenth of the images: four times the width


def test_truth_needs_the_threshold() -> None:
    table = np.array([[0.2, 0.6, np.nan], [0.1, 0.1, np.nan], [np.nan, np.nan, np.nan]])
    found = truth.truths(table, ["crab", "sand", "unseen"], 0.3)
    assert [one.concept for one in found] == ["sand", None, None]
    assert found[1].average_precision == pytest.approx(0.1) and found[2].average_precision == 0


def test_shares_leave_the_undecidable_out() -> None:
    shares = truth.shares([RIGHT, RIGHT, WRONG, PARTLY, UNDECIDABLE, UNDECIDABLE]).as_dict()
    right, undecidable = shares["right"], shares["undecidable"]
    assert isinstance(right, dict) and isinstance(undecidable, dict)
    assert right["value"] == 0.5 and right["n"] == 4 and right["count"] == 2
    assert undecidable == {"count": 2} and right["low"] < 0.5 < right["high"]


def test_chance_is_what_shuffled_explanations_reach() -> None:
    judge = PlantedJudge().judge
    concepts, texts = ["red", "blue"] * 20, ["red", "blue"] * 20
    found = truth.chance(concepts, texts, judge, n_draws=200, seed=0)
    assert found.value == pytest.approx(0.5, abs=0.05) and found.low is not None and found.low < 0.5
    assert truth.chance(concepts, [None] * 40, judge, n_draws=10, seed=0).value == 0
    assert truth.chance([], [], judge, n_draws=10, seed=0).value is None


def test_failed_explanation_of_a_decidable_feature_is_wrong() -> None:
    oracle = PlantedJudge()
    assert truth_outcome(oracle, "red", None) is WRONG
    assert truth_outcome(oracle, "red", "a red dot") is RIGHT
    assert truth_outcome(oracle, None, "a red dot") is truth_outcome(None, "red", "red") is UNDECIDABLE
