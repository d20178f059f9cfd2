"""What the map fetches: one byte per feature and colouring, words on demand, files compressed where it helps."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import map_columns, map_data, server
from app.catalogue import Catalogue
from app.map_columns import ABSENT, MOST_EDGES, even_edges, log_edges
from app.services import METRIC_ORDER, Services
from app.tabs.map import COLOURS, show_list
from backend.errors import UnknownFeature
from backend.map_points import decode

FINITE = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-(2.0**40), 2.0**40, width=32))
POSITIVE = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(2.0**-40, 1.0, width=32))


def codes_of(services: Services, key: str) -> np.ndarray:
    return np.frombuffer(map_data.column(services, key), "u1")


def field_of(services: Services, key: str) -> dict:
    return next(field for field in map_data.info(services)["fields"] if field["key"] == key)


def test_every_colouring_has_a_byte_per_feature_in_row_order(services: Services) -> None:
    info = map_data.info(services)
    json.dumps(info, allow_nan=False)
    assert info["fields"][0]["key"] == "cluster"
    for field in info["fields"][1:]:
        codes = codes_of(services, field["key"])
        assert codes.shape == (len(services.store),)
        known = codes[codes != ABSENT]
        places = field["edges"] if field["kind"] == "number" else field["names"]
        assert known.size and known.max() < len(places)
        if field["kind"] == "number":
            assert 0 <= field["low_code"] <= field["high_code"] < len(field["edges"])
        else:
            assert len(field["names"]) == len(field["keys"]) == len(field["colours"]) == len(field["colours_dark"])


def test_every_colouring_can_be_named_in_the_address(services: Services) -> None:
    assert {field["key"] for field in map_data.info(services)["fields"]} <= set(COLOURS)


def test_verdicts_match_the_best_explanations_and_leave_the_undecidable_out(services: Services) -> None:
    kinds = field_of(services, "verdict")["keys"]
    for code, feature in zip(codes_of(services, "verdict"), services.store.feature_ids.tolist(), strict=True):
        assert ("undecidable" if code == ABSENT else kinds[code]) == services.best_outcome(feature)


def test_scores_are_those_of_the_best_explanation(services: Services) -> None:
    shown = [key for key in METRIC_ORDER if any(field["key"] == key for field in map_data.info(services)["fields"])]
    assert "auroc_per_feature" in shown
    assert "auroc_pooled" not in shown, "it has no value per feature"
    for key in shown:
        edges, codes = field_of(services, key)["edges"], codes_of(services, key)
        for code, feature in zip(codes, services.store.feature_ids.tolist(), strict=True):
            best = services.store.feature(feature).best_arm
            scores = services.store.scores(feature)[best] if best else ()
            value = next((score.value for score in scores if score.metric == key), None)
            if value is None:
                assert code == ABSENT
            else:
                assert np.float32(edges[code]) <= np.float32(value)
                assert code + 1 == len(edges) or np.float32(value) < np.float32(edges[code + 1])


@given(FINITE)
def test_even_edges_hold_every_value_and_fit_a_byte(values: np.ndarray) -> None:
    check_edges(even_edges(values.astype(np.float64)), values)


@given(POSITIVE)
def test_log_edges_hold_every_value_and_fit_a_byte(values: np.ndarray) -> None:
    check_edges(log_edges(values.astype(np.float64)), values)


def check_edges(edges: np.ndarray, values: np.ndarray) -> None:
    assert 1 <= len(edges) <= MOST_EDGES
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= values.min()


def test_a_round_threshold_means_what_it_says(services: Services) -> None:
    values = np.array([0.1, 0.3, 0.5, 0.69999, 0.7, 0.70001, 0.9], np.float32).astype(np.float64)
    column = map_columns._number("auroc_per_feature", "AUROC", "", values)
    assert column is not None
    place = column.field["edges"].index(0.7)
    assert (column.codes >= place).tolist() == [False, False, False, False, True, True, True]


def test_missing_numbers_are_absent_and_never_zero() -> None:
    column = map_columns._number("iou", "IoU", "", np.array([0.0, np.nan, 1.0]))
    assert column is not None
    assert column.codes.tolist()[0] == 0
    assert column.codes.tolist()[1] == ABSENT
    assert map_columns._number("iou", "IoU", "", np.array([np.nan])) is None


def test_neighbouring_clusters_differ_in_colour(services: Services) -> None:
    colours = map_data.cluster_colours(services)
    assert len(set(colours.values())) == len(colours) == len(services.store.clusters)


def test_more_clusters_than_colours_still_differ_from_their_nearest(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_data, "CATEGORIES", map_data.CATEGORIES[:3])
    colours = map_data.cluster_colours.__wrapped__(services)
    assert set(colours.values()) == set(map_data.CATEGORIES)


def test_hover_card_has_words_method_score_with_n_truth_and_a_picture(services: Services) -> None:
    card = map_data.hover_card(services, 2)
    json.dumps(card, allow_nan=False)
    record = services.store.feature(2)
    assert card["text"] == record.best_text
    assert record.best_arm is not None
    assert card["arm"]["label"] == record.best_arm.label
    assert card["scores"]
    assert all("n = " in line["text"] for line in card["scores"])
    assert "patches; on" in card["firing"]
    assert (record.truth_concept or "") in card["truth"]
    assert card["exemplar"]["src"].startswith("iconoscope/")


def test_words_come_in_the_order_asked_for(services: Services) -> None:
    ids = services.store.feature_ids.tolist()[5:0:-1]
    found = map_data.words(services, ids)["features"]
    assert [one["feature"] for one in found] == ids
    assert [one["text"] for one in found] == [services.store.feature(one).best_text for one in ids]


def test_unknown_things_are_refused(services: Services) -> None:
    with pytest.raises(UnknownFeature):
        map_data.hover_card(services, 10**6)
    for unknown in (10**6, 10):
        with pytest.raises(UnknownFeature):
            map_data.words(services, [2, unknown])
    with pytest.raises(KeyError):
        map_data.column(services, "../secret")


def test_a_list_of_another_tab_keeps_what_exists(services: Services) -> None:
    message = show_list(services, "2.x.999999.-4.5 Hits of “crab”")
    assert message["list"] == [2, 5]
    assert message["list_name"] == "Hits of “crab”"
    assert show_list(services, "2.5") != show_list(services, "2.5"), "the same list can be asked for again"


@pytest.mark.parametrize("path", ["points.bin", "map.json", "column/verdict.bin"])
def test_files_are_compressed_for_those_who_accept_it(services: Services, path: str) -> None:
    client = TestClient(Starlette(routes=server.routes(Catalogue([services]))))
    address = f"/iconoscope/{services.version}/{path}"
    plain = client.get(address, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    with client.stream("GET", address, headers={"accept-encoding": "gzip"}) as zipped:
        raw = b"".join(zipped.iter_raw())
    assert zipped.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in zipped.headers["vary"].lower()
    assert gzip.decompress(raw) == plain.content


def test_the_points_say_which_features_the_quality_filter_keeps(services: Services) -> None:
    points = decode(services.atlas.points())
    assert [services.store.feature(one).quality_kept for one in points.ids.tolist()] == points.kept.tolist()
    assert 0 < points.kept.sum() < len(points.kept)
