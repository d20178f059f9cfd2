"""The runner: resume, kill, damage, locks, disk full, and what status says about it."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend import artifact_writer
from backend.artifacts import MANIFEST_NAME, Artifact
from backend.errors import ArtifactError, ArtifactStale
from precompute.progress import LineProgress, SilentProgress, TerminalProgress, duration
from precompute.recipe import Runtime
from precompute.runner import RunStopped, locked, run_recipe
from precompute.stage import STAGE_NAMES, StageContext, load_stages, plan
from precompute.status import changes_since, diff, require_current, status
from tests.source_tree import ROOT
from tests.toy_pipeline import Ranges, Total, Train, table_bytes, toy_recipe, toy_stages


class Notes(SilentProgress):
    """Keeps what the runner says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


def run(out_dir: Path, notes: Notes | None = None, **changes: Any) -> dict[str, Artifact]:
    return dict(run_recipe(toy_recipe(**changes), out_dir, Runtime(), notes or Notes(), stages=toy_stages()))


@pytest.fixture(scope="module", autouse=True)
def no_sync() -> Iterator[None]:
    """Syncing guards against power cuts, which no test here causes; it would only make them slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifact_writer, "_sync", lambda path: None)
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of a run that nothing disturbed."""
    out_dir = tmp_path_factory.mktemp("reference")
    run(out_dir)
    return table_bytes(out_dir)


def test_run_writes_every_stage_and_says_what_it_did(tmp_path: Path) -> None:
    notes = Notes()
    artifacts = run(tmp_path, notes)
    assert list(artifacts) == ["train", "ranges", "total"]
    assert artifacts["ranges"].table("squares").num_rows == 600
    assert artifacts["ranges"].table("squares")["item"].to_pylist() == list(range(600))
    assert artifacts["ranges"].manifest.failures == {"negative": 2}
    assert artifacts["train"].manifest.notes == {"steps": 5}
    assert any("failures: negative 2" in line for line in notes.lines)
    latest = json.loads((tmp_path / "latest.json").read_text())
    assert latest == {name: f"{name}/{item.fingerprint[:12]}" for name, item in artifacts.items()}


def test_checkpoints_are_gone_once_training_is_finished(tmp_path: Path) -> None:
    folder = run(tmp_path)["train"].folder
    assert not (folder / "shards").exists()
    assert (folder / "weights.parquet").is_file()


def test_log_holds_shards_seconds_and_peak_memory(tmp_path: Path) -> None:
    folder = run(tmp_path)["ranges"].folder
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["stage started", *["shard finished"] * 6, "stage finished"]
    assert all(event["peak_memory_bytes"] > 1_000_000 for event in events)


def test_second_run_does_nothing_and_says_so(tmp_path: Path, reference: dict[str, bytes]) -> None:
    run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    notes = Notes()
    run(tmp_path, notes)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before == after
    assert notes.lines == [f"toy: nothing to do, all 3 stages are finished in {tmp_path}."]
    assert table_bytes(tmp_path) == reference


def test_runtime_does_not_change_fingerprints(tmp_path: Path) -> None:
    run(tmp_path)
    notes = Notes()
    other = Runtime(device="cuda:7", dtype="bfloat16", images_per_batch=1, workers=9)
    run_recipe(toy_recipe(), tmp_path, other, notes, stages=toy_stages())
    assert "nothing to do" in notes.lines[-1]


