"""The JSON document of a feature: complete, plain, and never a number without its n."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import server
from app.catalogue import Catalogue
from app.feature_document import FORMAT, N_EXEMPLARS, POOLINGS, FeatureDocument, feature_document, link
from app.services import Services
from backend.errors import UnknownFeature

FEATURE = 2


@pytest.fixture(scope="module")
def document(services: Services) -> FeatureDocument:
    return feature_document(services, FEATURE)


def test_it_names_the_data_it_comes_from(document: FeatureDocument, services: Services) -> None:
    fingerprint = services.store.artifact.manifest.fingerprint
    assert document["format"] == FORMAT
    assert document["atlas"]["artifact"] == document["provenance"]["artifact"] == fingerprint
    assert document["atlas"]["key"] == services.key
    assert document["link"] == link(services, FEATURE) == f"?atlas={services.key}&tab=feature&feature={FEATURE}"
    for part in (f"Feature {FEATURE}", fingerprint, services.key, document["text"] or "none"):
        assert part in document["citation"]


def test_every_arm_is_there_with_its_scores(document: FeatureDocument, services: Services) -> None:
    stored = services.store.explanations(FEATURE)
    assert [one["arm"] for one in document["explanations"]] == [one.arm.key for one in stored]
    assert [one["text"] for one in document["explanations"]] == [one.text for one in stored]
    assert sum(one["is_best"] for one in document["explanations"]) == 1
    assert {one["is_control"] for one in document["explanations"]} == {True, False}
    for one, record in zip(document["explanations"], stored, strict=True):
        scores = {score.metric: score for score in services.store.scores(FEATURE)[record.arm]}
        assert [score["metric"] for score in one["scores"]] == list(services.metric_cards)
        assert {score["metric"]: score["value"] for score in one["scores"]} == {
            name: score.value for name, score in scores.items()
        }


def test_every_score_has_its_n_and_interval_or_its_reason(document: FeatureDocument) -> None:
    scores = [score for one in document["explanations"] for score in one["scores"]]
    measured = [score for score in scores if score["value"] is not None]
    absent = [score for score in scores if score["value"] is None]
    assert measured
    assert absent
    for score in measured:
        assert score["n"] > 0
        assert score["low"] is not None
        assert score["high"] is not None
        assert score["low"] <= (score["value"] or 0) <= score["high"]
    assert all(score["reason"] for score in absent)


def test_exemplars_of_every_ranking_name_pictures_that_are_served(
    document: FeatureDocument, services: Services
) -> None:
    client = TestClient(Starlette(routes=server.routes(Catalogue([services]))))
    assert {one["pooling"] for one in document["exemplars"]} == set(POOLINGS)
    assert len(document["exemplars"]) <= len(POOLINGS) * N_EXEMPLARS
    for one in document["exemplars"][:3]:
        assert client.get(f"/{one['image']}").content == services.store.image_bytes(one["image_id"])
        assert 0 < one["n_active_patches"] <= one["n_patches"]
    assert feature_document(services, FEATURE, 0)["exemplars"] == []


def test_it_is_plain_json(document: FeatureDocument, services: Services) -> None:
    def leaves(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            for item in value.values():
                yield from leaves(item)
        elif isinstance(value, list):
            for item in value:
                yield from leaves(item)
        else:
            yield value

    assert {type(leaf) for leaf in leaves(document)} <= {str, int, float, bool, type(None)}
    assert not [leaf for leaf in leaves(document) if isinstance(leaf, float) and not math.isfinite(leaf)]
    client = TestClient(Starlette(routes=server.routes(Catalogue([services]))))
    answer = client.get(f"/iconoscope/{services.version}/feature/{FEATURE}/document.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(json.dumps(document))


def test_a_feature_without_a_concept_says_null_and_not_zero(services: Services) -> None:
    records = (services.store.feature(one) for one in services.store.feature_ids.tolist())
    without = next(record.feature for record in records if record.truth_concept is None)
    assert feature_document(services, without)["concept"] is None


def test_an_unknown_feature_is_refused(services: Services) -> None:
    with pytest.raises(UnknownFeature):
        feature_document(services, 10)
