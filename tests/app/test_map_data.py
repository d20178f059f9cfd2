"""What the map fetches: colours per feature in row order, words on demand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from app import map_data
from app.services import Services
from backend.errors import UnknownFeature


def test_every_colouring_has_a_value_per_feature_in_row_order(services: Services) -> None:
    info = map_data.info(services)
    json.dumps(info, allow_nan=False)
    for field in info["fields"]:
        column = np.frombuffer(map_data.column(services, field["key"]), "<f4")
        assert column.shape == (len(services.store),)
        known = column[np.isfinite(column)]
        if field["kind"] == "number":
            assert 0 <= known.min() <= known.max() <= 1
        else:
            assert set(known) <= set(range(len(field["names"])))
            assert len(field["names"]) == len(field["colours"]) == len(field["colours_dark"])


def test_verdicts_match_the_best_explanations_and_leave_the_undecidable_out(services: Services) -> None:
    column = np.frombuffer(map_data.column(services, "verdict"), "<f4")
    kinds = list(map_data.TRUTH_COLOURS)
    for code, feature in zip(column, services.store.feature_ids.tolist(), strict=True):
        expected = services.best_outcome(feature)
        assert ("undecidable" if np.isnan(code) else kinds[int(code)]) == expected


def test_neighbouring_clusters_differ_in_colour(services: Services) -> None:
    colours = map_data.cluster_colours(services)
    assert len(set(colours.values())) == len(colours) == len(services.store.clusters)


def test_more_clusters_than_colours_still_differ_from_their_nearest(services: Services, monkeypatch) -> None:
    monkeypatch.setattr(map_data, "CATEGORIES", map_data.CATEGORIES[:3])
    colours = map_data.cluster_colours(services)
    assert set(colours.values()) == set(map_data.CATEGORIES)


def test_hover_card_has_words_n_and_a_picture(services: Services) -> None:
    card = map_data.hover_card(services, 2)
    json.dumps(card, allow_nan=False)
    assert card["text"] == services.store.feature(2).best_text
    assert "n = " in card["lines"][0]
    assert card["exemplar"]["src"].startswith("iconoscope/image/")


def test_unknown_things_are_refused(services: Services) -> None:
    with pytest.raises(UnknownFeature):
        map_data.hover_card(services, 10**6)
    with pytest.raises(UnknownFeature):
        map_data.cluster_features(services, 999)
    with pytest.raises(KeyError):
        map_data.column(services, "../secret")


def test_a_clusters_list_holds_its_features_the_most_frequent_first(services: Services) -> None:
    listed = map_data.cluster_features(services, 0)
    ids = [row["feature"] for row in listed["features"]]
    assert listed["n"] == len(ids)
    assert all(services.store.feature(one).cluster == 0 for one in ids)
    firing = [services.store.feature(one).firing_fraction for one in ids]
    assert firing == sorted(firing, reverse=True)
