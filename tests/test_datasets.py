"""Image sets: folders of pictures, the choice a recipe makes, disjoint splits, chunks with corrupt images."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from backend.errors import ActivationsNotFinite, DataError, DatasetMissing, ImageUnreadable, RecipeError
from backend.models import load_subject
from backend.models.base import SubjectModel
from backend.types import HookPoint, Split
from precompute.data.folder import open_folder
from precompute.datasets import open_image_set, require_disjoint
from precompute.encoding import UNREADABLE, encode_images
from precompute.exemplars import ImageCache
from precompute.judges import open_judges
from precompute.recipe import load_recipe
from tests.builders_pictures import section
from tests.builders_pipeline import UNREADABLE_IDS, PlantedImages, install, planted_recipe, planted_subject


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICONOSCOPE_CACHE", str(tmp_path / "cache"))
    open_folder.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "set"
    for name, colour in (("b/second.png", "blue"), ("a/first.png", "red"), ("third.webp", "green")):
        path = place / "explain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(path)
    (place / "explain" / "notes.txt").write_text("not a picture")
    for split, colour in (("select", "white"), ("score", "black")):
        (place / split).mkdir()
        Image.new("RGB", (8, 8), colour).save(place / split / "one.png")
    return place


def test_a_folder_laid_out_by_split_gives_each_its_own_by_relative_path(folder: Path) -> None:
    images = open_folder(section("folder", folder), Split.EXPLAIN)
    assert images.ids == ("explain/a/first.png", "explain/b/second.png", "explain/third.webp")
    assert images.load("explain/a/first.png").getpixel((0, 0)) == (255, 0, 0)
    splits = (Split.EXPLAIN, Split.SELECT, Split.SCORE)
    ids = {split: open_folder(section("folder", folder), split).ids for split in splits}
    assert (ids[Split.SELECT], ids[Split.SCORE]) == (("select/one.png",), ("score/one.png",))
    require_disjoint(ids)


def test_missing_folder_unknown_image_and_damaged_file_are_said(folder: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"no folder with the train images at .*train"):
        open_folder(section("folder", folder), Split.TRAIN)
    images = open_folder(section("folder", folder), Split.EXPLAIN)
    with pytest.raises(ImageUnreadable):
        images.load("../escape.png")
    (folder / "explain" / "third.webp").write_bytes(b"not a picture at all")
    with pytest.raises(ImageUnreadable):
        images.load("explain/third.webp")


def test_an_empty_folder_is_missing_data(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DatasetMissing, match="holds no picture"):
        open_folder(section("folder", tmp_path / "nothing"), Split.SELECT)


def test_recipe_chooses_the_set(folder: Path, tmp_path: Path) -> None:
    recipe = planted_recipe(tmp_path, data={"kind": "folder", "path": str(folder)})
    assert len(open_image_set(recipe, Split.EXPLAIN).ids) == 3
    with pytest.raises(RecipeError, match="moon"):
        open_image_set(planted_recipe(tmp_path, data={"kind": "moon"}), Split.EXPLAIN)


def test_an_image_that_is_gone_since_the_harvest_is_named(folder: Path) -> None:
    cached = ImageCache(open_folder(section("folder", folder), Split.EXPLAIN))
    assert cached["explain/third.webp"].size == (8, 8)
    (folder / "explain" / "a" / "first.png").unlink()
    with pytest.raises(ImageUnreadable, match=r"first\.png cannot be read.* readable when it was harvested"):
        cached["explain/a/first.png"]


def test_the_cache_of_pictures_is_bounded_in_bytes(folder: Path) -> None:
    asked: list[str] = []

    class Counting:
        name, split, fingerprint, ids = "counting", Split.EXPLAIN, "", ("a", "b", "c")

        def load(self, image_id: str) -> Image.Image:
            asked.append(image_id)
            return Image.new("RGB", (8, 8))

    cached = ImageCache(Counting(), limit=2 * 8 * 8 * 3)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert cached[name].size == (8, 8)
    assert asked == ["a", "b", "c", "b"]


def test_unknown_judges_are_refused(tmp_path: Path) -> None:
    recipe = planted_recipe(tmp_path)
    object.__setattr__(recipe.judges, "kind", "oracle")
    with pytest.raises(RecipeError, match="oracle"):
        open_judges(recipe)


def test_planted_judges_open(tmp_path: Path) -> None:
    install()
    assert open_judges(planted_recipe(tmp_path)).fingerprints["truth"] == "planted judge"


def test_shared_images_are_refused() -> None:
    require_disjoint({Split.EXPLAIN: ["a", "b"], Split.SELECT: ["c"], Split.SCORE: ["d"]})
    with pytest.raises(DataError, match="'b'"):
        require_disjoint({Split.EXPLAIN: ["a", "b"], Split.SELECT: ["c"], Split.SCORE: ["b"]})


# ------------------------------------------------------------------------------------------------------- encoding


@pytest.fixture(scope="module")
def subject() -> SubjectModel:
    return load_subject(planted_subject(), HookPoint(layer=1))


def test_chunks_skip_and_count_corrupt_images(subject: SubjectModel) -> None:
    images, failures = PlantedImages(Split.EXPLAIN), Counter[str]()
    chunks = list(encode_images(subject, images, images.ids[:7], images_per_batch=3, failures=failures))
    assert [chunk.positions for chunk in chunks] == [(0, 1, 2), (4, 5), (6,)]
    assert failures == {UNREADABLE: 1} and not UNREADABLE_IDS & {one for chunk in chunks for one in chunk.image_ids}
    expected = subject.residuals([images.load(one) for one in chunks[1].image_ids])
    torch.testing.assert_close(chunks[1].residuals, expected)


def test_a_chunk_of_only_corrupt_images_is_left_out(subject: SubjectModel) -> None:
    images = PlantedImages(Split.EXPLAIN)
    ids = [*sorted(UNREADABLE_IDS & set(images.ids)), images.ids[0]]
    assert [chunk.image_ids for chunk in encode_images(subject, images, ids, images_per_batch=1)] == [(ids[1],)]


def test_nan_in_the_residual_stream_stops_the_run(subject: SubjectModel, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned = torch.full((1, 16, subject.d_model), float("nan"))
    monkeypatch.setattr(type(subject), "to_hook", lambda self, pixels: poisoned)
    images = PlantedImages(Split.SCORE)
    with pytest.raises(ActivationsNotFinite, match="float32"):
        next(encode_images(subject, images, images.ids[:1], images_per_batch=1))


def test_a_limit_takes_some_of_the_worlds_images_and_changes_the_fingerprint() -> None:
    world = load_recipe("world")
    few = replace(world, data=replace(world.data, n_explain_images=7))
    whole, some = open_image_set(world, Split.EXPLAIN), open_image_set(few, Split.EXPLAIN)
    assert len(some.ids) == 7 and set(some.ids) < set(whole.ids)
    assert some.fingerprint != whole.fingerprint
    more = replace(world, data=replace(world.data, n_explain_images=10**6))
    assert open_image_set(more, Split.EXPLAIN).fingerprint == whole.fingerprint
    nine = replace(world, data=replace(world.data, n_explain_images=9))
    assert set(some.ids) < set(open_image_set(nine, Split.EXPLAIN).ids)
