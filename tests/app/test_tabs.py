"""What the tabs show, from the planted atlas, without Gradio."""

from __future__ import annotations

from typing import Any

from app.services import Services
from app.tabs import about, map


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