@pytest.mark.parametrize("stop_at", ["step-003", "items-0300"])
def test_stopped_run_goes_on_with_the_missing_shards_only(
    tmp_path: Path, reference: dict[str, bytes], stop_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    for kind in (Train, Ranges):
        original = kind.run_shard

        def counted(self: Any, context: StageContext, key: str, original: Any = original) -> None:
            if key == stop_at and key not in ran:
                ran.append(key)
                raise RunStopped("SIGINT")
            ran.append(key)
            original(self, context, key)

        monkeypatch.setattr(kind, "run_shard", counted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    run(tmp_path)
    assert [key for key in ran if ran.count(key) > 1] == [stop_at, stop_at]
    assert table_bytes(tmp_path) == reference


def test_sigkill_at_many_writes_ends_in_the_same_bytes(tmp_path: Path, reference: dict[str, bytes]) -> None:
    """Each run goes on from the one before and is killed at another write, before or after the rename."""
    writes = [1, 2, 3, 4, 5, 8, 9, 12, 13, 10, 17, 14, 9, 20, 6, 7]
    command = [sys.executable, "-m", "tests.toy_pipeline", str(tmp_path), "kill", *map(str, writes)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 12, "most runs finished before they were killed: the test shows too little"
    run(tmp_path)
    assert table_bytes(tmp_path) == reference
    assert not list(tmp_path.rglob(".tmp-*"))


def _victim(out_dir: Path, pause_s: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.toy_pipeline", str(out_dir), "pause", str(pause_s)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def _wait_for_log(out_dir: Path, process: subprocess.Popen[bytes], n_events: int) -> None:
    """Until the victim's logs hold ``n_events`` more lines than before, or it has ended."""
    before, deadline = _n_events(out_dir), time.monotonic() + 240
    while _n_events(out_dir) < before + n_events and process.poll() is None:
        assert time.monotonic() < deadline, "the victim does not get on"
        time.sleep(0.005)


def _n_events(out_dir: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out_dir.rglob("log.jsonl"))


def test_sigterm_stops_cleanly(tmp_path: Path, reference: dict[str, bytes]) -> None:
    process = _victim(tmp_path, pause_s=1.0)
    _wait_for_log(tmp_path, process, n_events=1)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode != 0 and b"RunStopped" in stderr
    assert not list(tmp_path.rglob(".tmp-*"))
    run(tmp_path)
    assert table_bytes(tmp_path) == reference


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "sidecar"])
def test_damaged_shard_is_recomputed_not_trusted(tmp_path: Path, reference: dict[str, bytes], harm: str) -> None:
    folder = run(tmp_path)["ranges"].folder
    (folder / MANIFEST_NAME).unlink()  # as if killed before the end
    victim = folder / "shards" / "items-0200" / "squares.parquet"
    _harm(victim if harm != "sidecar" else folder / "shards" / "items-0200.json", harm)
    notes = Notes()
    run(tmp_path, notes)
    assert any("items-0200 is damaged" in line for line in notes.lines)
    assert table_bytes(tmp_path) == reference


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_damaged_finished_stage_is_mended_from_its_sound_shards(
    tmp_path: Path, reference: dict[str, bytes], harm: str
) -> None:
    folder = run(tmp_path)["ranges"].folder
    _harm(folder / "shards" / "items-0400" / "cubes.npy", harm)
    notes = Notes()
    run(tmp_path, notes)
    shards = [line for line in (folder / "log.jsonl").read_text().splitlines() if "shard finished" in line]
    assert len(shards) == 7, "one shard was computed twice, the other five once"
    assert table_bytes(tmp_path) == reference


def _harm(path: Path, harm: str) -> None:
    data = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(bytes(data[: len(data) // 2]))
    else:
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(bytes(data))


def test_damaged_checkpoint_takes_the_later_ones_with_it(tmp_path: Path, reference: dict[str, bytes]) -> None:
    stages = toy_stages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Train, "finish", lambda self, context: (_ for _ in ()).throw(RunStopped("SIGINT")))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    folder = tmp_path / plan(toy_recipe(), stages)[0].folder_name
    _harm(folder / "shards" / "step-004" / "state.parquet", "flip")
    run(tmp_path)
    assert table_bytes(tmp_path) == reference


def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    process = _victim(tmp_path, pause_s=1.0)
    try:
        _wait_for_log(tmp_path, process, n_events=1)
        with pytest.raises(ArtifactError, match=rf"Another run \(process {process.pid}\)"):
            run(tmp_path)
    finally:
        process.kill()
        process.communicate()
    with locked(tmp_path):  # the kernel freed the killed process's lock
        pass


def test_full_disk_is_a_clear_error_and_loses_nothing(
    tmp_path: Path, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]

    def full(path: Path) -> None:
        calls[0] += 1
        if calls[0] > 60:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifact_writer, "_sync", full)
    with pytest.raises(ArtifactError, match=r"The disk is full.*run the same command again"):
        run(tmp_path)
    assert not list(tmp_path.rglob(".tmp-*"))
    done = list(tmp_path.rglob("shards/*.json")) + list(tmp_path.rglob(MANIFEST_NAME))
    assert done, "the disk filled up before anything was done: the test shows nothing"
    monkeypatch.setattr(artifact_writer, "_sync", lambda path: None)
    run(tmp_path)
    assert table_bytes(tmp_path) == reference


def test_status_from_missing_to_done(tmp_path: Path) -> None:
    def states() -> list[str]:
        return [item.sentence for item in status(toy_recipe(), tmp_path, toy_stages())]

    assert states() == ["not started"] * 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ranges, "finish", lambda self, context: (_ for _ in ()).throw(RunStopped("SIGINT")))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    ranges = tmp_path / plan(toy_recipe(), toy_stages())[1].folder_name
    (ranges / "shards" / "items-0500.json").unlink()
    assert states() == ["done", "5 of 6 shards", "not started"]
    run(tmp_path)
    assert states() == ["done"] * 3


def test_status_names_the_field_that_made_each_stage_stale(tmp_path: Path) -> None:
    run(tmp_path)
    found = status(toy_recipe(sae__k=8, harvest__n_exemplars=6), tmp_path, toy_stages())
    assert [item.state for item in found] == ["stale"] * 3
    assert found[0].changes == ("sae.k: 4 -> 8",)
    assert found[1].changes == ("train.sae.k: 4 -> 8", "harvest.n_exemplars: 4 -> 6")
    assert found[2].changes == ("ranges.harvest.n_exemplars: 4 -> 6", "train.sae.k: 4 -> 8")


def test_status_names_a_new_code_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    monkeypatch.setattr(Ranges, "version", 2)
    found = status(toy_recipe(), tmp_path, toy_stages())
    assert [item.state for item in found] == ["done", "stale", "stale"]
    assert found[1].changes == ("version: 1 -> 2",)
    assert found[2].changes == ("ranges.version: 1 -> 2",)


def test_status_shows_damage(tmp_path: Path) -> None:
    folder = run(tmp_path)["total"].folder
    _harm(folder / "total.parquet", "flip")
    assert status(toy_recipe(), tmp_path, toy_stages())[2].state == "done", "sizes alone do not show a flipped byte"
    damaged = status(toy_recipe(), tmp_path, toy_stages(), verify=True)[2]
    assert damaged.state == "damaged" and "total.parquet" in damaged.sentence


def test_require_current_accepts_what_fits_and_names_what_does_not(tmp_path: Path) -> None:
    artifact = run(tmp_path)["total"]
    require_current(artifact, toy_recipe(), toy_stages())
    with pytest.raises(ArtifactStale, match=r"train\.sae\.seed: 3 -> 4.*iconoscope run toy"):
        require_current(artifact, toy_recipe(sae__seed=4), toy_stages())


def test_another_recipe_gets_its_own_folders(tmp_path: Path) -> None:
    first, second = run(tmp_path)["total"].folder, run(tmp_path, sae__k=8)["total"].folder
    assert first != second and first.is_dir() and second.is_dir()
    notes = Notes()
    run(tmp_path, notes)
    assert "nothing to do" in notes.lines[-1]
    assert json.loads((tmp_path / "latest.json").read_text())["total"] == f"total/{first.name}"


def test_diff_lists_fields_with_both_values() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "d": "x"}
    now = {"a": {"b": 2, "c": [1, 2]}, "e": None}
    assert diff(before, now) == ["a.b: 1 -> 2", 'd: "x" -> (absent)', "e: (absent) -> null"]


def test_unexplained_upstream_change_is_still_named() -> None:
    item = plan(toy_recipe(), toy_stages())[1]
    older = {"inputs": {**item.inputs, "upstream": {"train": "0" * 64}, "lineage": {}}, "stage_version": 1}
    assert changes_since(older, item)[0].startswith("upstream.train:")


def test_a_shard_named_twice_is_our_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranges, "shards", lambda self, context: ["a", "a"])
    with pytest.raises(AssertionError, match="twice"):
        run(tmp_path)


def test_real_stages_declare_what_the_runner_needs() -> None:
    present = tuple(name for name in STAGE_NAMES if (ROOT / "precompute" / "stages" / f"{name}.py").is_file())
    if present != STAGE_NAMES:
        pytest.skip(f"only {', '.join(present) or 'no stage'} in this tree")
    for stage in load_stages():
        assert stage.version >= 1 and set(stage.upstream) <= set(STAGE_NAMES[: STAGE_NAMES.index(stage.name)])


def test_line_progress_tells_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    progress = LineProgress(every_s=0.0)
    with progress.stage("train", 4, 1) as advance:
        advance()
    assert "train: shards 2/4, about " in capsys.readouterr().err


def test_terminal_progress_nests_bars() -> None:
    progress = TerminalProgress()
    with progress.stage("train", 4, 0) as advance, progress.track("images", 10) as inner:
        inner(5)
        advance()
    with progress.track("no stage around it", 1) as alone:
        alone()


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")])
def test_duration_reads_like_speech(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_stages_of_the_toy_are_fresh_each_time() -> None:
    assert [type(stage) for stage in toy_stages()] == [Train, Ranges, Total]
