"""The store gives plain, frozen records, refuses unknown ids, and never turns a missing number into zero."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from backend import artifact_writer
from backend.artifact_writer import ArtifactWriter
from backend.artifacts import Artifact
from backend.atlas_schema import ATLAS_TABLES, check_columns
from backend.errors import ArtifactDamaged, UnknownFeature
from backend.feature_store import FeatureStore
from backend.types import ARMS, Arm, Method, TruthOutcome, Variant
from tests.builders_atlas import BagEncoder, build_atlas, feature_id, planted_concept
from tests.planted_atlas import N_EXEMPLARS, N_SYNTHETIC

TOP_K_MASKS = Arm(method=Method.TOP_K, variant=Variant.MASKS)
STEERING = Arm(method=Method.STEERING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_atlas(tmp_path_factory.mktemp("store") / "atlas", encoder=BagEncoder())


@pytest.fixture(scope="module")
def store(folder: Path) -> FeatureStore:
    return FeatureStore(Artifact.open(folder))


def test_every_feature_has_its_record(store: FeatureStore) -> None:
    assert len(store) == 60
    for place, feature in enumerate(store.feature_ids.tolist()):
        record, concept = store.feature(feature), planted_concept(place)
        assert record.feature == feature == feature_id(place) and feature in store
        assert record.truth_concept == (concept.id if concept else None)
        assert len(record.histogram_edges) == len(record.histogram) + 1
        assert record.best_arm in ARMS


def test_records_are_frozen(store: FeatureStore) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        store.feature(0).x = 1.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("feature", [10, -1, 10_000])
def test_unknown_feature_is_refused_everywhere(store: FeatureStore, feature: int) -> None:
    assert feature not in store
    for ask in (store.feature, store.explanations, store.scores, store.exemplars):
        with pytest.raises(UnknownFeature, match=rf"no feature {feature} .* 60 features of an SAE with 96"):
            ask(feature)
    with pytest.raises(UnknownFeature):
        store.synthetic(feature, STEERING)
    with pytest.raises(UnknownFeature):
        store.neighbours(feature, "meaning")


def test_explanations_come_in_the_order_of_arms_with_failures(store: FeatureStore) -> None:
    records = store.explanations(feature_id(5))
    assert tuple(record.arm for record in records) == ARMS == store.arms
    failed = records[2]
    assert failed.text is None and failed.failure == "empty answer" and failed.truth_outcome is TruthOutcome.WRONG
    assert all((record.text is None) == (record.failure is not None) for record in records)
    assert len(records[1].image_ids) == 5 and records[0].image_ids == ()


def test_a_missing_score_is_absent_with_its_reason(store: FeatureStore) -> None:
    scores = {score.metric: score for score in store.scores(feature_id(5))[ARMS[2]]}
    assert scores["iou"].value is None and scores["iou"].low is None and scores["iou"].reason == "empty answer"
    present = {score.metric: score for score in store.scores(feature_id(5))[TOP_K_MASKS]}
    assert present["iou"].value is not None and present["iou"].n == 20 and present["iou"].reason is None


def test_exemplars_by_pooling_and_split(store: FeatureStore) -> None:
    exemplars = store.exemplars(0)
    assert [item.rank for item in exemplars] == list(range(N_EXEMPLARS))
    assert {(item.split, item.pooling) for item in exemplars} == {("explain", "mean")}
    assert {item.split for item in store.exemplars(0, pooling="max", split=None)} == {"explain", "score"}
    first = exemplars[0]
    assert first.grid.shape == (16, 16) and first.grid.dtype == np.float32
    assert first.grid.max() == pytest.approx(first.activation_max, rel=1e-3)
    assert first.grid.mean() == pytest.approx(first.activation_mean, rel=1e-2)
    rows, cols = np.nonzero(first.grid)
    assert rows.min() == 2 and cols.min() == 1, "rows come before columns"
    assert (store.image_bytes(first.image_id) or b"")[8:12] == b"WEBP" and first.image_id in store.image_ids


def test_synthetic_images_with_activations(store: FeatureStore) -> None:
    found = store.synthetic(0, TOP_K_MASKS)
    assert [item.image_index for item in found] == list(range(N_SYNTHETIC))
    assert found == store.synthetic(0, "top_k_masks")
    assert all(item.webp[8:12] == b"WEBP" and item.activation is not None for item in found)
    assert store.synthetic(0, "no_steering") == ()


@pytest.mark.parametrize("kind", ["meaning", "direction", "coactivation"])
def test_neighbours_by_rank(store: FeatureStore, kind: str) -> None:
    found = store.neighbours(0, kind)
    assert [item.rank for item in found] == list(range(8))
    assert [item.value for item in found] == sorted((item.value for item in found), reverse=True)
    assert all(item.feature in store and item.feature != 0 for item in found)


def test_meta_summary_and_clusters(store: FeatureStore) -> None:
    assert store.meta["sae"]["d_sae"] == 96 and store.summary["arms"]["steering"]["n"] == 60
    assert (store.grid.rows, store.grid.cols) == (16, 16)
    assert sum(cluster.n_features for cluster in store.clusters) == 60


def test_masks_and_groups_of_texts(store: FeatureStore) -> None:
    exemplar, text = store.exemplars(0)[0], store.explanations(0)[1].text
    assert text
    mask = store.text_mask(text, exemplar.image_id)
    assert mask is not None and mask.dtype == bool
    np.testing.assert_array_equal(mask, exemplar.grid > 0)
    assert store.text_mask(text, "no such image") is None and store.text_mask("nothing", exemplar.image_id) is None
    other = store.text_mask("a kitten with a long tail", store.exemplars(feature_id(13))[0].image_id)
    assert other is not None and other.any()
    assert store.text_groups(text) == ("animal",)
    assert store.text_groups("nothing") is None and store.text_groups("never written") is None


def _rewritten(folder: Path, target: Path, name: str, table: pa.Table) -> FeatureStore:
    """A store over an artifact with meta.json and few tables, ``name`` replaced."""
    writer = ArtifactWriter(target, "atlas", 1, {}, {})
    writer.write_bytes("meta.json", (folder / "meta.json").read_bytes())
    for other in {"features", "texts", "images", name}:
        whole = Artifact.open(folder).table(other)
        writer.write_table(other, table if other == name else whole)
    return FeatureStore(writer.commit())


@pytest.mark.parametrize("name", ["explanations", "scores", "exemplars", "neighbours"])
def test_rows_of_a_feature_may_lie_anywhere(
    folder: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Unsorted tables, and tables in many row groups, read like any other."""

    def shown(one: FeatureStore, feature: int) -> object:
        if name == "exemplars":
            found = one.exemplars(feature, split=None)
            return [(item.image_id, item.rank, item.grid.tolist()) for item in found]
        if name == "neighbours":
            return one.neighbours(feature, "direction")
        if name == "explanations":
            return one.explanations(feature)
        return {arm: {score.metric: score for score in scores} for arm, scores in one.scores(feature).items()}

    table = Artifact.open(folder).table(name)
    halves = [table.slice(place, 1) for place in (*range(1, len(table), 2), *range(0, len(table), 2))]
    monkeypatch.setattr(artifact_writer, "_ROWS_PER_GROUP", 7)
    for place, changed in enumerate((table, pa.concat_tables(halves))):
        other = _rewritten(folder, tmp_path / str(place), name, changed)
        assert other.table(name)["feature"].num_chunks > 2
        for feature in store.feature_ids.tolist():
            assert shown(other, feature) == shown(store, feature)


