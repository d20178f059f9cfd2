"""The shared subject model: taken in turns, freed at once, never stuck. A fake session and events give the order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.catalogue import open_catalogue
from app.services import Services
from app.subject_sessions import MAX_SUBJECTS, Sessions
from app.subject_worker import Limits, SubjectWorkers, Waiting
from backend.errors import SubjectBusy, SubjectError, SubjectMissing, SubjectTimeout
from tests.builders_app import build_steerable_atlas
from tests.builders_atlas import BagEncoder
from tests.builders_subject import save_tiny_subject

PATIENCE_S = 30


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def atlas(name: str = "atlas") -> Any:
    """As much of an atlas as the worker looks at."""
    return SimpleNamespace(store=SimpleNamespace(artifact=SimpleNamespace(manifest=SimpleNamespace(fingerprint=name))))


def workers(
    limits: Limits | None = None, *, load: Any = None, devices: Any = None, clock: Any = None
) -> SubjectWorkers:
    """Workers whose session is the word ``session``."""
    return SubjectWorkers(
        limits=limits or Limits(burst=1000, pulse_s=3600),
        devices=devices or (lambda: ["cpu"]),
        loader=lambda: load or (lambda atlas, device: cast(Any, "session")),
        clock=clock or Clock(),
    )


class Gate:
    """A job that says its name when it has the model, then waits until it is let through."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.began = threading.Event()
        self.through = threading.Event()
        self.ended = threading.Event()

    def __call__(self, session: Any, should_stop: Callable[[], bool]) -> Iterator[str]:
        self.log.append(self.name)
        self.began.set()
        try:
            yield f"{self.name} 1"
            assert self.through.wait(PATIENCE_S)
            if not should_stop():
                yield f"{self.name} 2"
        finally:
            self.ended.set()


class Reader(threading.Thread):
    """Reads a run to its end, as a visitor's own thread does."""

    def __init__(self, frames: Iterator[Any]) -> None:
        super().__init__(daemon=True)
        self.frames = frames
        self.seen: list[Any] = []
        self.error: Exception | None = None
        self.joined = threading.Event()
        self.start()
        assert self.joined.wait(PATIENCE_S)

    def run(self) -> None:
        try:
            for frame in self.frames:
                self.seen.append(frame)
                self.joined.set()
        except (SubjectError, ZeroDivisionError) as error:
            self.error = error
        self.joined.set()

    def end(self) -> list[Any]:
        self.join(PATIENCE_S)
        assert not self.is_alive()
        return self.seen

    @property
    def places(self) -> list[int]:
        return [one.ahead for one in self.seen if isinstance(one, Waiting)]


# -------------------------------------------------------------------------------------------------- the worker


def test_a_run_tells_its_place_then_what_the_job_yields() -> None:
    def job(session: Any, should_stop: Callable[[], bool]) -> Iterator[Any]:
        yield session
        yield 2

    worker = workers()
    assert list(worker.run("a", atlas(), job)) == [Waiting(ahead=0, loading=True), "session", 2]
    assert list(worker.run("a", atlas(), job)) == [Waiting(ahead=0), "session", 2]
    assert worker.n_taken == 0


def test_places_are_told_at_once_and_whenever_they_change() -> None:
    log: list[str] = []
    worker, gates = workers(), {name: Gate(name, log) for name in ("a1", "a2", "a3", "b1", "c1")}
    first = Reader(worker.run("a", atlas(), gates["a1"]))
    assert gates["a1"].began.wait(PATIENCE_S)
    second = Reader(worker.run("a", atlas(), gates["a2"]))
    third = Reader(worker.run("a", atlas(), gates["a3"]))
    other = Reader(worker.run("b", atlas(), gates["b1"]))
    last = Reader(worker.run("c", atlas(), gates["c1"]))
    assert worker.n_taken == 5
    # c leaves before its turn.
    assert worker.stop("c") == 1
    assert last.end() == [Waiting(ahead=2)]
    for gate in gates.values():
        gate.through.set()
    assert first.end()[1:] == ["a1 1", "a1 2"]
    assert log[:2] == ["a1", "b1"]
    assert [reader.end()[-1] for reader in (second, third, other)] == ["a2 2", "a3 2", "b1 2"]
    assert log == ["a1", "b1", "a2", "a3"]
    assert other.places == [1, 0]
    # a2 was next, then b came before it, then c, who left again.
    assert second.places == [1, 2, 3, 2, 1, 0]
    assert worker.n_taken == 0


