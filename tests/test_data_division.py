"""Splits by rule: disjoint by content, the same whatever is added, limits that nest, copies that cannot leak."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backend.errors import DataError, DatasetMissing, ImageUnreadable
from backend.types import Split
from precompute.data._division import DividedImages, split_of
from precompute.data.folder import open_folder
from precompute.data_section import DataSection, SharesSection, SourcesSection, limited
from tests.builders_pictures import picture_bytes, save_folder, section

SHARES = SharesSection(train=0.25, explain=0.25, select=0.25, score=0.25)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICONOSCOPE_CACHE", str(tmp_path / "cache"))
    open_folder.cache_clear()


def opened(data: DataSection) -> dict[Split, DividedImages]:
    return {split: open_folder(data, split) for split in Split}


def test_a_nested_folder_is_divided_without_a_rest_and_without_overlap(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "pictures", range(60))
    sets = opened(section("folder", folder, shares=SHARES))
    ids = [name for images in sets.values() for name in images.ids]
    assert len(ids) == len(set(ids)) == 60
    assert all(8 <= len(images.ids) <= 24 for images in sets.values())
    assert "holiday/beach/picture 001.png" in ids
    first = sets[Split.SCORE]
    assert first.load(first.ids[0]).size == (12, 12)
    with pytest.raises(ImageUnreadable, match="is not among the score images"):
        first.load(sets[Split.EXPLAIN].ids[0])


def test_a_picture_stays_in_its_split_when_others_are_added_or_it_is_renamed(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "pictures", range(30))
    data = section("folder", folder, shares=SHARES)
    before = {split: set(images.ids) for split, images in opened(data).items()}
    save_folder(folder, range(30, 50))
    moved = next(iter(before[Split.SCORE]))
    (folder / moved).rename(folder / "renamed.png")
    open_folder.cache_clear()
    after = {split: set(images.ids) for split, images in opened(data).items()}
    assert all(before[split] - {moved} <= after[split] for split in Split)
    assert "renamed.png" in after[Split.SCORE]


def test_copies_of_a_picture_land_in_one_split_and_count_once(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "pictures", range(40))
    for number in range(40):
        (folder / f"z copy {number}.png").write_bytes(picture_bytes(number))
    ids = [name for images in opened(section("folder", folder, shares=SHARES)).values() for name in images.ids]
    assert len(ids) == 40 and not [name for name in ids if "copy" in name]


def test_copies_in_two_subfolders_are_refused_by_name(tmp_path: Path) -> None:
    for split, numbers in ((Split.EXPLAIN, range(4)), (Split.SELECT, range(4, 8)), (Split.SCORE, range(8, 12))):
        save_folder(tmp_path / split.value, numbers)
    (tmp_path / "score" / "other name.png").write_bytes(picture_bytes(1))
    data = section("folder", tmp_path)
    with pytest.raises(DataError, match=r"share 1 pictures, e\.g\. 'explain/holiday/.*001\.png' and 'score/other name"):
        open_folder(data, Split.EXPLAIN)


def test_corrupt_files_are_assigned_so_that_they_are_counted(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "pictures", range(9))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(picture_bytes(3)[:60])
    shares = SharesSection(train=1, explain=0, select=0, score=0)
    images = open_folder(section("folder", folder, shares=shares), Split.TRAIN)
    assert {"empty.jpg", "cut.jpg"} <= set(images.ids)
    for name in ("empty.jpg", "cut.jpg"):
        with pytest.raises(ImageUnreadable, match=name):
            images.load(name)


def test_limits_nest_and_are_no_prefix(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "pictures", range(30))
    drawn = [
        open_folder(section("folder", folder, shares=SHARES, n_train_images=n), Split.TRAIN).ids for n in (2, 4, 1000)
    ]
    assert [len(ids) for ids in drawn[:2]] == [2, 4] and set(drawn[0]) < set(drawn[1]) < set(drawn[2])
    assert all(list(ids) == sorted(ids) for ids in drawn)
    keys = [f"class-{number // 100}/{number}" for number in range(1000)]
    classes = {keys[place].partition("/")[0] for place in limited(range(1000), keys, 50)}
    assert len(classes) == 10


def test_fingerprint_follows_the_contents_and_not_the_place(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "pictures", range(30))
    data = section("folder", folder, shares=SHARES)
    before = open_folder(data, Split.SCORE)
    elsewhere = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert open_folder(section("folder", elsewhere, shares=SHARES), Split.SCORE).fingerprint == before.fingerprint
    (elsewhere / before.ids[0]).write_bytes(picture_bytes(99))
    open_folder.cache_clear()
    assert open_folder(section("folder", elsewhere, shares=SHARES), Split.SCORE).fingerprint != before.fingerprint


def test_shares_are_relative_and_nothing_at_all_is_refused() -> None:
    low, high = "0" * 32, "f" * 32
    together = [Split.EXPLAIN, Split.SCORE]
    assert split_of(low, together, SHARES) is Split.EXPLAIN and split_of(high, together, SHARES) is Split.SCORE
    alone = SharesSection(train=1, explain=1, select=0, score=0)
    assert split_of(high, together, alone) is Split.EXPLAIN
    with pytest.raises(DataError, match=r"gives nothing to any of select, score"):
        split_of(low, [Split.SELECT, Split.SCORE], alone)


def test_a_split_that_gets_no_picture_says_so(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "pictures", range(5))
    shares = SharesSection(train=0, explain=1, select=1, score=1)
    with pytest.raises(DatasetMissing, match=r"falls into the train split \(5 pictures in all\)"):
        open_folder(section("folder", folder, shares=shares), Split.TRAIN)


def test_sources_name_subfolders_and_shared_ones_are_divided(tmp_path: Path) -> None:
    save_folder(tmp_path / "a", range(10))
    save_folder(tmp_path / "b", range(10, 40))
    sources = SourcesSection(train="a", explain="b", select="b", score="b")
    sets = opened(section("folder", tmp_path, sources=sources))
    assert len(sets[Split.TRAIN].ids) == 10
    assert sum(len(sets[split].ids) for split in (Split.EXPLAIN, Split.SELECT, Split.SCORE)) == 30
