"""The Feature page from the planted atlas, without Gradio: what it shows, and that what it counts is right."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import feature_page
from app.components.agreement import verdict
from app.components.citation import bibtex, bibtex_text
from app.components.exemplars import RANKINGS, band
from app.components.regions import fill_path, outline_path, overlap, pack_region
from app.feature_page import exemplars_by_ranking, page, regions_of
from app.ranking import VOTING, place_words, places, standing
from app.services import Services, open_services
from app.tabs import feature
from app.url_state import FIELDS
from backend.errors import UnknownFeature
from precompute.summary import VOTING as PIPELINE_VOTING
from precompute.voting import elect
from tests.builders_app import build_steerable_atlas, edit_table
from tests.builders_atlas import BagEncoder
from tests.hostile import HOSTILE

REGIONS = st.integers(1, 6).flatmap(
    lambda rows: st.integers(1, 6).flatmap(
        lambda cols: st.lists(st.booleans(), min_size=rows * cols, max_size=rows * cols).map(
            lambda bits: np.array(bits, dtype=bool).reshape(rows, cols)
        )
    )
)


def test_the_page_shows_all_methods_and_controls_and_one_winner(services: Services) -> None:
    html = page(services, 2)
    for arm in services.store.arms:
        assert html.count(f'class="ico-arm{" is-control" if arm.is_control else ""}" data-arm="{arm.key}"') == (
            0 if arm.key == "steering_informed_top_k_masks" else 1
        )
    assert html.count('class="ico-arm is-winner"') == 1
    assert "cosine of two texts, one of each" in html
    assert html.count('<dt title="A planted') == 8 * 5
    assert "scored over all features together" in html


def test_every_score_of_the_cards_has_interval_and_n(services: Services) -> None:
    html = page(services, 2)
    cards = re.findall(r'<div class="ico-score">.*?</div>', html)
    assert len(cards) == 8 * 4, "auroc_pooled has no value per feature"
    for card in cards:
        assert 'class="ico-interval"' in card
        assert 'class="ico-n">n\N{NO-BREAK SPACE}=' in card


def test_the_page_shows_truth_pictures_of_every_ranking_and_neighbours(services: Services) -> None:
    record = services.store.feature(2)
    html = page(services, 2)
    assert record.truth_concept == "crab"
    found = exemplars_by_ranking(services, 2)
    assert list(found) == list(RANKINGS)
    assert html.count("data-grid=") == sum(len(exemplars) for exemplars in found.values())
    assert all(one.split == "score" for one in (*found["held_out"], *found["silent"]))
    assert all(one.grid.max() == 0 for one in found["silent"])
    assert html.count("The Top-k methods were shown the first 5.") == 2
    for kind in feature_page.NEIGHBOUR_TITLES:
        near = services.store.neighbours(2, kind)[0]
        assert f'href="?tab=feature&amp;feature={near.feature}"' in html


def test_a_failed_explanation_shows_its_reason(services: Services) -> None:
    ids = services.store.feature_ids.tolist()
    failed = next(known for known in ids if any(one.failure for one in services.store.explanations(known)))
    assert "No text: empty answer" in page(services, failed)


def test_a_feature_without_truth_says_so(services: Services) -> None:
    unknown = next(one for one in services.store.feature_ids.tolist() if not services.store.feature(one).truth_concept)
    html = page(services, unknown)
    assert "no concept is detected well enough" in html
    assert "truth: not decidable" in html
    assert "Whether they name the same sort of thing is not known." in html or "both say the same" in html


@pytest.mark.parametrize("value", ["x", "", None, "9" * 400, "1e3", -1, 10, float("inf"), float("nan"), "2; drop"])
def test_only_known_feature_numbers_are_taken(services: Services, value: object) -> None:
    assert 10 not in services.store
    with pytest.raises(UnknownFeature):
        feature.parse_feature(services, value)


def test_next_and_previous_go_around_and_skip_dead_features(services: Services) -> None:
    ids = services.store.feature_ids.tolist()
    assert feature.neighbour_id(services, ids[-1], 1) == ids[0]
    assert feature.neighbour_id(services, ids[0], -1) == ids[-1]
    assert feature.neighbour_id(services, None, 1) == ids[0]
    assert feature.neighbour_id(services, 9, 1) == 11


def test_a_list_of_the_address_is_walked_in_its_order_without_strangers(services: Services) -> None:
    listed = feature.listed_ids(services, "12.10.3.12.7")
    assert listed == [12, 3, 7], "10 is dead, 12 is named twice"
    assert feature.neighbour_id(services, 12, 1, listed) == 3
    assert feature.neighbour_id(services, 12, -1, listed) == 7
    assert feature.neighbour_id(services, 5, 1, listed) == 12, "from outside, the list starts at its beginning"
    for junk in ("", "x", "1,2", None, "-1", "1." * 9000):
        assert set(feature.listed_ids(services, junk)) <= {1}


def test_how_pictures_are_shown_is_in_the_address() -> None:
    assert {"overlay", "opacity", "ranking", "outline"} <= set(FIELDS)


# ---------------------------------------------------------------------------------------------------------- ranks


def test_the_metrics_that_vote_are_those_of_the_pipeline() -> None:
    assert VOTING == PIPELINE_VOTING


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 4).map(float), min_size=1))
def test_places_give_the_vote_of_the_pipeline(values: dict[str, float]) -> None:
    found = places(values)
    vote = elect(list(values), {"m": values}, feature=0, seed=0)
    assert vote is not None
    assert found == pytest.approx(dict(vote.mean_ranks))
    assert sum(found.values()) == pytest.approx(len(values) * (len(values) + 1) / 2)


def test_controls_do_not_compete_and_failures_have_no_place(services: Services) -> None:
    for known in services.store.feature_ids[:20].tolist():
        said = {one.arm.key: one for one in services.store.explanations(known)}
        found = standing(services, known)
        for ranked in (*found.places.values(), found.overall):
            assert not any(said[key].arm.is_control or said[key].text is None for key in ranked)
        assert found.n_candidates == sum(1 for one in said.values() if one.text and not one.arm.is_control)


def test_the_matrix_marks_the_best_of_each_metric(services: Services) -> None:
    html = page(services, 2)
    table = html[html.index('class="ico-table ico-glance"') :]
    table = table[: table.index("</table>")]
    with_ties = [ranked for ranked in standing(services, 2).places.values() if len(set(ranked.values())) > 1]
    best = sum(list(ranked.values()).count(min(ranked.values())) for ranked in with_ties)
    assert table.count('class="is-top"') == best > 0
    assert table.count("<tr") == 1 + 8 + 1
    assert "Without a value for this feature: Auroc pooled." in html


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"a": 5, "b": 4, "c": 3, "d": 2}, ["1st", "2nd", "3rd", "4th"]),
        ({"a": 5, "b": 5, "c": 3}, ["1st =", "1st =", "3rd"]),
        ({"a": 5, "b": 3, "c": 3, "d": 3}, ["1st", "2nd =", "2nd =", "2nd ="]),
        ({"a": 5, "b": 5, "c": 5}, [None, None, None]),
        ({"a": 5}, ["1st"]),
    ],
)
def test_places_in_words(values: dict[str, float], words: list[str | None]) -> None:
    ranked = places(values)
    assert [place_words(ranked, key) for key in values] == words
    assert place_words(ranked, "absent") is None


def test_a_tie_for_the_best_is_told_with_the_others_names(tmp_path: Path) -> None:
    folder = build_steerable_atlas(tmp_path / "atlas", subject=None, n_features=12)
    tied = ("top_k_masks", "steering_informed_top_k_masks")

    def tie(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["feature"] == 2 and row["arm"] in tied and row["value"] is not None:
                row["value"] = 0.99

    before = open_services(folder, encoder=BagEncoder())
    assert "equally good" not in page(before, 2)
    edit_table(folder, "scores", tie)
    services = open_services(folder, encoder=BagEncoder())
    assert set(standing(services, 2).leaders) == set(tied)
    html = page(services, 2)
    assert "by Steering-informed Top-k (masks); equally good by the vote: Top-k (masks)" in html
    assert 'data-sign="=">tied' in html


# -------------------------------------------------------------------------------------------------------- regions


@given(REGIONS)
def test_outline_and_area_of_a_region_are_its_edges_and_patches(region: np.ndarray) -> None:
    runs = re.findall(r"M(\d+) (\d+)([HV])(\d+)", outline_path(region))
    length = sum(int(stop) - int(x if way == "H" else y) for x, y, way, stop in runs)
    padded = np.pad(region, 1)
    edges = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    assert length == edges
    bars = re.findall(r"M(\d+) \d+H(\d+)", fill_path(region))
    assert sum(int(stop) - int(start) for start, stop in bars) == region.sum()


@given(REGIONS)
def test_a_packed_region_is_the_same_region(region: np.ndarray) -> None:
    bits = np.unpackbits(np.frombuffer(base64.b64decode(pack_region(region)), np.uint8))[: region.size]
    assert (bits.reshape(region.shape).astype(bool) == region).all()


def test_overlap_counts_patches_and_has_no_value_for_two_empty_regions() -> None:
    first, second = np.zeros((2, 2), bool), np.zeros((2, 2), bool)
    assert overlap(first, second).iou is None
    first[0], second[:, 0] = True, True
    found = overlap(first, second)
    assert (found.first, found.second, found.both, found.n, found.union) == (2, 2, 1, 4, 3)
    assert found.iou == pytest.approx(1 / 3)


def test_regions_are_those_of_the_arms_words(services: Services) -> None:
    exemplars = exemplars_by_ranking(services, 2)["mean"]
    regions = regions_of(services, 2, [exemplars[0].image_id, "no-such-image"])
    assert regions["no-such-image"] == {}
    region = regions[exemplars[0].image_id]["top_k_masks"]
    assert overlap(region, exemplars[0].grid > 0).iou == 1.0, "the planted feature fires on the square its words name"
    assert 'data-regions="' in page(services, 2)
    assert '<option value="top_k_masks">' in page(services, 2)


@pytest.mark.parametrize(
    ("place", "n", "words"),
    [(0, 10, "strongest"), (3, 10, "30\N{EN DASH}40 %"), (9, 10, "weakest"), (1, 4, "2 of 4")],
)
def test_bands_of_the_range(place: int, n: int, words: str) -> None:
    assert band(place, n) == words


# ------------------------------------------------------------------------------------------- agreement and citing


@pytest.mark.parametrize(
    ("causal", "correlational", "same_text", "same", "words"),
    [
        (("animal",), ("animal",), False, None, "both name the same sort of thing: animal. It need not be"),
        (("plain_colour", "animal"), ("plain_colour",), False, None, "the same sort of thing: plain colour. It need"),
        (("background",), ("animal",), False, False, "steering names background, the top images animal"),
        (None, ("animal",), False, None, "not known"),
        ((), ("animal",), False, None, "not known"),
        (None, None, True, True, "both say the same"),
    ],
)
def test_agreement_in_words(
    causal: Sequence[str] | None, correlational: Sequence[str] | None, same_text: bool, same: bool | None, words: str
) -> None:
    found = verdict(causal, correlational, same_text)
    assert found.same is same
    assert words in found.words


def test_a_citation_names_atlas_feature_artifact_and_address(services: Services) -> None:
    html = page(services, 2)
    cited = html[html.index("Cite this feature") :]
    fingerprint = services.store.artifact.manifest.fingerprint
    assert cited.count(fingerprint) >= 2
    assert cited.count("Planted atlas") >= 2
    assert "@misc{" in cited
    assert cited.count('data-absolute=""') == 2
    before, after = bibtex(services, services.store.feature(2))
    assert (before + after).count("{") == (before + after).count("}")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_cannot_break_an_entry(text: str) -> None:
    escaped = bibtex_text(text)
    assert "\n" not in escaped
    bare = re.sub(r"\\textbackslash\{\}|\\textasciitilde\{\}|\\textasciicircum\{\}|\\[&%$#_{}]", "", escaped)
    assert not set(bare) & set("&%$#_{}\\~^")


def test_the_page_leads_to_its_document(services: Services) -> None:
    assert f'href="iconoscope/{services.version}/feature/2/document.json"' in page(services, 2)
