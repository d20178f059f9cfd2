"""What the tabs show, from the planted atlas, without Gradio."""

from __future__ import annotations

from app.feature_page import nothing_chosen
from app.services import Services
from app.starters import MOST, starters
from app.tabs import about, map
from backend.feature_store import FeatureRecord


def test_lit_hits_are_a_message_that_changes_nothing_else() -> None:
    assert map.show_hits([1, 2], "cat") == {"hits": [1, 2], "query": "cat"}
    assert map.show_hits([], "cat") == {"hits": [], "query": "cat"}, "the map says that nothing was found"


def test_about_names_limits_fingerprints_and_licences(services: Services) -> None:
    html = about.page(services)
    assert services.store.artifact.manifest.fingerprint in html
    assert "drawn by the test suite" in html
    assert "hypothesis" in html
    assert "0.90" in html
    assert "[0.70, 0.97]" in html


def _standing(record: FeatureRecord) -> tuple[bool, float, int]:
    return record.quality_kept, -1.0 if record.agreement is None else record.agreement, -record.feature


def test_features_to_begin_with_are_the_best_agreed_of_different_clusters(services: Services) -> None:
    chosen = [services.store.feature(one) for one in starters(services)]
    clusters = [record.cluster for record in chosen]
    assert 1 < len(chosen) <= MOST and len(set(clusters)) == len(clusters)
    everyone = [services.store.feature(one) for one in services.store.feature_ids.tolist()]
    for record in chosen:
        rivals = [one for one in everyone if one.cluster == record.cluster and one.best_text]
        assert record.best_text and record.feature == max(rivals, key=_standing).feature
    shown = str(nothing_chosen(services))
    assert all(f'data-value="{record.feature}"' in shown and str(record.best_text) in shown for record in chosen)
