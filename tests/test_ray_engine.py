"""The Ray engine on two real workers: the local runner's bytes, deaths that cost one shard, errors, a clean stop."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.errors import DataError, EngineError, EngineUnreachable
from precompute.engines import EngineOptions, LocalEngine, open_engine
from precompute.engines import cluster as ray_cluster
from precompute.engines.leases import MAX_DEATHS, Leases
from precompute.engines.ray import RayEngine
from precompute.engines.worker import as_error, described
from precompute.progress import SilentProgress
from precompute.recipe import Runtime
from precompute.runner import RunStopped, run_recipe
from precompute.stage import load_stages
from tests.builders_pipeline import RUNTIME, planted_recipe, planted_run, planted_subject
from tests.builders_ray import LOADER, deadly_stages, order_deaths
from tests.test_pipeline import contents
from tests.toy_pipeline import toy_recipe


class Notes(SilentProgress):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    with RayEngine(RUNTIME, n_workers=2, loader=LOADER) as started:
        yield started


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run as the local engine leaves it."""
    out = tmp_path_factory.mktemp("local") / "out"
    run_recipe(toy_recipe(), out, RUNTIME, SilentProgress(), deadly_stages())
    return out


def run_toy(out: Path, engine: RayEngine | None) -> Notes:
    notes = Notes()
    run_recipe(toy_recipe(), out, RUNTIME, notes, deadly_stages(), engine=engine)
    return notes


def events(out: Path, stage: str, event: str) -> list[dict[str, Any]]:
    log = next((out / stage).iterdir()) / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["event"] == event]


def leftovers(out: Path) -> list[str]:
    return sorted(path.name for path in out.rglob(".tmp-*"))


# ------------------------------------------------------------------------------------------- without a cluster


class OneMortalWorker:
    """Ray as far as the engine sees it, on a clock of its own: every shard takes 1,000 s, and the first worker dies."""

    class RayError(Exception):
        pass

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self) -> None:
        self.now_s = 0.0
        self.n_workers = 0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def remote(self, _class: type) -> Any:
        def start() -> Any:
            self.n_workers += 1
            number = self.n_workers
            hello = SimpleNamespace(remote=lambda: ("hello", number))
            return SimpleNamespace(hello=hello, compute=SimpleNamespace(remote=lambda _job, key: (key, number)))

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=start))

    def wait(self, pending: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
        return pending, []

    def get(self, reference: tuple[str, int]) -> dict[str, Any]:
        what, number = reference
        if what == "hello":
            return {"pid": number, "node": "here"}
        self.now_s += 1000.0
        if number == 1:
            raise self.RayError("killed")
        return {"events": [], "notes": [], "seconds": 1000.0, "peak_memory_bytes": 0}

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(RUNTIME.workers)}


