"""Tar shards and datasets of the hub: read at random, indexed once, and every damage named."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import DataError, DatasetMissing, ImageUnreadable, RecipeError
from backend.types import Split
from precompute.data import _streaming, _tar_shards, huggingface, kinds
from precompute.data._rows import encoded
from precompute.data.huggingface import open_dataset
from precompute.data.webdataset import open_shards
from precompute.data_section import SharesSection, SourcesSection
from precompute.datasets import DATA_MODULES
from tests.builders_pictures import picture_bytes, save_parquet, save_shard, section

PARTS = SourcesSection(train="train", explain="test", select="test", score="test")
SHARDS = SourcesSection(train="train-*.tar", explain="test-*.tar", select="test-*.tar", score="test-*.tar")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ICONOSCOPE_CACHE", str(tmp_path / "cache"))
    yield
    open_dataset.cache_clear()
    open_shards.cache_clear()


def pixels(data: bytes) -> tuple[int, ...]:
    from backend.images import open_image

    return open_image(data).getpixel((3, 5))  # pyright: ignore[reportReturnType]


def test_every_kind_is_a_module_of_its_name() -> None:
    assert {"folder", "huggingface", "webdataset", "world"} <= set(kinds()) <= set(DATA_MODULES)


# ------------------------------------------------------------------------------------------------------------- tar


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    save_shard(tmp_path / "sets" / "train-000.tar", range(100, 108))
    save_shard(tmp_path / "sets" / "test-000.tar", range(20))
    save_shard(tmp_path / "sets" / "test-001.tar", range(20, 40))
    return tmp_path / "sets"


def test_shards_give_their_pictures_in_any_order(shards: Path) -> None:
    data = section("webdataset", shards, sources=SHARDS)
    train = open_shards(data, Split.TRAIN)
    assert train.ids == tuple(f"train-000/{number:04d}.png" for number in range(100, 108))
    for number in (107, 100, 103):
        assert train.load(f"train-000/{number:04d}.png").getpixel((3, 5)) == pixels(picture_bytes(number))
    parts = [open_shards(data, split).ids for split in (Split.EXPLAIN, Split.SELECT, Split.SCORE)]
    assert sorted(name for ids in parts for name in ids)[0] == "test-000/0000.png"
    assert sum(len(ids) for ids in parts) == 40


def test_the_index_is_made_once(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = section("webdataset", shards, sources=SHARDS)
    before = open_shards(data, Split.TRAIN).fingerprint
    open_shards.cache_clear()
    monkeypatch.setattr(_tar_shards, "_index_of", lambda *_: pytest.fail("scanned again"))
    assert open_shards(data, Split.TRAIN).fingerprint == before


def test_a_changed_shard_is_indexed_anew(shards: Path) -> None:
    data = section("webdataset", shards, sources=SHARDS)
    before = open_shards(data, Split.TRAIN)
    save_shard(shards / "train-000.tar", range(200, 203))
    open_shards.cache_clear()
    after = open_shards(data, Split.TRAIN)
    assert len(after.ids) == 3 and after.fingerprint != before.fingerprint


def test_a_member_cut_short_is_unreadable_and_names_its_shard(shards: Path) -> None:
    path = shards / "train-000.tar"
    _, offset, size = _tar_shards.TarSource("t", [path])._places[4]
    path.write_bytes(path.read_bytes()[: offset + size // 2])
    images = open_shards(section("webdataset", shards, sources=SHARDS), Split.TRAIN)
    assert len(images.ids) == 5
    assert images.load(images.ids[3]).size == (12, 12)
    with pytest.raises(ImageUnreadable, match=r"0104\.png is cut short: .*train-000\.tar ends within it"):
        images.load(images.ids[4])


def test_what_is_no_tar_and_what_is_not_there_are_said(shards: Path) -> None:
    (shards / "train-000.tar").write_bytes(b"\x1f\x8b" + b"not a tar" * 100)
    data = section("webdataset", shards, sources=SHARDS)
    with pytest.raises(DataError, match=r"train-000\.tar cannot be read as a tar file"):
        open_shards(data, Split.TRAIN)
    sources = SourcesSection(train="no-*.tar", explain="no-*.tar", select="no-*.tar", score="no-*.tar")
    with pytest.raises(DatasetMissing, match=r"no shards no-\*\.tar"):
        open_shards(section("webdataset", shards, sources=sources), Split.TRAIN)


def test_shards_of_one_name_in_two_folders_go_by_their_paths(tmp_path: Path) -> None:
    for folder, numbers in (("left", range(20)), ("right", range(20, 40)), ("right/deep", range(40, 50))):
        save_shard(tmp_path / folder / "000.tar", numbers)
    save_shard(tmp_path / "001.tar", range(50, 60))
    parts = [open_shards(section("webdataset", tmp_path), split) for split in Split]
    assert sorted(name for part in parts for name in part.ids) == sorted(
        [f"left/000/{number:04d}.png" for number in range(20)]
        + [f"right/000/{number:04d}.png" for number in range(20, 40)]
        + [f"right/deep/000/{number:04d}.png" for number in range(40, 50)]
        + [f"001/{number:04d}.png" for number in range(50, 60)]
    )
    for part in parts:
        for name in part.ids:
            assert part.load(name).getpixel((3, 5)) == pixels(picture_bytes(int(name[-8:-4])))


def test_sources_whose_shards_have_the_same_names_go_by_their_paths(tmp_path: Path) -> None:
    """Members too are often called alike in each of them; what is trained on has its own ids."""
    sources = SourcesSection(train="train/*.tar", explain="a/*.tar", select="b/*.tar", score="c/*.tar")
    for at, split in enumerate(Split):
        (tmp_path / sources.of(split)).parent.mkdir()
        with tarfile.open(tmp_path / sources.of(split).replace("*", "000"), "w") as archive:
            member = tarfile.TarInfo("0000.png")
            member.size = len(picture_bytes(at))
            archive.addfile(member, io.BytesIO(picture_bytes(at)))
    data = section("webdataset", tmp_path, sources=sources)
    ids = [open_shards(data, split).ids for split in Split]
    assert ids == [("000/0000.png",), ("a/000/0000.png",), ("b/000/0000.png",), ("c/000/0000.png",)]


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    save_shard(tmp_path / "all.tar", [1, 2, 1])
    with pytest.raises(DataError, match=r"two pictures called 'all/0001\.png'"):
        open_shards(section("webdataset", tmp_path), Split.TRAIN)


# --------------------------------------------------------------------------------------------------------- parquet


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    save_parquet(folder / "data" / "train-00000-of-00001.parquet", range(100, 107))
    save_parquet(folder / "data" / "test-00000-of-00002.parquet", [*range(10), None])
    save_parquet(folder / "data" / "test-00001-of-00002.parquet", range(10, 30))
    return folder


def test_parquet_rows_are_read_in_any_order(hub: Path) -> None:
    data = section("huggingface", hub, sources=PARTS)
    train = open_dataset(data, Split.TRAIN)
    assert train.ids == tuple(f"train/{row:08d}" for row in range(7))
    for row in (6, 0, 4):
        assert train.load(f"train/{row:08d}").getpixel((3, 5)) == pixels(picture_bytes(100 + row))
    parts = {split: open_dataset(data, split) for split in (Split.EXPLAIN, Split.SELECT, Split.SCORE)}
    assert sum(len(images.ids) for images in parts.values()) == 31
    broken = next(images for images in parts.values() if "test/00000010" in images.ids)
    with pytest.raises(ImageUnreadable, match=r"row 10 .* holds no picture"):
        broken.load("test/00000010")


def test_a_wrong_column_names_those_that_are_there(hub: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'picture'; there are: image, label"):
        open_dataset(section("huggingface", hub, sources=PARTS, image_column="picture"), Split.TRAIN)
    with pytest.raises(DataError, match=r"'label' .* holds int32, not encoded pictures"):
        open_dataset(section("huggingface", hub, sources=PARTS, image_column="label"), Split.TRAIN)


def test_missing_splits_and_files_are_named(hub: Path) -> None:
    with pytest.raises(RecipeError, match=r"must say which splits .* It has: test, train"):
        open_dataset(section("huggingface", hub), Split.TRAIN)
    sources = SourcesSection(train="validation", explain="test", select="test", score="test")
    with pytest.raises(DatasetMissing, match=r"no split 'validation' here; there are: test, train"):
        open_dataset(section("huggingface", hub, sources=sources), Split.TRAIN)
    (hub / "data" / "test-00000-of-00002.parquet").unlink()
    with pytest.raises(DatasetMissing, match=r"1 of 2 files of the split 'test' are missing .* interrupted"):
        open_dataset(section("huggingface", hub, sources=PARTS), Split.SCORE)


@pytest.fixture
def two_configurations(tmp_path: Path) -> Path:
    folder = tmp_path / "two"
    save_parquet(folder / "cropped" / "train-00000-of-00001.parquet", range(10))
    save_parquet(folder / "full" / "train-00000-of-00001.parquet", range(20, 25))
    save_parquet(folder / "full" / "test" / "0000.parquet", range(30, 36))
    save_parquet(folder / "extra" / "test" / "0000.parquet", range(40, 44))
    save_parquet(folder / "extra" / "validation-00000-of-00001.parquet", range(50, 53))
    return folder


def test_configurations_of_a_dataset_are_not_mixed(two_configurations: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"no split 'train' here; there are: cropped/train, extra/test, full/test"):
        open_dataset(section("huggingface", two_configurations, sources=PARTS), Split.TRAIN)
    parts = SourcesSection(train="full/train", explain="full/test", select="extra/test", score="validation")
    data = section("huggingface", two_configurations, sources=parts)
    train = open_dataset(data, Split.TRAIN)
    assert train.ids == tuple(f"full/train/{row:08d}" for row in range(5))
    assert train.load("full/train/00000004").getpixel((3, 5)) == pixels(picture_bytes(24))
    sizes = [len(open_dataset(data, split).ids) for split in (Split.EXPLAIN, Split.SELECT, Split.SCORE)]
    assert sizes == [6, 4, 3]
    assert open_dataset(data, Split.SCORE).ids[0] == "validation/00000000"


def test_streaming_reads_one_configuration(two_configurations: Path, small_shards: None) -> None:
    named = SourcesSection(**dict.fromkeys((split.value for split in Split), "cropped/train"))
    data = streamed(two_configurations, sources=named)
    train = open_dataset(data, Split.TRAIN)
    row = int(train.ids[0].rpartition("/")[2].partition(".")[0])
    assert train.load(train.ids[0]).getpixel((3, 5)) == pixels(picture_bytes(row))
    with pytest.raises(DatasetMissing, match=r"no split 'train' here; there are: cropped/train"):
        open_dataset(streamed(two_configurations), Split.TRAIN)


def test_a_repository_that_is_not_here_is_named_with_its_page() -> None:
    data = section("huggingface", "ILSVRC/imagenet-1k", sources=PARTS)
    with pytest.raises(DatasetMissing, match=r"huggingface\.co/datasets/ILSVRC/imagenet-1k .*hf download ILSVRC"):
        open_dataset(data, Split.TRAIN)
    with pytest.raises(DatasetMissing, match="download = true"):
        open_dataset(section("huggingface", "ILSVRC/imagenet-1k", sources=PARTS, streaming=True), Split.TRAIN)


def test_a_gated_repository_and_a_broken_connection_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    answer = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))

    def refuse(*_: object, **__: object) -> str:
        raise GatedRepoError("403", response=answer)  # pyright: ignore[reportArgumentType]

    def breaks(*_: object, **__: object) -> str:
        raise ConnectionResetError("connection reset")

    data = section("huggingface", "ILSVRC/imagenet-1k", sources=PARTS, download=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(DatasetMissing, match=r"is gated: accept its licence at .*/ILSVRC/imagenet-1k, log in"):
        open_dataset(data, Split.TRAIN)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", breaks)
    with pytest.raises(DatasetMissing, match=r"connection reset\)\. What arrived is kept: run again"):
        open_dataset(data, Split.TRAIN)


# ------------------------------------------------------------------------------------- saved datasets and streaming


def test_what_save_to_disk_wrote_is_read_and_divided(tmp_path: Path) -> None:
    import datasets

    cells = [{"bytes": picture_bytes(number), "path": None} for number in range(24)]
    features = datasets.Features({"image": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": cells}, features=features)
    rows.save_to_disk(str(tmp_path / "saved"))
    shares = SharesSection(train=1, explain=1, select=1, score=1)
    sets = [open_dataset(section("huggingface", tmp_path / "saved", shares=shares), split) for split in Split]
    assert sum(len(images.ids) for images in sets) == 24
    name = sets[0].ids[0]
    assert sets[0].load(name).getpixel((3, 5)) == pixels(picture_bytes(int(name.rpartition("/")[2])))
    with pytest.raises(DataError, match=r"no column 'picture'; there are: image"):
        open_dataset(section("huggingface", tmp_path / "saved", image_column="picture"), Split.TRAIN)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_streaming, "PER_SHARD", 4)


def streamed(hub: Path, **fields: object):
    sources = SourcesSection(train="train", explain="train", select="train", score="train")
    limits = {"n_train_images": 2, "n_explain_images": 2, "n_select_images": 1, "n_score_images": 1}
    shares = SharesSection(train=1, explain=1, select=1, score=1)
    known = {"sources": sources, "shares": shares, "streaming": True, **limits, **fields}
    return section("huggingface", hub, **known)


def test_streaming_fetches_what_the_limits_ask_for_and_keeps_it(
    hub: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = SourcesSection(train="train", explain="test", select="test", score="test")
    data = streamed(hub, sources=only, n_train_images=3)
    train = open_dataset(data, Split.TRAIN)
    assert len(train.ids) == 3 and all(name.startswith("images-00000/0000000") for name in train.ids)
    stored = [path.name for path in (tmp_path / "cache").rglob("images-*.tar")]
    assert stored == ["images-00000.tar"]
    row = int(train.ids[0].rpartition("/")[2].partition(".")[0])
    assert train.load(train.ids[0]).getpixel((3, 5)) == pixels(picture_bytes(100 + row))
    open_dataset.cache_clear()
    monkeypatch.setattr(_streaming, "_fetch_shard", lambda *_: pytest.fail("fetched again"))
    monkeypatch.setattr(huggingface, "_iterable", lambda *_: pytest.fail("asked for again"))
    assert open_dataset(data, Split.TRAIN).fingerprint == train.fingerprint


def test_an_interrupted_download_goes_on_after_the_last_whole_shard(
    hub: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, add = streamed(hub), _streaming._add

    def breaks(archive: object, row: int, data: bytes) -> None:
        if row == 5:
            raise ConnectionResetError("connection reset")
        add(archive, row, data)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(_streaming, "_add", breaks)
    with pytest.raises(DatasetMissing, match=r"stopped after 5 pictures \(.*reset\)\. 4 of them are kept: run again"):
        open_dataset(data, Split.TRAIN)
    monkeypatch.setattr(_streaming, "_add", lambda archive, row, value: add(archive, row, value) if row >= 4 else 1 / 0)
    assert 1 <= len(open_dataset(data, Split.TRAIN).ids) <= 2


def test_a_dataset_names_no_file_outside_its_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "set" / "own.png", tmp_path / "private.png"
    inside.parent.mkdir()
    assert encoded({"bytes": None, "path": "own.png"}, "row 0", inside.parent) == inside
    assert encoded(str(inside), "row 0", inside.parent) == inside
    for named in (str(outside), "../private.png"):
        with pytest.raises(ImageUnreadable, match=r"row 1 names the file '.*private\.png', which is not one of"):
            encoded({"bytes": None, "path": named}, "row 1", inside.parent)
    with pytest.raises(ImageUnreadable, match="not one of the dataset's own"):
        encoded(str(outside), "row 2", None)


def test_streaming_without_a_limit_or_with_a_wrong_column_is_refused(hub: Path, small_shards: None) -> None:
    with pytest.raises(RecipeError, match="n_score_images"):
        open_dataset(streamed(hub, n_score_images=None), Split.TRAIN)
    with pytest.raises(DataError, match=r"no column 'picture'; there are: image, label"):
        open_dataset(streamed(hub, image_column="picture"), Split.TRAIN)


@pytest.mark.parametrize("field", ["streaming", "download"])
def test_fields_of_the_hub_are_refused_elsewhere(field: str) -> None:
    with pytest.raises(ValueError, match="streaming and download mean nothing to kind folder"):
        section("folder", "pictures", **{field: True})


def test_pages_of_datasets_are_those_of_datasets() -> None:
    assert huggingface.page_of("a/b") == "https://huggingface.co/datasets/a/b"
