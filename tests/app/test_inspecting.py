"""From an image to its features: planted activations are found, counted and ranked; what the harvest stored is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from app import inspecting, uploads
from app.firings import Firings, ImageCode, firings_of, summed, unusualness, with_stored
from app.inspecting import STRONGEST, FeatureOnImage, Inspection, features_of_image, inspect, stored_grids
from app.services import Services, open_services
from app.subject_worker import Waiting
from backend.errors import ImageMissing, SubjectMismatch, SubjectMissing
from tests.builders_atlas import BagEncoder

K = 4


class PlantedSession:
    """Stands in for a SteeringSession: every image has the codes that were planted."""

    def __init__(self, code: ImageCode) -> None:
        self.code = code

    def features(self, image: object) -> Any:
        import torch

        del image

        class Found:
            values = torch.from_numpy(self.code.values)
            indices = torch.from_numpy(self.code.indices)

        return Found()


class PlantedWorker:
    """Runs jobs at once after one place in the line, and counts them. Without a session it is a missing model."""

    def __init__(self, session: PlantedSession | None) -> None:
        self.session = session
        self.n_jobs = 0

    def run(self, visitor: str, job: Callable[..., Iterator[Any]]) -> Iterator[Any]:
        del visitor
        self.n_jobs += 1
        if self.session is None:
            raise SubjectMissing("the subject model is not here")
        yield Waiting(ahead=1)
        yield from job(self.session, lambda: False)


def code_of(planted: dict[int, dict[int, float]], n_patches: int) -> ImageCode:
    """``{patch: {feature: activation}}`` as the k kept features of every patch."""
    values = np.zeros((n_patches, K), np.float32)
    indices = np.tile(np.arange(900, 900 + K), (n_patches, 1))
    for patch, active in planted.items():
        for place, (feature, value) in enumerate(sorted(active.items(), key=lambda item: -item[1])):
            values[patch, place], indices[patch, place] = value, feature
    return ImageCode(values=values, indices=indices)


def planted_services(services: Services, planted: dict[int, dict[int, float]] | None) -> Services:
    session = None if planted is None else PlantedSession(code_of(planted, services.store.grid.n_patches))
    return replace(services, worker=PlantedWorker(session))


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    """No image has been looked at before."""
    inspecting._CODES._kept.clear()


@pytest.fixture
def an_upload() -> str:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (24, 24), "olive").save(stream, "PNG")
    return uploads.SHELF.add(stream.getvalue()).image_id


def only(steps: Iterator[Waiting | Inspection]) -> Inspection:
    *before, last = list(steps)
    assert all(isinstance(step, Waiting) for step in before)
    assert isinstance(last, Inspection)
    return last


def by_id(found: Inspection) -> dict[int, FeatureOnImage]:
    return {one.record.feature: one for one in found.features}


# counting ------------------------------------------------------------------------------------------------------------


def test_maximum_mean_and_counts_are_those_of_the_chosen_patches(services: Services, an_upload: str) -> None:
    planted = planted_services(services, {0: {2: 6.0, 3: 1.0}, 1: {2: 2.0}, 9: {3: 8.0}})
    found = by_id(only(inspect(planted, "v", an_upload, (0, 1, 5, 7))))
    assert set(found) == {2, 3}
    assert (found[2].maximum, found[2].mean, found[2].n_active, found[2].n_active_image) == (6.0, 2.0, 2, 2)
    assert (found[3].maximum, found[3].mean, found[3].n_active, found[3].n_active_image) == (1.0, 0.25, 1, 2)
    grid = services.store.grid
    assert found[3].grid.shape == (grid.rows, grid.cols)
    assert found[3].grid.ravel()[9] == 8.0
    whole = only(inspect(planted, "v", an_upload))
    assert (whole.n_patches, whole.patches, by_id(whole)[3].maximum) == (grid.n_patches, (), 8.0)


def test_patches_where_nothing_fires_have_no_features(services: Services, an_upload: str) -> None:
    found = only(inspect(planted_services(services, {0: {2: 6.0}}), "v", an_upload, (5,)))
    assert (found.features, found.n_firing) == ((), 0)


def test_features_outside_the_atlas_are_counted_and_not_shown(services: Services, an_upload: str) -> None:
    assert 10 not in services.store
    found = only(inspect(planted_services(services, {0: {10: 9.0, 2: 1.0}}), "v", an_upload))
    assert (found.n_unlisted, found.n_firing, set(by_id(found))) == (1, 1, {2})


def test_the_first_are_told_and_all_are_counted(services: Services, an_upload: str) -> None:
    ids = services.store.feature_ids[:8].tolist()
    planted = {patch: {feature: 1.0 + patch} for patch, feature in enumerate(ids)}
    found = only(inspect(planted_services(services, planted), "v", an_upload, most=3))
    assert (len(found.features), found.n_firing) == (3, 8)


def test_an_image_runs_through_the_model_once(services: Services, an_upload: str) -> None:
    planted = planted_services(services, {0: {2: 6.0}})
    steps = list(inspect(planted, "v", an_upload))
    assert isinstance(steps[0], Waiting)
    assert len(list(inspect(planted, "v", an_upload, (0,)))) == 1
    assert planted.worker.n_jobs == 1  # type: ignore[attr-defined]


def test_words_and_reliability_come_with_their_n(services: Services, an_upload: str) -> None:
    one = only(inspect(planted_services(services, {0: {2: 6.0}}), "v", an_upload)).features[0]
    record = services.store.feature(2)
    assert one.record == record
    assert record.best_arm is not None
    scores = {score.metric: score for score in services.store.scores(2)[record.best_arm]}
    assert one.auroc == scores["auroc_per_feature"]
    assert one.auroc is not None and one.auroc.n == 20 and one.auroc.low is not None
    assert one.outcome.value == services.best_outcome(2)


# ranking -------------------------------------------------------------------------------------------------------------


def test_unusualness_is_the_documented_formula() -> None:
    bits = unusualness(np.array([5.0, 5.0, 10.0]), np.array([10.0, 5.0, 5.0]), np.array([0.25, 0.25, 0.5]))
    assert bits.tolist() == [1.0, 2.0, 2.0]


def test_what_is_not_known_is_not_unusual() -> None:
    bits = unusualness(np.ones(3), np.array([np.nan, 0.0, 1.0]), np.array([0.1, 0.1, np.nan]))
    assert bits.tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(unusualness(np.ones(1), np.ones(1), np.zeros(1))).all()


def _ranked(services: Services, planted: Any, image: str, patches: tuple[int, ...] = (), **more: Any) -> list[int]:
    inspecting._CODES._kept.clear()
    found = only(inspect(planted_services(services, planted), "v", image, patches, **more))
    return [one.record.feature for one in found.features]


def test_a_feature_that_fires_everywhere_gives_way_to_a_rare_one(services: Services, an_upload: str) -> None:
    records = [services.store.feature(int(one)) for one in services.store.feature_ids]
    common = max(records, key=lambda one: one.firing_fraction)
    rare = min(records, key=lambda one: one.firing_fraction)
    assert common.firing_fraction > 4 * rare.firing_fraction
    both = {common.feature: 0.7 * common.maximum, rare.feature: 0.69 * rare.maximum}
    everywhere = dict.fromkeys(range(services.store.grid.n_patches), both)
    assert _ranked(services, everywhere, an_upload) == [rare.feature, common.feature]
    # Where the rare one is on a single patch, it leads there and not over the whole picture.
    corner = {patch: {common.feature: both[common.feature]} for patch in everywhere} | {0: both}
    assert _ranked(services, corner, an_upload) == [common.feature, rare.feature]
    assert _ranked(services, corner, an_upload, (0,)) == [rare.feature, common.feature]
    assert _ranked(services, corner, an_upload, by=STRONGEST) == [common.feature, rare.feature]


def test_a_feature_at_its_maximum_beats_the_same_feature_barely_on(services: Services, an_upload: str) -> None:
    two, three = services.store.feature(2), services.store.feature(3)
    for strong, weak in ((two, three), (three, two)):
        inspecting._CODES._kept.clear()
        planted = {0: {strong.feature: strong.maximum}, 1: {weak.feature: 0.05 * weak.maximum}}
        found = only(features_of_image(planted_services(services, planted), "v", an_upload))
        assert found.features[0].record.feature == strong.feature
        assert found.features[0].relative == pytest.approx(1.0)


def test_firings_of_no_code_are_none() -> None:
    nothing = summed(firings_of(None), np.ones(4, dtype=bool))
    assert nothing.feature.size == 0


def test_stored_grids_replace_live_ones_only_for_their_features() -> None:
    live = Firings(feature=np.array([1, 2]), patch=np.array([0, 3]), value=np.array([5.0, 6.0], np.float32))
    both = with_stored(live, {1: np.array([[0.0, 2.0], [0.0, 0.0]], np.float32)})
    assert both.grid_of(1, 4).tolist() == [0.0, 2.0, 0.0, 0.0]
    assert both.grid_of(2, 4).tolist() == [0.0, 0.0, 0.0, 6.0]
    gone = with_stored(live, {2: np.zeros((2, 2), np.float32)})
    assert set(gone.feature.tolist()) == {1}


# images of the atlas -------------------------------------------------------------------------------------------------


def test_on_images_of_the_atlas_the_harvest_has_the_last_word(services: Services) -> None:
    image = services.store.exemplars(2)[0].image_id
    planted = planted_services(services, {0: {2: 0.5, 1: 1.5}})
    found = only(inspect(planted, "v", image, most=1000))
    stored = stored_grids(services, image)
    assert 2 in stored and found.live and found.n_stored == len(stored)
    for feature, grid in stored.items():
        one = by_id(found)[feature]
        assert one.stored
        assert (one.grid == grid).all()
        assert one.maximum == pytest.approx(grid.max())
        assert one.mean == pytest.approx(grid.mean(), rel=1e-5)
    assert not by_id(found)[1].stored


def test_stored_grids_are_those_of_the_exemplars(services: Services) -> None:
    for feature in (1, 2, 7):
        for exemplar in services.store.exemplars(feature, split=None):
            assert (stored_grids(services, exemplar.image_id)[feature] == exemplar.grid).all()
    assert stored_grids(services, "no-such-image") == stored_grids(services, "black") == {}


def test_without_a_model_stored_features_are_told_with_the_reason(services: Services) -> None:
    image = services.store.exemplars(2)[0].image_id
    found = only(inspect(planted_services(services, None), "v", image, most=1000))
    assert not found.live
    assert found.missing == "the subject model is not here"
    assert set(by_id(found)) == set(stored_grids(services, image))
    assert all(one.stored for one in found.features)


@pytest.mark.parametrize("image", ["", "black", "noise-1", "upload"])
def test_without_a_model_other_images_say_so(services: Services, an_upload: str, image: str) -> None:
    with pytest.raises(SubjectMissing):
        list(inspect(planted_services(services, None), "v", an_upload if image == "upload" else image))


def test_a_subject_with_another_grid_is_refused(services: Services, an_upload: str) -> None:
    other = planted_services(services, {})
    other.worker.session.code = code_of({}, 9)  # type: ignore[attr-defined]
    with pytest.raises(SubjectMismatch, match="9 patches"):
        list(inspect(other, "v", an_upload))


@pytest.mark.parametrize("image", ["no-such-image", "upload-0123456789abcdef"])
def test_images_that_are_not_here_are_refused_before_the_model_is_asked(services: Services, image: str) -> None:
    planted = planted_services(services, {})
    with pytest.raises(ImageMissing):
        list(inspect(planted, "v", image))
    assert planted.worker.n_jobs == 0  # type: ignore[attr-defined]


def test_patches_outside_the_grid_do_not_reach_the_arrays(services: Services, an_upload: str) -> None:
    from app.components.patch_picker import chosen_patches

    sent = chosen_patches({"patches": [10**9, -3, 0]}, services.store.grid)
    assert only(inspect(planted_services(services, {0: {2: 1.0}}), "v", an_upload, sent)).n_patches == 1


# the shipped atlas ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_shipped_subject_gives_what_its_harvest_stored(shipped_atlas: Path, repository: Path) -> None:
    """The corpus's own pictures, uploaded: every stored grid comes back, to the precision in which it is stored."""
    services = open_services(shipped_atlas, verify=False, encoder=BagEncoder())
    corpus = pq.read_table(repository / "assets" / "world" / "corpus" / "explain.parquet", columns=["image_id", "webp"])
    n_grids = 0
    for row in corpus.slice(0, 400).to_pylist()[::40]:
        stored = stored_grids(services, row["image_id"])
        name = uploads.SHELF.add(row["webp"]).image_id
        found = by_id(only(inspect(services, "v", name, most=2000)))
        assert not any(one.stored for one in found.values())
        for feature, grid in stored.items():
            n_grids += 1
            assert ((found[feature].grid > 0) == (grid > 0)).all()
            # float16 keeps 11 bits.
            np.testing.assert_allclose(found[feature].grid, grid, rtol=1e-3, atol=1e-3)
    assert n_grids > 40


@pytest.mark.slow
def test_the_shipped_atlas_tells_of_its_images_what_is_stored(shipped_atlas: Path) -> None:
    services = open_services(shipped_atlas, verify=False, encoder=BagEncoder())
    for image in services.store.image_ids[::200]:
        found = by_id(only(inspect(services, "v", image, most=2000)))
        for feature, grid in stored_grids(services, image).items():
            if grid.max() > 0:
                assert (found[feature].grid == grid).all()