def test_the_only_worker_may_die_long_after_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its successor has as long to start as it had itself."""
    ray = OneMortalWorker()
    monkeypatch.setattr("precompute.engines.ray.time", ray)
    engine, done, notes = RayEngine(RUNTIME, n_workers=1), [], Notes()
    monkeypatch.setattr(engine, "_ray", ray)
    writer = SimpleNamespace(drop_shard=lambda key: None, shard_state=lambda key: "done")
    context: Any = SimpleNamespace(
        progress=notes, log=SimpleNamespace(write=lambda *_, **__: None), writer=writer, out_dir=tmp_path
    )
    engine._run_group(context, {}, ["a", "b"], lambda: done.append(1))
    assert len(done) == 2 and ray.n_workers == 2
    assert any("another worker computes it again" in line for line in notes.lines)


def test_leases_hand_out_each_shard_once_and_take_back_what_a_death_cost() -> None:
    leases = Leases(["a", "b"])
    assert [leases.next_key(), leases.next_key(), leases.next_key()] == ["a", "b", None]
    assert leases.died("a", "killed") == 1 and leases.waiting
    assert leases.next_key() == "a" and not leases.waiting
    for _ in range(MAX_DEATHS - 1):
        leases.died("a", "out of memory.")
    assert leases.next_key() is None, "a shard that kills its workers is not handed out for ever"
    assert isinstance(leases.error, EngineError) and "3 workers died on shard a" in str(leases.error)


def test_errors_travel_as_text() -> None:
    ours = as_error(described(DataError("no picture")), "shard a")
    assert type(ours) is DataError and str(ours) == "no picture"
    full = as_error(described(OSError(28, "No space left on device")), "shard a")
    assert isinstance(full, OSError) and full.errno == 28
    try:
        raise ZeroDivisionError("x")
    except ZeroDivisionError as error:
        bug = as_error(described(error), "shard a")
    assert type(bug) is RuntimeError and "test_ray_engine.py" in str(bug) and "shard a" in str(bug)


def test_phases_put_first_what_others_read() -> None:
    _, _, explain, score, _ = load_stages()
    assert explain.phases(["selection", "features-0", "features-8"]) == [["selection"], ["features-0", "features-8"]]
    assert score.phases(["truth", "texts-0", "features-0"]) == [["truth", "texts-0"], ["features-0"]]
    train = deadly_stages()[0]
    assert train.phases(["step-1", "step-2"]) == [["step-1"], ["step-2"]]


def test_the_local_engine_is_the_default() -> None:
    assert isinstance(open_engine(EngineOptions(), Runtime()), LocalEngine)


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_unreachable_head_is_said_before_ray_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setattr(ray_cluster.subprocess, "run", lambda *_, **__: pytest.fail("Ray would wait"))
    with (
        pytest.raises(EngineUnreachable, match=rf"No Ray head answers at {address} .*ray start --head"),
        open_engine(EngineOptions(engine="ray", ray_address=address), RUNTIME),
    ):
        pytest.fail("there is no head")


def test_a_server_that_is_no_ray_head_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would wait for minutes and then end the whole process; a child process tries first."""
    monkeypatch.setattr(ray_cluster, "REHEARSAL_S", 2.0)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(EngineUnreachable, match=r"no answer from Ray within 2 s.*ray start --head"):
            ray_cluster.require_head(address)


@pytest.mark.parametrize(
    ("address", "said"),
    [("nowhere", "give HOST:PORT"), ("ray://10.0.0.1:10001", r"--ray-address 10\.0\.0\.1:6379")],
)
def test_addresses_that_cannot_be_used_say_what_to_give(address: str, said: str) -> None:
    with pytest.raises(EngineUnreachable, match=said):
        ray_cluster.require_head(address)


# ------------------------------------------------------------------------------------------------ two workers


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_the_local_run(tmp_path: Path, local: Path, engine: RayEngine) -> None:
    notes = run_toy(tmp_path, engine)
    assert contents(tmp_path) == contents(local)
    done = events(tmp_path, "ranges", "shard finished")
    assert sorted(one["shard"] for one in done) == [f"items-{start:04d}" for start in range(0, 600, 100)]
    assert len(events(tmp_path, "ranges", "range computed")) == 6 and "computed items-0100" in notes.lines
    again = run_toy(tmp_path, engine)
    assert "nothing to do" in again.lines[-1]


@pytest.mark.slow
def test_a_killed_worker_costs_only_its_shard(tmp_path: Path, local: Path, engine: RayEngine) -> None:
    order_deaths(tmp_path, "items-0200", MAX_DEATHS - 1)
    notes = run_toy(tmp_path, engine)
    said = [line for line in notes.lines if "died while it computed shard items-0200" in line]
    assert len(said) == MAX_DEATHS - 1 and "another worker computes it again" in said[0]
    assert contents(tmp_path) == contents(local)
    assert len(events(tmp_path, "ranges", "range computed")) == 6, "every other shard was computed once"
    died = events(tmp_path, "ranges", "worker died")
    assert [one["shard"] for one in died] == ["items-0200"] * (MAX_DEATHS - 1)
    assert not leftovers(tmp_path)