def test_stop_ends_the_running_job_at_its_next_frame_and_the_waiting_ones_at_once() -> None:
    log: list[str] = []
    worker, gates = workers(), [Gate(name, log) for name in ("a1", "a2", "b1")]
    running = Reader(worker.run("a", atlas(), gates[0]))
    assert gates[0].began.wait(PATIENCE_S)
    waiting = Reader(worker.run("a", atlas(), gates[1]))
    next_one = Reader(worker.run("b", atlas(), gates[2]))
    assert worker.stop("a") == 2
    assert waiting.end() == [Waiting(ahead=1), Waiting(ahead=2)]
    gates[0].through.set()
    assert running.end()[-1] == "a1 1"
    gates[2].through.set()
    assert next_one.end()[-1] == "b1 2"
    assert log == ["a1", "b1"]
    assert worker.stop("a") == 0


def test_a_reader_who_vanishes_gives_up_the_place_and_the_model() -> None:
    log: list[str] = []
    worker, gates = workers(), [Gate(name, log) for name in ("a1", "b1", "c1")]
    frames = worker.run("a", atlas(), gates[0])
    assert isinstance(next(frames), Waiting)
    assert next(frames) == "a1 1"
    queued = worker.run("b", atlas(), gates[1])
    assert next(queued) == Waiting(ahead=1)
    last = Reader(worker.run("c", atlas(), gates[2]))
    queued.close()
    frames.close()
    gates[0].through.set()
    gates[2].through.set()
    assert last.end()[-1] == "c1 2"
    assert last.places == [2, 1, 0]
    assert log == ["a1", "c1"]


def test_a_place_is_told_again_so_that_a_lost_reader_is_found() -> None:
    worker, gate = workers(Limits(pulse_s=0.001)), Gate("a", [])
    running = worker.run("a", atlas(), gate)
    while next(running) != "a 1":
        pass
    queued = worker.run("b", atlas(), Gate("b", []))
    assert [next(queued) for _ in range(5)] == [Waiting(ahead=1)] * 5
    queued.close()
    assert worker.n_taken == 1
    gate.through.set()
    # What the job said is said once.
    assert list(running) == ["a 2"]


def test_one_visitor_and_all_of_them_have_limits_with_words() -> None:
    limits = Limits(waiting_per_visitor=2, waiting_in_all=3, burst=100, pulse_s=3600)
    worker, gate = workers(limits), Gate("a", [])
    runs = [Reader(worker.run("a", atlas(), gate)) for _ in range(1)]
    assert gate.began.wait(PATIENCE_S)
    runs += [Reader(worker.run("a", atlas(), gate)) for _ in range(2)]
    with pytest.raises(SubjectBusy, match=r"2 of your own requests .* press Stop"):
        next(worker.run("a", atlas(), gate))
    runs.append(Reader(worker.run("b", atlas(), gate)))
    with pytest.raises(SubjectBusy, match=r"3 requests wait .* Try again"):
        next(worker.run("c", atlas(), gate))
    gate.through.set()
    for run in runs:
        assert run.end()[-1] == "a 2"


def test_too_many_requests_in_a_short_time_are_refused_until_later() -> None:
    clock = Clock()
    worker = workers(Limits(burst=2, refill_s=10, pulse_s=3600), clock=clock)

    def job(session: Any, should_stop: Callable[[], bool]) -> Iterator[int]:
        yield 1

    for _ in range(2):
        assert list(worker.run("a", atlas(), job))[-1] == 1
    with pytest.raises(SubjectBusy, match="Try again in 10 s"):
        list(worker.run("a", atlas(), job))
    clock.now = 10.0
    assert list(worker.run("a", atlas(), job))[-1] == 1


def test_a_job_that_takes_too_long_is_ended_with_words_and_what_it_said_so_far() -> None:
    clock = Clock()
    worker = workers(Limits(job_s=5, pulse_s=3600), clock=clock)

    def slow(session: Any, should_stop: Callable[[], bool]) -> Iterator[int]:
        for at in range(100):
            clock.now += 2
            yield at

    seen: list[Any] = []
    with pytest.raises(SubjectTimeout, match="5 s"):
        seen.extend(worker.run("a", atlas(), slow))
    frames = worker.run("a", atlas(), slow)
    next(frames)
    assert [next(frames), next(frames), next(frames)] == [0, 1, 2]
    with pytest.raises(SubjectTimeout):
        next(frames)
    assert worker.n_taken == 0


