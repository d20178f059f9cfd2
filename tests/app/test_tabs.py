"""What the tabs show, from the planted atlas, without Gradio."""

from __future__ import annotations

from typing import Any

import pytest

from app.services import Services
from app.tabs import about, compare, feature, map, search, steer
from backend.errors import UnknownFeature


def test_feature_page_shows_all_methods_and_controls_with_n_and_one_winner(services: Services) -> None:
    html = feature.page(services, 2)
    for arm in services.store.arms:
        assert f'data-arm="{arm.key}"' in html
    assert html.count("is-winner") == 1
    assert html.count('data-control="yes"') == 3
    assert html.count('<dt title="A planted') == 8 * 5
    # Every score that has a value also has its interval and its n.
    assert html.count('class="ico-value"') == html.count('class="ico-n">n\N{NO-BREAK SPACE}=') > 20
    assert html.count('class="ico-value"') == html.count('class="ico-interval"')
    assert "scored over all features together" in html


def test_feature_page_shows_truth_exemplars_and_neighbours(services: Services) -> None:
    record = services.store.feature(2)
    html = feature.page(services, 2)
    assert record.truth_concept == "crab"
    assert "crab" in html
    n_pictures = [len(services.store.exemplars(2, pooling=one)) for one in ("mean", "max", "decile")]
    assert html.count("data-grid=") == sum(n_pictures)
    assert html.count("The Top-k methods were shown the first 5.") >= 1
    for kind in feature.NEIGHBOUR_TITLES:
        near = services.store.neighbours(2, kind)[0]
        assert f'href="?tab=feature&amp;feature={near.feature}"' in html


def test_a_failed_explanation_shows_its_reason(services: Services) -> None:
    failed = next(
        one.feature
        for known in services.store.feature_ids.tolist()
        for one in services.store.explanations(known)
        if one.failure
    )
    assert "No text: empty answer" in feature.page(services, failed)


def test_a_feature_without_truth_says_so(services: Services) -> None:
    unknown = next(one for one in services.store.feature_ids.tolist() if not services.store.feature(one).truth_concept)
    html = feature.page(services, unknown)
    assert "no concept is detected well enough" in html
    assert "truth: not decidable" in html


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


def test_search_hits_say_why_and_lead_to_their_features(services: Services) -> None:
    result = search.run(services, "red crab")
    assert result.features[0] in {2, 16, 30}
    assert "says it" in result.page
    assert f'data-value="{result.features[0]}"' in result.page
    assert result.page.count('class="ico-hit"') == len(result.features)


def test_an_empty_query_shows_what_to_try(services: Services) -> None:
    result = search.run(services, "   ")
    assert result.features == ()
    assert 'data-go="search"' in result.page


def test_nothing_found_says_so_and_repeats_the_query_as_text(services: Services) -> None:
    result = search.run(services, "<b>qwertzuiop</b>")
    assert result.features == ()
    assert "&lt;b&gt;qwertzuiop&lt;/b&gt;" in result.page


def test_lit_hits_and_selection_are_in_the_map_value(services: Services) -> None:
    value: dict[str, Any] = {"selected": None, "colour": "best_arm"}
    lit = map.show_hits(services, map.show_feature(value, 5), [1, 2], "cat")
    assert (lit["selected"], lit["hits"], lit["query"], lit["colour"]) == (5, [1, 2], "cat", "best_arm")
    assert map.show_hits(services, lit, [], "cat")["query"] == ""


def test_compare_shows_every_arm_with_intervals_failures_and_controls_apart(services: Services) -> None:
    html = compare.page(services)
    for arm in services.store.arms:
        assert html.count(arm.label) >= 2
    assert html.count('<tr class="is-control">') == 3
    assert "empty answer" in html
    n_estimates = 8 * 5
    assert html.count('class="ico-interval"') == n_estimates
    assert html.index("Controls: the same procedure") > html.index("Steering-informed Top-k (heatmaps)")
    assert "paired Wilcoxon" in html


def test_compare_reading_line_names_the_best_method_and_the_controls(services: Services) -> None:
    html = compare.page(services)
    assert "is right most often" in html
    assert "The controls, which know nothing of the feature" in html


def test_about_names_limits_fingerprints_and_licences(services: Services) -> None:
    html = about.page(services)
    assert services.store.artifact.manifest.fingerprint in html
    assert "drawn by the test suite" in html
    assert "hypothesis" in html
    assert "0.90" in html
    assert "[0.70, 0.97]" in html


def test_strength_is_also_shown_as_multiple_of_the_maximum(services: Services) -> None:
    record = services.store.feature(2)
    note = steer.strength_note(record, 3 * record.maximum, "add")
    assert "3.0 × the feature&#x27;s maximum" in note
    assert "recommended" in note
    assert "not used" in steer.strength_note(record, 1.0, "ablate")


def test_the_slider_starts_at_the_recommended_strength_and_widens_for_an_address(services: Services) -> None:
    record = services.store.feature(2)
    state = steer.state_for(record, None)
    assert state["value"] == pytest.approx(record.recommended_strength, abs=0.1)
    assert state["maximum"] >= 2 * state["value"]
    assert steer.state_for(record, 9999.0) == {"maximum": 9999.0, "value": 9999.0}


def test_recorded_answers_stand_beside_the_live_ones(services: Services) -> None:
    html = steer.recorded(services, services.store.feature(2))
    for label in ("Steering", "No steering", "Random direction", "Permuted direction"):
        assert label in html