@pytest.mark.slow
def test_a_shard_that_kills_three_workers_is_given_up(tmp_path: Path, local: Path, engine: RayEngine) -> None:
    order_deaths(tmp_path, "items-0300", MAX_DEATHS)
    with pytest.raises(EngineError, match=r"3 workers died on shard items-0300.*run the same command again"):
        run_toy(tmp_path, engine)
    before = [one["first"] for one in events(tmp_path, "ranges", "range computed")]
    assert "items-0000" in before and "items-0300" not in before
    run_toy(tmp_path, None)
    assert contents(tmp_path) == contents(local), "the next run, here a local one, goes on from what was finished"
    computed = [one["shard"] for one in events(tmp_path, "ranges", "shard finished")]
    assert sorted(computed) == sorted(set(computed)), "no finished shard was computed twice"


@pytest.mark.slow
def test_an_error_in_a_shard_is_raised_here(tmp_path: Path, local: Path, engine: RayEngine) -> None:
    (tmp_path / "fail-items-0100").touch()
    with pytest.raises(DataError, match="shard items-0100 cannot be read"):
        run_toy(tmp_path, engine)
    (tmp_path / "fail-items-0100").unlink()
    run_toy(tmp_path, engine)
    assert contents(tmp_path) == contents(local)


@pytest.mark.slow
def test_stopping_ends_at_once_and_leaves_nothing_half_done(tmp_path: Path, local: Path, engine: RayEngine) -> None:
    """Ctrl-C while both workers are busy; the cluster lives on, the workers do not."""
    (tmp_path / "stop-items-0200").write_text(str(os.getpid()))
    with pytest.raises(RunStopped):
        run_toy(tmp_path, engine)
    shards = next((tmp_path / "ranges").iterdir()) / "shards"
    assert not (shards / "items-0200").exists() and not leftovers(tmp_path)
    (tmp_path / "stop-items-0200").unlink()
    run_toy(tmp_path, None)
    assert contents(tmp_path) == contents(local)


@pytest.mark.slow
def test_a_folder_that_workers_do_not_share_is_refused(
    tmp_path: Path, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("precompute.engines.ray.VISIBLE_S", 0.2)
    monkeypatch.setattr("precompute.engines.ray.job_of", _elsewhere(tmp_path / "another"))
    with pytest.raises(EngineError, match="filesystem that all nodes share"):
        run_toy(tmp_path / "out", engine)


def _elsewhere(folder: Path) -> Any:
    """Jobs whose workers write into another folder, as they would on a node with a disk of its own."""
    from precompute.engines.job import job_of

    return lambda *given: {**job_of(*given), "out_dir": str(folder)}


@pytest.mark.slow
def test_a_node_that_would_compute_something_else_is_refused(
    tmp_path: Path, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from precompute.engines.job import job_of

    def other(*given: Any) -> dict[str, Any]:
        job = job_of(*given)
        job["recipe"]["harvest"]["n_exemplars"] = 7
        return job

    monkeypatch.setattr("precompute.engines.ray.job_of", other)
    with pytest.raises(EngineError, match=r"would compute another ranges: .*n_exemplars"):
        run_toy(tmp_path, engine)


@pytest.mark.slow
def test_the_five_stages_give_the_bytes_of_the_local_run(tmp_path: Path, engine: RayEngine) -> None:
    whole = planted_run(n_stages=5)["atlas"].folder.parents[1]
    run_recipe(planted_recipe(planted_subject()), tmp_path, RUNTIME, SilentProgress(), engine=engine)
    assert contents(tmp_path) == contents(whole)
    for stage in ("harvest", "explain", "score", "atlas"):
        workers = {one["worker"] for one in events(tmp_path, stage, "shard finished")}
        assert workers, f"{stage} ran in the driver"