def test_an_error_of_a_job_reaches_its_visitor_and_nobody_else() -> None:
    def broken(session: Any, should_stop: Callable[[], bool]) -> Iterator[float]:
        yield 1.0
        yield 1 / 0

    worker = workers()
    broken_run = Reader(worker.run("a", atlas(), broken))
    broken_run.end()
    assert isinstance(broken_run.error, ZeroDivisionError)
    assert broken_run.seen[-1] == 1.0
    gate = Gate("b", [])
    gate.through.set()
    assert list(worker.run("b", atlas(), gate))[-1] == "b 2"


def test_a_failure_to_load_is_told_in_words_and_tried_again() -> None:
    answers = iter([SubjectMissing("no weights here"), "session"])

    def load(atlas: Any, device: str) -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def job(session: Any, should_stop: Callable[[], bool]) -> Iterator[Any]:
        yield session

    worker = workers(load=load)
    one = worker.of(atlas())
    with pytest.raises(SubjectMissing, match="no weights here"):
        list(one.run("a", job))
    assert (one.failure, one.ready) == ("no weights here", False)
    assert list(one.run("a", job))[-1] == "session"
    assert (one.failure, one.ready) == (None, True)
    assert not worker.ready(atlas("another"))


def test_every_device_works_at_once_and_one_job_at_a_time() -> None:
    log: list[str] = []
    used: list[str] = []

    def load(atlas: Any, device: str) -> Any:
        used.append(device)
        return device

    worker = workers(load=load, devices=lambda: ["cuda:0", "cuda:1"])
    gates = [Gate(name, log) for name in ("a", "b", "c")]
    readers = [Reader(worker.run(gate.name, atlas(), gate)) for gate in gates]
    assert gates[0].began.wait(PATIENCE_S)
    assert gates[1].began.wait(PATIENCE_S)
    assert not gates[2].began.is_set()
    gates[1].through.set()
    assert gates[2].began.wait(PATIENCE_S)
    for gate in gates:
        gate.through.set()
    assert [reader.end()[-1] for reader in readers] == ["a 2", "b 2", "c 2"]
    assert set(used) == {"cuda:0", "cuda:1"}


def test_closing_ends_everything() -> None:
    worker, gates = workers(), [Gate(name, []) for name in ("a", "b")]
    readers = [Reader(worker.run(gate.name, atlas(), gate)) for gate in gates]
    worker.close()
    gates[0].through.set()
    assert readers[0].end()[-1] in ("a 1", Waiting(ahead=0, loading=True))
    assert readers[1].end()[-1] == Waiting(ahead=1)
    assert worker.n_taken == 0


# ------------------------------------------------------------------------------------------------ real sessions


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("subjects")
    return [save_tiny_subject(folder / str(seed), seed=seed) for seed in range(MAX_SUBJECTS + 1)]


def opened(folder: Path, subject: Path | None) -> Services:
    path = build_steerable_atlas(folder, subject, n_features=14)
    return open_catalogue([path], encoder=BagEncoder()).default


def test_atlases_of_one_subject_share_its_weights_and_others_make_room(subjects: list[Path], tmp_path: Path) -> None:
    sessions = Sessions()
    first = opened(tmp_path / "first", subjects[0]).atlas
    again = opened(tmp_path / "again", subjects[0]).atlas
    one = sessions.load(first, "cpu")
    assert sessions.load(first, "cpu") is one
    same = sessions.load(again, "cpu")
    assert cast(Any, same.subject).model is cast(Any, one.subject).model
    for at, subject in enumerate(subjects[1:]):
        sessions.load(opened(tmp_path / f"other-{at}", subject).atlas, "cpu")
    assert sessions.load(first, "cpu") is not one


def test_an_atlas_without_its_subject_says_what_is_missing(tmp_path: Path) -> None:
    services = opened(tmp_path / "lost", None)
    services.worker.warm().join(timeout=PATIENCE_S)
    assert "no-such-subject" in (services.worker.failure or "")
    assert not services.worker.ready
    with pytest.raises(SubjectMissing):
        list(services.worker.run("a", lambda session, should_stop: iter([1])))


def test_all_atlases_of_a_catalogue_share_one_line(subjects: list[Path], tmp_path: Path) -> None:
    paths = [build_steerable_atlas(tmp_path / name, subjects[0], n_features=14) for name in ("x", "y")]
    catalogue = open_catalogue(paths, encoder=BagEncoder())
    assert len({id(one.worker.workers) for one in catalogue}) == 1
    catalogue.default.worker.warm().join(timeout=PATIENCE_S)
    assert catalogue.default.worker.ready
