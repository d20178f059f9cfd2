"""Rank voting: the paper's rule, average ranks for equals, and a tie-break that only the seed decides."""

from __future__ import annotations

import pytest

from backend.voting import elect

ARMS = ["steering", "top_k_masks", "top_k_heatmaps"]


def scores(**metrics: list[float]) -> dict[str, dict[str, float]]:
    return {name: dict(zip(ARMS, values, strict=True)) for name, values in metrics.items()}


def test_lowest_mean_rank_wins() -> None:
    vote = elect(ARMS, scores(iou=[0.1, 0.3, 0.2], clip=[0.5, 0.4, 0.1], act=[1, 3, 2]), feature=0, seed=0)
    assert vote is not None and vote.winner == "top_k_masks" and not vote.tied
    assert vote.mean_ranks["top_k_masks"] == pytest.approx(4 / 3)


def test_metric_that_lacks_a_candidate_does_not_vote() -> None:
    table = scores(iou=[0.1, 0.3, 0.2])
    table["clip"] = {"steering": 1.0, "top_k_masks": 0.0}
    vote = elect(ARMS, table, feature=0, seed=0)
    assert vote is not None and vote.metrics == ("iou",) and vote.winner == "top_k_masks"


def test_equal_scores_share_their_ranks() -> None:
    vote = elect(ARMS, scores(iou=[0.5, 0.5, 0.1]), feature=3, seed=0)
    assert vote is not None and vote.tied
    assert vote.mean_ranks["steering"] == vote.mean_ranks["top_k_masks"] == pytest.approx(1.5)


def test_ties_are_broken_by_seed_and_feature_only() -> None:
    table = scores(iou=[0.5, 0.5, 0.5])
    winners = [elect(ARMS, table, feature=feature, seed=1) for feature in range(60)]
    again = [elect(list(reversed(ARMS)), table, feature=feature, seed=1) for feature in range(60)]
    assert [vote.winner for vote in winners if vote] == [vote.winner for vote in again if vote]
    assert {vote.winner for vote in winners if vote} == set(ARMS)


def test_nobody_to_elect() -> None:
    assert elect([], {}, feature=0, seed=0) is None
    lonely = elect(["steering"], {}, feature=0, seed=0)
    assert lonely is not None and lonely.winner == "steering" and lonely.metrics == ()
