"""The atlas stage: map, clusters and labels; the artifact opens in the feature store and can be searched."""

from __future__ import annotations

import numpy as np
import pytest

from backend.artifacts import Artifact
from backend.atlas_schema import ATLAS_TABLES, check_columns
from backend.feature_store import FeatureStore
from backend.models import load_subject
from backend.search import Search
from backend.types import HookPoint
from precompute.cluster_labels import (
    ClusterMember,
    LanguageModelLabeler,
    TruthLabeler,
    clean_label,
    label_prompt,
    numbered,
    top_words,
)
from precompute.exemplars import alive_features
from precompute.recipe import AtlasSection
from precompute.semantic_map import clusters, coordinates, nearest
from precompute.stages.atlas import embed_texts
from tests.builders_atlas import BagEncoder
from tests.builders_pipeline import PlantedJudge, planted_run, planted_subject


def section(**changes: float) -> AtlasSection:
    values = {
        "n_clusters": 3,
        "umap_neighbors": 5,
        "umap_min_dist": 0.1,
        "seed": 1,
        "thumbnail_px": 16,
        "n_exemplars": 2,
    }
    return AtlasSection(**{**values, **changes})


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def groups(rng: np.random.Generator) -> np.ndarray:
    """Three tight groups of 20, 15 and 10 unit vectors."""
    centres = np.eye(3, 8)
    return unit(np.concatenate([centres[at] + rng.normal(0, 0.02, (n, 8)) for at, n in enumerate((15, 20, 10))]))


def test_clusters_find_groups_and_are_numbered_by_size(groups: np.ndarray) -> None:
    found = clusters(groups, section())
    assert np.bincount(found).tolist() == [20, 15, 10]
    assert len(set(found[:15])) == 1 and len(set(found[15:35])) == 1
    assert (found == clusters(groups, section())).all()


def test_fewer_texts_than_clusters_give_fewer_clusters() -> None:
    same = unit(np.repeat(np.eye(2, 4), 5, axis=0))
    assert set(clusters(same, section(n_clusters=6)).tolist()) == {0, 1}


def test_neighbours_are_ranked_with_equal_words_told_apart_by_direction() -> None:
    words = unit(np.array([[1, 0], [1, 0], [1, 0], [0, 1]], float))
    directions = unit(np.array([[1, 0], [0, 1], [0.9, 0.1], [1, 1]], float))
    places, values = nearest(words, 2, directions)
    assert places[0].tolist() == [2, 1] and values[0].tolist() == [1.0, 1.0]
    assert all(row not in places[row] for row in range(4))
    assert nearest(words[:1], 5)[0].shape == (1, 0)


def test_few_features_are_laid_on_a_line() -> None:
    assert coordinates(unit(np.eye(3)), section()).tolist() == [[0, 0], [1, 0], [2, 0]]


# --------------------------------------------------------------------------------------------------------- labels


def members(*pairs: tuple[str, str | None]) -> list[ClusterMember]:
    return [ClusterMember(text=text, concept=concept) for text, concept in pairs]


def test_truth_labels_name_a_concept_or_its_family_and_differ() -> None:
    labeler = TruthLabeler(PlantedJudge())
    labels = labeler.label(
        {
            0: members(("a red thing", "red"), ("red", "red"), ("red", "blue")),
            1: members(("blue", "blue"), ("green", "green"), ("sky", None)),
            2: members(("zigzag lines", None), ("zigzag", None)),
            3: members(("red", "red"), ("red again", "red")),
            4: members(("something green", None), ("green", None), ("lines", None)),
        }
    )
    assert labels[4] == "green"  # read from the words, because the truth of these features is unknown
    assert labels[0].startswith("warm: red") and labels[0] != labels[3]
    assert labels[1] == "cold: blue, green" and labels[2] == "zigzag, lines"
    assert len(set(labels.values())) == 5


def test_top_words_prefer_what_other_clusters_lack() -> None:
    words = top_words({0: members(("a red dog", None), ("the red cat", None)), 1: members(("a red car", None))})
    assert words[0][:2] == ["cat", "dog"] and words[1][0] == "car"


