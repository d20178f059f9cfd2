"""The synthetic atlas is a true atlas in form, says that it is made up, and repeats itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.artifacts import Artifact
from backend.atlas import FeatureAtlas
from backend.errors import ArtifactError
from benchmarks.synthetic_atlas import synthetic_atlas
from benchmarks.synthetic_grammar import NO_CONTEXT, Codes, sentence
from benchmarks.synthetic_tables import plan
from tests.builders_atlas import BagEncoder

N = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_atlas(tmp_path_factory.mktemp("synthetic") / "atlas", N, encoder=BagEncoder()).folder


@pytest.fixture(scope="module")
def atlas(folder: Path) -> FeatureAtlas:
    return FeatureAtlas.open(folder, encoder=BagEncoder())


def test_it_opens_and_says_that_it_is_made_up(atlas: FeatureAtlas) -> None:
    assert len(atlas.store) == N and atlas.store.meta["n_features"] == N
    assert "Synthetic" in atlas.store.meta["title"] and "no result" in atlas.store.meta["title"]


def test_every_record_of_every_feature_reads(atlas: FeatureAtlas) -> None:
    store = atlas.store
    n_masks = 0
    for feature in store.feature_ids.tolist():
        explanations = store.explanations(feature)
        assert len(explanations) == 8 and len(store.scores(feature)) == 8
        assert store.feature(feature).best_text == next(one.text for one in explanations if one.is_best)
        for pooling, split in (("mean", "explain"), ("mean", "score"), ("max", "explain"), ("decile", "explain")):
            found = store.exemplars(feature, pooling, split)
            assert found and len({one.image_id for one in found}) == len(found)
            assert all((store.image_bytes(one.image_id) or b"")[8:12] == b"WEBP" for one in found)
            assert all(np.isclose(one.grid.max(), one.activation_max, rtol=1e-3) for one in found)
        assert not any(one.grid.any() for one in store.exemplars(feature, "silent", "score"))
        for record in explanations:
            if record.text and not record.arm.is_control:
                image_id = store.exemplars(feature, split="score")[0].image_id
                n_masks += store.text_mask(record.text, image_id) is not None
        for kind in ("meaning", "direction", "coactivation"):
            near = [one.feature for one in store.neighbours(feature, kind)]
            assert len(set(near)) == len(near) == 8 and feature not in near
    assert n_masks > 4 * N


def test_texts_are_those_of_the_explanations(atlas: FeatureAtlas) -> None:
    written = {text for text in atlas.store.table("explanations")["text"].to_pylist() if text is not None}
    texts = atlas.store.texts["text"].to_pylist()
    assert set(texts) == written and len(texts) == len(written)


def test_search_finds_its_words(atlas: FeatureAtlas) -> None:
    text = atlas.store.feature(0).best_text
    assert text and atlas.search.query(text, 5)[0].text == text


def test_equal_seeds_give_equal_atlases(folder: Path, tmp_path: Path) -> None:
    again = synthetic_atlas(tmp_path / "again", N, encoder=BagEncoder())
    other = synthetic_atlas(tmp_path / "other", N, seed=1, encoder=BagEncoder())
    files = Artifact.open(folder).manifest.files
    assert again.manifest.files == files and other.manifest.files != files


def test_one_feature_is_enough_and_none_is_not(tmp_path: Path) -> None:
    one = synthetic_atlas(tmp_path / "one", 1, encoder=BagEncoder())
    assert len(FeatureAtlas.open(one.folder).store) == 1
    with pytest.raises(ValueError, match="at least one feature"):
        synthetic_atlas(tmp_path / "none", 0, encoder=BagEncoder())
    with pytest.raises(ArtifactError, match="not empty"):
        synthetic_atlas(tmp_path / "one", 1, encoder=BagEncoder())


def test_texts_are_many_and_codes_are_reversible() -> None:
    made = plan(100_000, 0)
    assert len(set(made.texts)) == len(made.texts) >= 30_000
    assert 250 <= len(np.unique(made.topic)) <= 330
    codes = Codes.unpack(made.codes.packed())
    np.testing.assert_array_equal(codes.context, made.codes.context)
    assert sentence(1, 1, NO_CONTEXT) == "the outline of an orange dog"
