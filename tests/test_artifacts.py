"""Fingerprints, deterministic bytes, and a reader that trusts nothing it has not checked."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend import artifact_writer, artifacts
from backend.artifact_writer import ArtifactWriter, parquet_bytes, replacing, write_file
from backend.artifacts import (
    MANIFEST_NAME,
    UNFINGERPRINTED,
    Artifact,
    canonical_json,
    file_fingerprint,
    fingerprint,
    map_parquet,
    read_parquet,
    tree_fingerprint,
)
from backend.errors import ArtifactDamaged, ArtifactError, ArtifactMissing, ArtifactStale
from backend.types import HookPoint, Split

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def written(folder: Path, **extra: Any) -> Artifact:
    """A small artifact with a table, an array, a document and free bytes."""
    writer = ArtifactWriter(folder, "toy", 2, {"k": 4}, {"above": "a" * 64}, command="iconoscope run toy --out here")
    writer.write_table("rows", pa.table({"feature": [1, 2, 3], "text": ["a", None, "c"]}))
    writer.write_array("vectors", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.write_json("meta", {"n": 3, "title": "größer"})
    writer.write_bytes("sub/picture.webp", b"RIFFxxxxWEBP")
    return writer.commit({"failures": {"empty answer": 2}, "notes": {"seconds": 1}, **extra})


# ------------------------------------------------------------------------------------------------- fingerprints


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5))
def test_fingerprint_ignores_key_order(payload: dict[str, Any]) -> None:
    backwards = dict(reversed(list(payload.items())))
    assert fingerprint(payload) == fingerprint(backwards)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5), st.sampled_from(sorted(UNFINGERPRINTED)), JSON)
def test_fingerprint_ignores_runtime_fields_at_every_depth(payload: dict[str, Any], name: str, value: object) -> None:
    clean = {key: item for key, item in payload.items() if key not in UNFINGERPRINTED}
    assert fingerprint(clean) == fingerprint({**clean, name: value})
    assert fingerprint({"stage": clean}) == fingerprint({"stage": {**clean, name: value}})


@given(JSON, JSON)
def test_fingerprint_tells_payloads_apart(one: object, other: object) -> None:
    same = canonical_json({"x": one}) == canonical_json({"x": other})
    assert (fingerprint({"x": one}) == fingerprint({"x": other})) == same


def test_fingerprint_of_a_known_payload_stays_what_it_was() -> None:
    """Frozen: a change here makes every artifact in the world stale."""
    payload = {"b": [1, 2.5, None], "a": {"é": "x", "device": "cuda"}, "split": Split.SCORE, "n": np.int64(3)}
    assert canonical_json(payload) == '{"a":{"é":"x"},"b":[1,2.5,null],"n":3,"split":"score"}'
    assert fingerprint(payload) == "e981dc3f7fa4612e34aed4e563903be364f7cb504dd84ae65e33bd160dd02fb5"


def test_dataclasses_and_tuples_have_a_canonical_form() -> None:
    assert canonical_json({"h": HookPoint(layer=4), "t": (1, 2)}) == (
        '{"h":{"layer":4,"stream":"residual","tower":"vision"},"t":[1,2]}'
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_fingerprint_refuses_numbers_without_json(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        fingerprint({"x": value})


@pytest.mark.parametrize("value", [{1, 2}, Path("/somewhere"), b"bytes", object()])
def test_fingerprint_refuses_what_has_no_stable_text(value: object) -> None:
    with pytest.raises(TypeError, match="no canonical form"):
        fingerprint({"x": value})


def test_tree_fingerprint_depends_on_names_and_bytes_only(tmp_path: Path) -> None:
    def tree(name: str, files: Mapping[str, str]) -> str:
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tree_fingerprint(tmp_path / name, ("**/*.json", "*.txt"))

    base = {"a.json": "1", "sub/b.json": "2", "c.txt": "3", "ignored.bin": "4", ".hidden.json": "5"}
    first = tree("one", base)
    assert first == tree("two", dict(reversed(base.items())))
    assert first == tree("three", {**base, "ignored.bin": "other", ".hidden.json": "other"})
    assert first != tree("four", {**base, "a.json": "other"})
    assert first != tree("five", {"z.json": "1", "sub/b.json": "2", "c.txt": "3"})
    with pytest.raises(ArtifactMissing):
        tree_fingerprint(tmp_path / "nowhere")


# ----------------------------------------------------------------------------------------------- reading, writing


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written(tmp_path)
    artifact = Artifact.open(tmp_path, kind="toy")
    assert artifact.table("rows").to_pydict() == {"feature": [1, 2, 3], "text": ["a", None, "c"]}
    assert artifact.array("vectors").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert artifact.json("meta") == {"n": 3, "title": "größer"}
    assert artifact.path("sub/picture.webp").read_bytes() == b"RIFFxxxxWEBP"
    manifest = artifact.manifest
    assert manifest.files["rows.parquet"].rows == 3 and manifest.files["meta.json"].rows is None
    assert manifest.failures == {"empty answer": 2} and manifest.notes == {"seconds": 1}
    assert manifest.inputs["config"] == {"k": 4} and manifest.inputs["upstream"] == {"above": "a" * 64}
    assert manifest.files["rows.parquet"].sha256 == file_fingerprint(tmp_path / "rows.parquet")
    assert artifact.has("rows") and artifact.has("meta.json") and not artifact.has("nothing")


def test_equal_rows_give_equal_bytes_whatever_chunks_and_metadata() -> None:
    whole = pa.table({"a": list(range(10)), "t": [f"text {i % 3}" for i in range(10)]})
    parts = pa.concat_tables([whole.slice(0, 3), whole.slice(3, 4), whole.slice(7)])
    described = whole.replace_schema_metadata({"made": "yesterday"})
    assert parquet_bytes(whole) == parquet_bytes(parts) == parquet_bytes(described)
    assert parquet_bytes(whole) != parquet_bytes(whole.slice(0, 9))
    assert pq.read_table(pa.BufferReader(parquet_bytes(parts))).equals(whole)


def test_two_artifacts_of_equal_content_differ_in_nothing_but_the_time(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one"), written(tmp_path / "two")
    assert one.manifest.files == two.manifest.files and one.fingerprint == two.fingerprint


def test_shards_are_read_in_manifest_order(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path, "toy", 1, {}, {})
    for key, value in (("b", 1), ("a", 2), ("c", 3)):
        writer.write_table("rows", pa.table({"value": [value]}), shard=key)
        writer.finish_shard(key)
    artifact = writer.commit(shards=("b", "a"))
    assert artifact.table("rows")["value"].to_pylist() == [1, 2]
    assert not any(name.startswith("shards/c") for name in artifact.manifest.files)
    assert writer.read_shards("rows", ["c", "a"])["value"].to_pylist() == [3, 2]


def test_shard_states(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path, "toy", 1, {}, {})
    assert writer.shard_state("a") == "absent"
    writer.write_json("x", 1, shard="a")
    assert writer.shard_state("a") == "absent", "files without a sidecar are half a shard"
    writer.finish_shard("a")
    assert writer.shard_state("a") == "done"
    writer.path("x.json", "a").write_text("2\n")
    assert writer.shard_state("a") == "damaged" and writer.shard_state("a", verify=False) == "done"
    writer.retire_shard("a")
    assert writer.shard_state("a") == "retired" and not writer.has("x.json", "a")
    writer.drop_shard("a")
    assert writer.shard_state("a") == "absent"


def test_a_dropped_shard_takes_what_a_killed_writer_had_begun_and_nothing_of_others(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path, "toy", 1, {}, {})
    for key in ("items-1", "1"):
        writer.write_json("x", 1, shard=key)
    shards = writer.path("x.json", "1").parents[1]
    begun = shards / ".tmp-4711-1.json"
    others = shards / ".tmp-4711-items-1.json"
    for path in (begun, others, shards / "1" / ".tmp-4711-y.json"):
        path.write_text("{")
    writer.drop_shard("1")
    assert sorted(path.name for path in shards.iterdir()) == [others.name, "items-1"]


def test_other_libraries_write_through_a_temporary_name(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path, "toy", 1, {}, {})
    writer.write_with("index.faiss", lambda path: path.write_bytes(b"index"))
    writer.write_tree("sae", lambda folder: (folder / "cfg.json").write_text("{}"))
    assert sorted(writer.commit().manifest.files) == ["index.faiss", "sae/cfg.json"]
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_failing_writer_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    write_file(tmp_path / "x.json", b"old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "x.json") as temporary:
        temporary.write_bytes(b"half of the n")
        raise RuntimeError("killed here")
    assert (tmp_path / "x.json").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_sweep_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path, "toy", 1, {}, {})
    (tmp_path / "shards").mkdir()
    (tmp_path / ".tmp-1-x.json").write_bytes(b"")
    (tmp_path / "shards" / ".tmp-2-tree").mkdir()
    writer.write_json("kept", 1)
    writer.sweep()
    assert sorted(writer.commit().manifest.files) == ["kept.json"] and not list(tmp_path.rglob(".tmp-*"))


def test_objects_and_nan_are_refused(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path, "toy", 1, {}, {})
    with pytest.raises(ValueError, match="pickle"):
        writer.write_array("objects", np.array([object()]))
    with pytest.raises(ValueError, match="JSON compliant"):
        writer.write_json("nan", {"value": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    writer = ArtifactWriter(tmp_path, "toy", 1, {}, {})
    writer.write_json("first", 1)

    def full(path: Path) -> None:
        raise OSError(number, "no space")

    monkeypatch.setattr(artifact_writer, "_sync", full)
    with pytest.raises(ArtifactError, match=r"The disk is full: .*second\.json"):
        writer.write_json("second", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "first.json"]


def test_other_os_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError) as caught:
        write_file(tmp_path / "file" / "x.json", b"1")
    assert not isinstance(caught.value, ArtifactError)


def test_repeated_texts_may_come_as_dictionaries_and_schemas_without_rows(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path, "toy", 1, {}, {})
    table = pa.table({"word": ["a", "b", "a", None], "n": [1, 2, 3, 4]})
    writer.write_table("words", table)
    artifact = writer.commit()
    found = artifact.table("words", ["word", "absent"])
    assert pa.types.is_dictionary(found.schema.field("word").type) and found["word"].to_pylist() == [
        "a",
        "b",
        "a",
        None,
    ]
    assert artifact.table("words").equals(table) and artifact.schema("words").equals(table.schema)


@pytest.mark.parametrize("n_rows", [0, 1, 1000])
def test_a_mapped_table_is_the_one_that_is_read(tmp_path: Path, n_rows: int) -> None:
    values = pa.array([[row % 7 / 8] * 5 for row in range(n_rows)], pa.list_(pa.float16()))
    texts = pa.array([f"text {row // 100}" for row in range(n_rows)], pa.string())
    path = tmp_path / "grids.parquet"
    # Several row groups, whose dictionaries differ.
    pq.write_table(pa.table({"text": texts, "grid": values}), path, row_group_size=150)
    for dictionaries in ((), ("text",)):
        mapped, read = map_parquet(path, dictionaries), read_parquet(path, dictionaries)
        assert mapped.schema == read.schema
        assert mapped.equals(read)
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ArtifactDamaged, match="not a readable table"):
        map_parquet(path)


def test_a_table_is_read_where_there_is_no_room_to_map_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "few.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts.tempfile, "TemporaryFile", full)
    assert map_parquet(path).equals(read_parquet(path))


def test_lists_of_halves_have_no_dictionary_and_come_back_exactly(tmp_path: Path) -> None:
    halves = pa.array([np.array([0, 1.5, -2], np.float16), np.zeros(2, np.float16)], pa.list_(pa.float16()))
    table = pa.table({"name": ["x", "x"], "grid": halves, "words": [["a"], ["a", "b"]]})
    data = parquet_bytes(table)
    columns = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    used = {columns.column(at).path_in_schema: columns.column(at).has_dictionary_page for at in range(3)}
    assert used == {"name": True, "grid.list.element": False, "words.list.element": True}
    assert pq.read_table(io.BytesIO(data)).equals(table)


# ------------------------------------------------------------------------------------------------------ bad input


def test_missing_and_unfinished_artifacts_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="There is no artifact at"):
        Artifact.open(tmp_path / "nowhere")
    ArtifactWriter(tmp_path, "toy", 1, {}, {}, command="iconoscope run toy --out here")
    with pytest.raises(ArtifactMissing, match=r"unfinished artifact.*iconoscope run toy --out here"):
        Artifact.open(tmp_path)


@pytest.mark.parametrize("name", ["rows.parquet", "vectors.npy", "meta.json", "sub/picture.webp"])
def test_any_damaged_file_is_named_with_the_mending_command(tmp_path: Path, name: str) -> None:
    written(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(bytes(data))
    with pytest.raises(ArtifactDamaged, match=rf"{name} is damaged: its SHA-256.*iconoscope run toy --out here"):
        Artifact.open(tmp_path)
    Artifact.open(tmp_path, verify=False)
    (tmp_path / name).write_bytes(bytes(data[:-1]))
    with pytest.raises(ArtifactDamaged, match=rf"{name} is damaged: \d+ bytes where"):
        Artifact.open(tmp_path, verify=False)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactDamaged, match=f"{name} is missing"):
        Artifact.open(tmp_path, verify=False)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": "x"}', '{"schema_version": 1, "files": 3}'])
def test_unreadable_manifest_is_damage(tmp_path: Path, text: str) -> None:
    written(tmp_path)
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(ArtifactDamaged, match="not a readable manifest"):
        Artifact.open(tmp_path)


def test_other_schema_version_and_kind_are_stale(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(ArtifactStale, match="'toy' artifact where 'atlas' was expected"):
        Artifact.open(tmp_path, kind="atlas")
    path = tmp_path / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(ArtifactStale, match="schema version 99"):
        Artifact.open(tmp_path)


def test_damage_that_appears_after_opening_is_still_our_error(tmp_path: Path) -> None:
    artifact = written(tmp_path)
    for name in ("rows.parquet", "vectors.npy", "meta.json"):
        (tmp_path / name).write_bytes(b"garbage")
    with pytest.raises(ArtifactDamaged, match=r"rows\.parquet is not a readable table"):
        artifact.table("rows")
    with pytest.raises(ArtifactDamaged, match=r"vectors\.npy is not a NumPy array"):
        artifact.array("vectors")
    with pytest.raises(ArtifactDamaged, match=r"meta\.json is not JSON"):
        artifact.json("meta")
    with pytest.raises(ArtifactDamaged, match="holds no table 'nothing'"):
        artifact.table("nothing")
    with pytest.raises(ArtifactDamaged, match="holds no file"):
        artifact.path("nothing.bin")


def test_an_array_with_a_pickle_inside_is_never_loaded(tmp_path: Path) -> None:
    writer = ArtifactWriter(tmp_path, "toy", 1, {}, {})
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object))
    artifact = writer.commit()
    with pytest.raises(ArtifactDamaged):
        artifact.array("evil")