def test_repeated_labels_are_numbered() -> None:
    assert numbered({0: "stripes", 1: "dots", 2: "stripes"}) == {0: "stripes (1)", 1: "dots", 2: "stripes (2)"}


def test_model_labels_are_cleaned() -> None:
    assert clean_label('\n "Striped animals."\nBecause they are') == "Striped animals"
    assert len(clean_label("word " * 40)) <= 60
    prompt = label_prompt(["a cat", "a dog"], ["Stripes"])
    assert "- a cat\n- a dog" in prompt and "Stripes" in prompt


def test_the_language_model_names_clusters_without_an_image() -> None:
    subject = load_subject(planted_subject(), HookPoint(layer=1))
    labels = LanguageModelLabeler(subject, seed=0, max_new_tokens=3).label(
        {0: members(("a red dog", None)), 1: members(("a blue car", None))}
    )
    assert set(labels) == {0, 1} and all(labels.values()) and len(set(labels.values())) == 2


def test_missing_text_has_a_zero_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("precompute.stages.atlas.load_text_encoder", lambda name: BagEncoder())
    rows = embed_texts("any", ["red", None, "red"])
    assert (rows[0] == rows[2]).all() and not rows[1].any() and rows[0].any()


# ----------------------------------------------------------------------------------------------- the stage itself


@pytest.fixture(scope="module")
def atlas() -> Artifact:
    return planted_run(n_stages=5)["atlas"]


@pytest.mark.slow
def test_tables_have_the_documented_columns(atlas: Artifact) -> None:
    for name, schema in ATLAS_TABLES.items():
        check_columns(name, atlas.table(name), name)
        assert atlas.table(name).schema.equals(schema), name


@pytest.mark.slow
def test_store_opens_and_every_alive_feature_is_there(atlas: Artifact) -> None:
    store = FeatureStore(atlas)
    alive = alive_features(planted_run(n_stages=5)["harvest"])
    assert len(store) == len(alive)
    record = store.feature(alive[0])
    assert record.best_text and record.recommended_strength and record.histogram
    assert len(store.explanations(alive[0])) == 8
    for exemplar in store.exemplars(alive[0]):
        assert exemplar.grid.mean() == pytest.approx(exemplar.activation_mean, rel=2e-3)
        assert store.image_bytes(exemplar.image_id)
    assert store.meta["sae"]["alive"] == len(alive) and store.meta["subject"]["fingerprint"]
    assert {row["kind"] for row in atlas.table("neighbours").to_pylist()} == {"meaning", "direction", "coactivation"}
    assert (atlas.folder / "sae" / "cfg.json").is_file()


@pytest.mark.slow
def test_search_finds_the_words_of_an_explanation(atlas: Artifact) -> None:
    store = FeatureStore(atlas)
    feature = store.features["feature"].to_pylist()[0]
    text = store.feature(feature).best_text
    assert text
    hits = Search(store, BagEncoder()).query(text, n=len(store))
    assert store.feature(hits[0].feature).best_text is not None
    assert feature in [hit.feature for hit in hits]


@pytest.mark.slow
def test_no_image_of_the_select_split_is_shipped(atlas: Artifact) -> None:
    assert set(atlas.table("images")["split"].to_pylist()) == {"explain", "score"}
    named = set(atlas.table("exemplars")["image_id"].to_pylist())
    assert named == set(atlas.table("images")["image_id"].to_pylist())


@pytest.mark.slow
def test_places_and_clusters_are_complete(atlas: Artifact) -> None:
    table = atlas.table("features")
    assert np.isfinite(table["x"].to_numpy()).all() and np.isfinite(table["y"].to_numpy()).all()
    sizes = {row["cluster"]: row["n_features"] for row in atlas.table("clusters").to_pylist()}
    assert sizes == dict(enumerate(np.bincount(table["cluster"].to_numpy()).tolist()))
    assert len(set(atlas.table("clusters")["label"].to_pylist())) == len(sizes)
    assert atlas.array("embeddings").shape[0] == len(table)
