"""Many visitors at once: do reads stay quick, is the model shared fairly, does memory stay flat, does nothing fail?

Each visitor reads and steers at the same time, in two threads: one searches, opens features and fetches pictures with a
pause to read in between; the other asks the model again and again. Real browsers may join them and measure what a
person would see. Everything runs on this machine, so the visitors take some of the server's processor time.

    python -m benchmarks.load
    python -m benchmarks.load --n-users 4 --minutes 0.5 --n-browsers 0
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import tyro

from backend.atlas import FeatureAtlas
from benchmarks import load_browsers
from benchmarks.map_measures import QUERY_WORDS
from benchmarks.serving import Server
from benchmarks.verdicts import Measure, in_ms, machine, print_measures, write_json

ROOT = Path(__file__).resolve().parent.parent
MEMORY_EVERY_S = 5.0
N_PICTURES = 8
MOST_ERRORS_SHOWN = 5
FAIR = 1.5
"""The visitor with most answers may have this many times those of the one with fewest."""
FLAT = 1.1
"""Memory at the end may be this many times that at the start, once everything is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many visitors, for how long, on what."""

    atlas: Path = ROOT / "assets" / "atlas"
    """Atlas with a subject model."""
    n_users: int = 20
    """Scripted visitors."""
    minutes: float = 5.0
    """How long."""
    pause_s: float = 2.0
    """Mean time a visitor reads before the next click."""
    steer_pause_s: float = 5.0
    """Mean time a visitor reads an answer before asking the model again."""
    n_browsers: int = 2
    """Browsers that click and search meanwhile."""
    json: Path | None = None
    """Also write the results here."""


@dataclass(slots=True)
class Seen:
    """What the visitors saw, added up from all threads."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answers: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    """Times the line was full or a visitor too quick, told in words."""
    errors: list[str] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, seconds: float) -> None:
        with self.lock:
            self.seconds[kind].append(seconds)

    def fail(self, what: str) -> None:
        with self.lock:
            self.errors.append(what[:300])


class Visitor:
    """One scripted visitor."""

    def __init__(self, number: int, url: str, features: list[int], settings: Settings, seen: Seen, end: float) -> None:
        self._number = number
        self._url = url
        self._session = f"load-{number}"
        self._features = features
        self._settings = settings
        self._seen = seen
        self._end = end
        self._draw = random.Random(number)

    def read(self) -> None:
        """Search, open, look at pictures, until the time is up."""
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while time.monotonic() < self._end:
                try:
                    self._read_once(client)
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    self._seen.fail(f"read: {type(error).__name__}: {error}")
                time.sleep(self._draw.expovariate(1 / self._settings.pause_s))

    def _read_once(self, client: httpx.Client) -> None:
        words = f"{self._draw.choice(QUERY_WORDS)} {self._draw.choice(QUERY_WORDS)}"
        found = self._called(client, "search_features", [words, 24, ""], "search")
        time.sleep(self._draw.expovariate(1 / self._settings.pause_s))
        hit = self._draw.choice(found["hits"])["feature"] if found["hits"] else self._draw.choice(self._features)
        document = self._called(client, "get_feature", [hit, N_PICTURES, ""], "feature")
        started = time.perf_counter()
        for exemplar in document["exemplars"][:N_PICTURES]:
            client.get(exemplar["image"]).raise_for_status()
        self._seen.add("pictures", time.perf_counter() - started)

    def _called(self, client: httpx.Client, name: str, data: list[object], kind: str) -> dict:
        started = time.perf_counter()
        answer = client.post(f"gradio_api/run/{name}", json={"data": data, "session_hash": self._session})
        answer.raise_for_status()
        self._seen.add(kind, time.perf_counter() - started)
        return answer.json()["data"][0]

    def steer(self) -> None:
        """Ask the model, read, ask again, until the time is up."""
        with httpx.Client(base_url=self._url, timeout=600) as client:
            while time.monotonic() < self._end:
                started = time.perf_counter()
                data = [self._draw.choice(self._features), None, "add", None, "all", "blank", "", None, 0, ""]
                try:
                    answer = client.post("gradio_api/run/steer", json={"data": data, "session_hash": self._session})
                    self._count(answer, time.perf_counter() - started)
                except httpx.HTTPError as error:
                    self._seen.fail(f"steer: {type(error).__name__}: {error}")
                time.sleep(self._draw.expovariate(1 / self._settings.steer_pause_s))

    def _count(self, answer: httpx.Response, seconds: float) -> None:
        told = answer.json()
        if answer.is_success and told["data"][0]["answers"]["steered"]["n_patches_edited"]:
            with self._seen.lock:
                self._seen.seconds["steer"].append(seconds)
                if time.monotonic() <= self._end:
                    self._seen.answers[self._number] += 1
        elif "Try again" in str(told.get("error", "")):
            with self._seen.lock:
                self._seen.refused += 1
        else:
            self._seen.fail(f"steer: {answer.status_code} {str(told)[:200]}")


def run(settings: Settings) -> tuple[Seen, list[Measure]]:
    """All visitors at once; what they saw, and what the browsers measured."""
    store = FeatureAtlas.open(settings.atlas, verify=False).store
    features = store.feature_ids.tolist()
    seen = Seen()
    with Server([settings.atlas]) as server:
        _warm_up(server.url, features[0])
        end = time.monotonic() + 60 * settings.minutes
        visitors = [Visitor(at, server.url, features, settings, seen, end) for at in range(settings.n_users)]
        threads = [threading.Thread(target=work) for one in visitors for work in (one.read, one.steer)]
        threads.append(threading.Thread(target=_weigh, args=(server, seen, end)))
        threads += [
            threading.Thread(target=load_browsers.visit, args=(at, server.url, features, end, seen.add, seen.fail))
            for at in range(settings.n_browsers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen.memory_mb.append(server.memory_mb() or 0.0)
    return seen, list(_measures(settings, seen))


def _warm_up(url: str, feature: int) -> None:
    """Load what the first visitor would wait for, so that memory is measured from a full start."""
    with httpx.Client(base_url=url, timeout=300) as client:
        for name, data in (
            ("search_features", ["warm up", 24, ""]),
            ("get_feature", [feature, N_PICTURES, ""]),
            ("steer", [feature, None, "add", None, "all", "blank", "", None, 0, ""]),
        ):
            client.post(f"gradio_api/run/{name}", json={"data": data, "session_hash": "warm-up"}).raise_for_status()


def _weigh(server: Server, seen: Seen, end: float) -> None:
    while time.monotonic() < end:
        memory = server.memory_mb()
        if memory is not None:
            seen.memory_mb.append(memory)
        time.sleep(MEMORY_EVERY_S)


def _measures(settings: Settings, seen: Seen) -> Iterator[Measure]:
    n_read = sum(len(one) for kind, one in seen.seconds.items() if kind != "steer")
    yield Measure(what="reads a second", value=n_read / (60 * settings.minutes), unit="", n=n_read)
    for kind, what, target in (
        ("search", "search, over HTTP", 500),
        ("feature", "feature, over HTTP", 400),
        ("pictures", f"{N_PICTURES} pictures, over HTTP", 1000),
        ("browser text", "click to text, in a browser", 400),
        ("browser search", "key to hits, in a browser", 500),
    ):
        if seen.seconds[kind]:
            yield in_ms(what, seen.seconds[kind], 50)
            yield in_ms(what, seen.seconds[kind], 95, target)
    yield in_ms("steered answer with its wait", seen.seconds["steer"], 50)
    yield in_ms("steered answer with its wait", seen.seconds["steer"], 95)
    counts = [seen.answers[number] for number in range(settings.n_users)]
    ratio = max(counts) / min(counts) if counts and min(counts) else None
    note = f"{min(counts)} to {max(counts)} answers a visitor; {seen.refused} refused in words"
    yield Measure(what="most over fewest answers", value=ratio, unit="", n=sum(counts), target=FAIR, note=note)
    memory = seen.memory_mb
    yield Measure(what="memory at the start", value=memory[0], unit="MB", n=1)
    yield Measure(what="memory at most", value=max(memory), unit="MB", n=len(memory), target=2048)
    yield Measure(what="memory, end over start", value=memory[-1] / memory[0], unit="", n=len(memory), target=FLAT)
    shown = "; ".join(seen.errors[:MOST_ERRORS_SHOWN])
    yield Measure(what="errors", value=float(len(seen.errors)), unit="", n=n_read + sum(counts), target=0, note=shown)


def main(settings: Settings) -> None:
    """Measure and print."""
    described = machine()
    _, measures = run(settings)
    title = f"{settings.n_users} visitors and {settings.n_browsers} browsers for {settings.minutes:g} minutes"
    print_measures(title, measures, described)
    if settings.json is not None:
        write_json(settings.json, title, measures, described)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
