"""The atlas stage: map, clusters and labels; the artifact opens in the feature store and can be searched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.artifacts import Artifact
from backend.atlas_schema import ATLAS_TABLES, check_columns
from backend.feature_store import FeatureStore
from backend.models import load_subject
from backend.search import Search
from backend.types import HookPoint, PatchGrid
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
from precompute.texts import embed_distinct, images_by_text, rows_of, texts_table, to_patches
from precompute.world.judges import WorldTruth
from tests.builders_atlas import BagEncoder
from tests.builders_pipeline import CONCEPTS, PlantedJudge, grid_of, planted_run, planted_subject


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


@pytest.mark.slow
def test_texts_that_repeat_get_the_same_places_every_time(rng: np.random.Generator) -> None:
    """Many features share their words. The spectral start of UMAP gave such a map other places at every run."""
    repeated = np.repeat(unit(rng.normal(size=(12, 32))), 8, axis=0)
    found = coordinates(repeated, section())
    assert (found == coordinates(repeated, section())).all()
    assert len(np.unique(found, axis=0)) == len(repeated), "and none lies on another"


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


# ---------------------------------------------------------------------------------------------------------- texts


class Batches(BagEncoder):
    """Remembers what was encoded together."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        return super().encode(texts)


def test_texts_of_the_map_are_encoded_by_themselves() -> None:
    encoder = Batches()
    rows = embed_distinct(encoder, ["a", "red car", "red dog"], ["red dog", None, "red dog"])
    assert encoder.calls == [["red dog"], ["a", "red car"]]
    np.testing.assert_array_equal(rows, BagEncoder().encode(["a", "red car", "red dog"]))


def test_missing_text_has_a_zero_row() -> None:
    rows = rows_of(np.eye(2, dtype=np.float32), ["blue", "red"], ["red", None, "red"])
    assert rows.tolist() == [[0, 1], [0, 0], [0, 1]]


def test_groups_are_null_where_nobody_can_tell() -> None:
    texts = ["red", "a red and blue thing", "zigzag"]
    assert texts_table(texts, PlantedJudge())["groups"].to_pylist() == [["warm"], ["warm", "cold"], None]
    assert texts_table(texts, None)["groups"].to_pylist() == [None] * 3


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("a red car on grass", ("vehicle", "background")),
        ("two animals", ("animal",)),
        ("stripes", ("texture",)),
        ("something with depth", ("depth",)),
        ("a dark photo of a cat and a dog", ("photometric", "animal")),
        ("zeppelins", None),
    ],
)
def test_the_world_sorts_what_texts_name(text: str, groups: tuple[str, ...] | None) -> None:
    assert WorldTruth().groups(text) == groups


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 30), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_a_patch_is_set_if_half_of_its_pixels_are(rows: int, cols: int, more: int, wider: int, seed: int) -> None:
    height, width = rows + more, cols + wider
    masks = np.random.default_rng(seed).random((2, height, width)) < 0.5
    pooled = to_patches(masks, PatchGrid(rows=rows, cols=cols))
    row_of, col_of = np.arange(height) * rows // height, np.arange(width) * cols // width
    for image, row, col in np.ndindex(pooled.shape):
        assert pooled[image, row, col] == (masks[image][row_of == row][:, col_of == col].mean() >= 0.5)


def test_masks_are_asked_for_on_the_images_of_the_features_of_a_text() -> None:
    rows = [(1, "steering", "red"), (1, "top_k_masks", "blue"), (2, "top_k_masks", "red"), (3, "steering", None)]
    rows += [(3, "random_direction", "green"), (4, "steering", "grey")]
    table = pa.table({name: [row[at] for row in rows] for at, name in enumerate(("feature", "arm", "text"))})
    images = {1: ["b", "a"], 2: ["b", "c"], 3: ["d"], 4: []}
    assert images_by_text(table, images) == {"blue": ["a", "b"], "red": ["a", "b", "c"]}


# ----------------------------------------------------------------------------------------------- the stage itself


@pytest.fixture(scope="module")
def atlas() -> Artifact:
    return planted_run(n_stages=5)["atlas"]


@pytest.mark.slow
def test_tables_have_the_documented_columns(atlas: Artifact) -> None:
    for name, schema in ATLAS_TABLES.items():
        check_columns(name, atlas.schema(name), name)
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
    assert store.meta["images_read"]["mask_mode"] == "bidirectional within an image"
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


@pytest.mark.slow
def test_texts_are_those_of_all_arms_each_once(atlas: Artifact) -> None:
    texts = atlas.table("texts")["text"].to_pylist()
    assert texts == sorted({text for text in atlas.table("explanations")["text"].to_pylist() if text is not None})
    np.testing.assert_array_equal(atlas.array("embeddings"), BagEncoder().encode(texts).astype(np.float16))


@pytest.mark.slow
def test_every_method_text_has_its_masks_on_the_exemplars(atlas: Artifact) -> None:
    store = FeatureStore(atlas)
    n_found = 0
    for feature in store.feature_ids.tolist():
        images = [one.image_id for one in store.exemplars(feature, split=None)]
        for record in store.explanations(feature):
            known = record.text is not None and any(name in record.text.split() for name in CONCEPTS)
            if record.text is None or (record.arm.is_control and not known):
                continue
            for image_id in images:
                mask = store.text_mask(record.text, image_id)
                if not known:
                    assert mask is None
                elif not record.arm.is_control:
                    assert mask is not None, (record.text, image_id)
                    wanted = [CONCEPTS.index(name) for name in CONCEPTS if name in record.text.split()]
                    np.testing.assert_array_equal(mask, np.isin(grid_of(image_id), wanted))
                    n_found += 1
    assert n_found
    pairs = [(row["text"], row["image_id"]) for row in atlas.table("text_masks").to_pylist()]
    assert len(set(pairs)) == len(pairs)