def test_a_feature_without_rows_has_none(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    empty = Artifact.open(folder).table("explanations").slice(0, 0)
    assert _rewritten(folder, tmp_path, "explanations", empty).explanations(0) == ()


def test_a_missing_column_is_damage(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    broken = _rewritten(folder, tmp_path, "features", store.features.drop_columns(["best_text"]))
    with pytest.raises(ArtifactDamaged, match=r"'features' has no column 'best_text'"):
        broken.feature(0)


def test_a_column_of_another_type_is_damage(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    table = store.features.set_column(1, "x", pa.array(["left"] * 60))
    with pytest.raises(ArtifactDamaged, match=r"features\.x has type string where float was expected"):
        _ = _rewritten(folder, tmp_path, "features", table).features


def test_optional_columns_may_be_absent(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    table = store.features.drop_columns(["truth_terms", "decoder_norm"])
    record = _rewritten(folder, tmp_path, "features", table).feature(0)
    assert record.truth_terms == () and record.decoder_norm is None


def test_nan_is_absent_not_a_number(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    place = store.features.column_names.index("agreement")
    table = store.features.set_column(place, "agreement", pa.array([float("nan")] * 60, pa.float32()))
    assert _rewritten(folder, tmp_path, "features", table).feature(0).agreement is None


def test_a_grid_of_the_wrong_size_is_damage(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    table = store.table("exemplars")
    short = pa.array([np.zeros(9, np.float16)] * table.num_rows, pa.list_(pa.float16()))
    table = table.set_column(table.column_names.index("grid"), "grid", short)
    with pytest.raises(ArtifactDamaged, match="an exemplar has 9 patches, the grid 256"):
        _rewritten(folder, tmp_path, "exemplars", table).exemplars(0)


def test_a_text_mask_of_the_wrong_size_is_damage(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    table = store.table("text_masks")
    short = table.set_column(2, "mask", pa.array([b"abc"] * len(table), pa.binary()))
    first = table.slice(0, 1).to_pylist()[0]
    with pytest.raises(ArtifactDamaged, match="a text mask has 24 bits for 256 patches"):
        _rewritten(folder, tmp_path, "text_masks", short).text_mask(first["text"], first["image_id"])


def test_an_unknown_arm_is_damage(folder: Path, store: FeatureStore, tmp_path: Path) -> None:
    table = store.table("explanations")
    arms = pa.array(["clairvoyance"] * table.num_rows)
    table = table.set_column(table.column_names.index("arm"), "arm", arms)
    with pytest.raises(ArtifactDamaged, match="unknown explanation method 'clairvoyance'"):
        _rewritten(folder, tmp_path, "explanations", table).explanations(0)


def test_wider_types_are_accepted() -> None:
    columns = {field.name: pa.array([], field.type) for field in ATLAS_TABLES["scores"]}
    columns["value"], columns["feature"] = pa.array([], pa.float64()), pa.array([], pa.int64())
    columns["arm"] = pa.array([], pa.dictionary(pa.int32(), pa.large_string()))
    check_columns("scores", pa.table(columns).schema, "here")
