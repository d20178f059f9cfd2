"""The score stage: rows joined by feature, intervals, truth of planted colours, votes, coverage, tests between arms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from backend.types import ARMS, Split
from precompute.exemplars import ExemplarIndex, alive_features, grid_of
from precompute.judges import Judges
from precompute.metrics import metric_cards
from precompute.summary import (
    AVERAGED,
    CANDIDATES,
    by_feature,
    compare_arms,
    coverage,
    elections,
    failures_of,
    passes_quality,
)
from precompute.texts import distinct_texts
from tests.builders_pipeline import CONCEPTS, PlantedJudge, planted_run


def test_rows_without_a_value_are_left_out_of_the_index() -> None:
    rows = [
        {"metric": "iou", "arm": "steering", "feature": 4, "value": 0.5},
        {"metric": "iou", "arm": "steering", "feature": 9, "value": None},
        {"metric": "iou", "arm": "steering", "feature": 2, "value": 0.0},
    ]
    assert by_feature(rows) == {"iou": {"steering": {4: 0.5, 2: 0.0}}}


def test_election_takes_only_arms_with_a_text() -> None:
    texts = {"steering": {1: "red"}, "top_k_masks": {1: "blue", 2: "green"}, "no_steering": {1: "grey", 2: "grey"}}
    values = {"iou": {"steering": {1: 0.1}, "top_k_masks": {1: 0.9, 2: 0.2}, "no_steering": {1: 1.0, 2: 1.0}}}
    votes = elections(texts, values, [1, 2, 3], seed=0)
    assert [vote.winner if vote else None for vote in votes.values()] == ["top_k_masks", "top_k_masks", None]
    assert not passes_quality(votes[3], values, 3, min_iou=0.0, min_synthetic=0.0)


def test_a_text_that_names_nothing_stands_only_where_no_other_text_does() -> None:
    texts = {"steering": {1: "nothing", 2: "nothing"}, "top_k_masks": {1: "red"}, "top_k_heatmaps": {1: "a red car"}}
    values = {
        "iou": {"top_k_masks": {1: 0.9}, "top_k_heatmaps": {1: 0.1}},
        "clip_score": {"steering": {1: 0.9, 2: 0.9}, "top_k_masks": {1: 0.5}, "top_k_heatmaps": {1: 0.4}},
    }
    votes = elections(texts, values, [1, 2], seed=0, unreadable={"nothing"})
    assert [vote.winner if vote else None for vote in votes.values()] == ["top_k_masks", "steering"]
    assert votes[1] is not None and votes[1].metrics == ("iou", "clip_score"), "all metrics vote"
    unread = elections(texts, values, [1], seed=0)[1]
    assert unread is not None and unread.winner == "steering" and unread.metrics == ("clip_score",)


def test_quality_needs_both_scores() -> None:
    vote = elections({"steering": {1: "red"}}, {}, [1], seed=0)[1]
    values = {"iou": {"steering": {1: 0.4}}}
    assert not passes_quality(vote, values, 1, min_iou=0.2, min_synthetic=0.3)
    values["synthetic_activation"] = {"steering": {1: 0.5}}
    assert passes_quality(vote, values, 1, min_iou=0.2, min_synthetic=0.3)
    assert not passes_quality(vote, values, 1, min_iou=0.5, min_synthetic=0.3)


def test_coverage_counts_shown_concepts_by_kind() -> None:
    best = {"crab": 0.5, "car": 0.1, "sand": 0.9, "never": None}
    kinds = {"crab": "object", "car": "object", "sand": "background", "never": "object"}
    found = coverage(best, kinds, 0.3)
    assert found["all"]["value"] == pytest.approx(2 / 3) and found["all"]["n"] == 3
    assert found["by_kind"]["object"]["value"] == 0.5
    assert found["without_feature"] == ["car"] and found["not_shown"] == ["never"]


def test_paired_tests_use_the_features_that_both_arms_have() -> None:
    first = {feature: 1.0 + feature for feature in range(20)}
    second = {feature: 0.5 + feature for feature in range(5, 25)}
    values = {"iou": {"top_k_masks": first, "steering": second}}
    rows = {(row["test"], row["a"], row["b"]): row for row in compare_arms(values, {})}
    paired = rows["wilcoxon", "top_k_masks", "steering"]
    assert paired["n"] == 15 and paired["effect"] == pytest.approx(1.0) and paired["p"] < 1e-3
    assert rows["mannwhitney", "top_k_masks", "steering"]["n"] == 40 and len(rows) == 2


def test_failures_count_empty_and_unparsable_answers() -> None:
    explanations = [{"arm": "steering", "failure": "empty answer"}, {"arm": "top_k_masks", "failure": "empty answer"}]
    scores = [{"arm": "steering", "metric": "iou", "reason": "unparsable explanation"}]
    assert failures_of("steering", explanations, scores) == {"empty answer": 1, "unparsable explanation": 1}


# ----------------------------------------------------------------------------------------------- the stage itself


def test_texts_that_judges_cut_are_added_up_over_the_judges_that_can_tell() -> None:
    class Short(PlantedJudge):
        def cut_texts(self, texts: Sequence[str]) -> dict[str, int]:
            return {"short encoder (1 tokens)": sum(" " in text for text in texts)}

    plain, short = PlantedJudge(), Short()
    judges = Judges(generator=plain, segmenter=plain, image_text=short, truth=plain)
    assert judges.cut_texts(["red", "red grey", "a b"]) == {"short encoder (1 tokens)": 2}
    assert Judges(generator=plain, segmenter=plain, image_text=plain).cut_texts(["red"]) == {}


@pytest.mark.slow
def test_every_explanation_has_every_metric_or_a_reason() -> None:
    run = planted_run()
    rows = run["score"].table("scores").to_pylist()
    alive = alive_features(run["harvest"])
    keys = [(row["feature"], row["arm"], row["metric"]) for row in rows]
    assert len(keys) == len(set(keys)) and keys == sorted(keys)
    explained = {(feature, arm.key, metric) for feature in alive for arm in ARMS for metric in AVERAGED}
    assert set(keys) == explained
    assert all((row["value"] is None) != (row["reason"] is None) for row in rows)
    assert all(np.isfinite(row["value"]) for row in rows if row["value"] is not None)
    notes = run["score"].manifest.notes
    assert notes["n_texts"] == len(distinct_texts(run["explain"])) and notes["texts_cut"] == {}


@pytest.mark.slow
def test_scores_are_those_of_the_judges_on_score_images() -> None:
    run = planted_run()
    harvest, judge = run["harvest"], PlantedJudge()
    index = ExemplarIndex(harvest, Split.SCORE, "mean", grid_of(harvest))
    texts = {(row["feature"], row["arm"]): row["text"] for row in run["explain"].table("explanations").to_pylist()}
    checked = 0
    for row in run["score"].table("scores").to_pylist():
        if row["metric"] != "iou" or row["value"] is None:
            continue
        exemplars = index.of(row["feature"], 3)
        assert all(one.image_id.startswith("score-") for one in exemplars)
        masks = judge.segment([one.image_id for one in exemplars], [], texts[row["feature"], row["arm"]])
        regions = [np.kron(one.grid > 0, np.ones((8, 8), bool)) for one in exemplars]
        ious = [(mask & region).sum() / (mask | region).sum() for mask, region in zip(masks, regions, strict=True)]
        assert row["value"] == pytest.approx(np.mean(ious), abs=1e-6) and row["n"] == len(exemplars)
        checked += 1
    assert checked > 0


@pytest.mark.slow
def test_planted_colours_are_found_and_coverage_is_counted() -> None:
    run = planted_run()
    summary = run["score"].json("summary")
    truths = run["score"].table("truth").to_pylist()
    assert {row["concept"] for row in truths} - {None} <= set(CONCEPTS)
    assert all((row["concept"] is None) == (row["average_precision"] < 0.2) for row in truths)
    known = [row for row in truths if row["concept"] is not None]
    assert all(0 <= row["low"] <= row["average_precision"] <= row["high"] <= 1 and row["n_images"] > 0 for row in known)
    assert all(row["low"] is None for row in truths if row["concept"] is None)
    concepts = {row["concept"]: row for row in run["score"].table("concepts").to_pylist()}
    assert max(row["average_precision"] for row in concepts.values()) > 0.9
    assert summary["concept_coverage"]["all"]["n"] == len(CONCEPTS)


@pytest.mark.slow
def test_summary_states_every_arm_with_intervals_and_counts() -> None:
    run = planted_run()
    summary, n_alive = run["score"].json("summary"), len(alive_features(run["harvest"]))
    assert set(summary["arms"]) == {arm.key for arm in ARMS}
    for arm, entry in summary["arms"].items():
        for metric in (*AVERAGED, "auroc_pooled"):
            assert set(entry[metric]) == {"value", "low", "high", "n"}
            if entry[metric]["value"] is not None:
                assert entry[metric]["low"] <= entry[metric]["value"] <= entry[metric]["high"]
        counts = [entry["truth"][name]["count"] for name in ("right", "partly", "wrong", "undecidable")]
        assert sum(counts) == n_alive
        assert entry["n"] + entry["failures"].get("empty answer", 0) == n_alive
        assert (entry["wins"] is None) == (arm not in CANDIDATES)
        assert set(entry["truth_chance"]) == {"value", "low", "high", "n"}
    assert sum(entry["wins"] or 0 for entry in summary["arms"].values()) <= n_alive
    metrics = {row["metric"] for row in summary["tests"]}
    assert metrics <= set(metric_cards())


@pytest.mark.slow
def test_generated_images_are_stored_once_per_text_and_joined_by_text() -> None:
    score = planted_run()["score"]
    images = score.table("synthetic").select(["text", "image_index"]).to_pylist()
    keys = [(row["text"], row["image_index"]) for row in images]
    assert len(keys) == len(set(keys)) and {index for _, index in keys} <= {0, 1}
    activations = score.table("synthetic_activations").to_pylist()
    assert {(row["text"], row["image_index"]) for row in activations} <= set(keys)
    means = {(row["feature"], row["arm"]): [] for row in activations}
    for row in activations:
        means[row["feature"], row["arm"]].append(row["activation"])
    for row in score.table("scores").to_pylist():
        if row["metric"] == "synthetic_activation" and row["value"] is not None:
            assert row["value"] == pytest.approx(np.mean(means[row["feature"], row["arm"]]), abs=1e-6)
