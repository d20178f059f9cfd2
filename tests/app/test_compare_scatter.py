"""Compare, two methods: the points are the stored scores, and the words count them right."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.catalogue import Catalogue
from app.server import routes
from app.services import Services
from app.tabs.compare import scatter
from app.tabs.compare.columns import score_columns
from app.tabs.compare.scatter import message, points, said, summary

PAIR = ("top_k_heatmaps", "steering", "iou")


@pytest.fixture(scope="module")
def client(services: Services) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes(Catalogue([services])))) as opened:
        yield opened


def values(services: Services, arm: str, metric: str) -> dict[int, float]:
    """The stored scores of an arm by feature, read one feature at a time."""
    return {
        feature: score.value
        for feature in services.store.feature_ids.tolist()
        for known, scores in services.store.scores(feature).items()
        for score in scores
        if known.key == arm and score.metric == metric and score.value is not None
    }


def test_columns_hold_every_stored_score_at_its_feature(services: Services) -> None:
    for (arm, metric), column in score_columns(services.store).items():
        known = values(services, arm, metric)
        found = dict(zip(services.store.feature_ids.tolist(), column.tolist(), strict=True))
        assert {feature: value for feature, value in found.items() if not np.isnan(value)} == pytest.approx(known)


def test_points_are_the_features_that_have_both_scores(services: Services) -> None:
    data = points(services, *PAIR)
    (n,) = struct.unpack_from("<I", data)
    assert len(data) == 4 + 12 * n
    ids = np.frombuffer(data, "<u4", n, 4)
    x, y = np.frombuffer(data, "<f4", n, 4 + 4 * n), np.frombuffer(data, "<f4", n, 4 + 8 * n)
    across, up = values(services, PAIR[0], "iou"), values(services, PAIR[1], "iou")
    assert set(ids.tolist()) == across.keys() & up.keys()
    assert n < len(services.store), "the planted heatmaps arm fails for some features"
    assert x.tolist() == pytest.approx([across[one] for one in ids.tolist()])
    assert y.tolist() == pytest.approx([up[one] for one in ids.tolist()])


def test_the_words_count_both_sides_and_what_is_left_out(services: Services) -> None:
    found = summary(services, *PAIR)
    across, up = values(services, PAIR[0], "iou"), values(services, PAIR[1], "iou")
    both = across.keys() & up.keys()
    n_up = sum(up[one] > across[one] for one in both)
    assert found["n"] == len(both)
    assert found["told"][0].startswith(f"Steering is higher for {n_up} of {len(both)} features")
    assert all("[" in line for line in found["told"][:3]), "each share has its interval"
    assert f"{len(services.store) - len(both)} of {len(services.store)} features lack a score" in found["told"][-1]


def test_the_extremes_are_sorted_and_lie_on_their_side(services: Services) -> None:
    up, across = values(services, "steering", "iou"), values(services, "top_k_masks", "iou")
    lists = summary(services, "top_k_masks", "steering", "iou")["lists"]
    for rows, sign in zip((one["rows"] for one in lists), (1, -1), strict=True):
        apart = [sign * (up[row["feature"]] - across[row["feature"]]) for row in rows]
        assert apart == sorted(apart, reverse=True)
        assert 0 < len(apart) <= scatter.N_EXTREMES
        assert min(apart) > 0
    texts = {one.arm.key: one.text for one in services.store.explanations(lists[0]["rows"][0]["feature"])}
    assert [one["text"] for one in lists[0]["rows"][0]["texts"]] == [texts["steering"], texts["top_k_masks"]]


def test_the_test_of_the_atlas_is_quoted_with_its_direction(services: Services) -> None:
    told = summary(services, "top_k_masks", "steering", "iou")["told"]
    assert any(
        line.startswith("Paired Wilcoxon test, one-sided, Steering above Top-k (masks): p = 0.03") for line in told
    )


def test_unknown_choices_become_the_first_ones(services: Services) -> None:
    sent = message(services, "<b>", "no_such_arm", "", True)
    assert (sent["across"], sent["up"], sent["metric"]) == ("top_k_masks", "steering", "iou")
    assert "auroc_pooled" not in {one["key"] for one in sent["metrics"]}, "it has no value per feature"
    assert message(services, "random_direction", "top_k_masks", "clip_score", True)["across"] == "random_direction"


def test_the_addresses_answer_and_refuse(client: TestClient, services: Services) -> None:
    base = f"/iconoscope/{services.version}"
    answer = client.get(f"{base}/paired/top_k_masks/steering/iou.bin")
    assert answer.content == points(services, "top_k_masks", "steering", "iou")
    assert client.get(f"{base}/paired/top_k_masks/steering/iou.json").json() == json.loads(
        json.dumps(summary(services, "top_k_masks", "steering", "iou"))
    )
    assert client.get(f"{base}/said/2.json").json()["arms"]["steering"]["text"] is not None
    for wrong in ("paired/x/steering/iou.bin", "paired/steering/steering/x.json", "said/10.json"):
        assert client.get(f"{base}/{wrong}").status_code == 404


def test_what_every_arm_says_has_its_n(services: Services) -> None:
    found = said(services, 2)["arms"]
    assert len(found) == 8
    assert found["steering"]["scores"]["iou"].endswith("n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}20")
    assert "auroc_pooled" not in found["steering"]["scores"]
