"""What the tabs show, from the planted atlas, without Gradio."""

from __future__ import annotations

from app.services import Services
from app.tabs import about, map


def test_lit_hits_are_a_message_that_changes_nothing_else() -> None:
    assert map.show_hits([1, 2], "cat") == {"hits": [1, 2], "query": "cat"}
    assert map.show_hits([], "cat") == {"hits": [], "query": ""}


def test_about_names_limits_fingerprints_and_licences(services: Services) -> None:
    html = about.page(services)
    assert services.store.artifact.manifest.fingerprint in html
    assert "drawn by the test suite" in html
    assert "hypothesis" in html
    assert "0.90" in html
    assert "[0.70, 0.97]" in html
