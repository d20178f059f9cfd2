"""What the tabs show, from the planted atlas, without Gradio."""

from __future__ import annotations

from typing import Any

from app.services import Services
from app.tabs import about, map, search


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


def test_about_names_limits_fingerprints_and_licences(services: Services) -> None:
    html = about.page(services)
    assert services.store.artifact.manifest.fingerprint in html
    assert "drawn by the test suite" in html
    assert "hypothesis" in html
    assert "0.90" in html
    assert "[0.70, 0.97]" in html
