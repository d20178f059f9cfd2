"""The subject models behind all atlases: one worker per device, one fair queue of visitors before them.

A request is a *job*: ``job(session, should_stop) -> Iterator[T]``. It runs on the thread of a device, alone, and what
it yields reaches the visitor's own thread through a queue; places in the line come the same way. Nothing heavy is
imported until the first job runs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from app.fair_queue import FairQueue, RateLimit
from app.serving import Serving
from app.subject_sessions import Load, Sessions, find_devices, fingerprint_of
from backend.atlas import FeatureAtlas
from backend.errors import IconoscopeError, SubjectBusy, SubjectTimeout

if TYPE_CHECKING:
    from backend.steering import SteeringSession

T = TypeVar("T")
Job = Callable[["SteeringSession", Callable[[], bool]], Iterator[T]]
WARM_UP = "the warm-up"
"""Visitor name of the explorer itself; no limit applies to it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A place in the line; sent at once and whenever it changes."""

    ahead: int
    """Requests that are answered before this one; 0 when its turn has come."""
    loading: bool = False
    """The model is being loaded: for this request, or for one before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one visitor, and all of them, may ask."""

    waiting_per_visitor: int = 3
    waiting_in_all: int = 32
    burst: int = 12
    """Requests of one visitor at once."""
    refill_s: float = 2.5
    """Seconds after which a visitor who used up the burst may ask once more."""
    job_s: float = 90.0
    """Longest time one job may hold the model."""
    pulse_s: float = 1.0
    """While it waits, a place is told again after this long: only who yields can be found to have lost its reader."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """One request on its way through the line."""

    visitor: str
    atlas: FeatureAtlas
    job: Job[Any]
    stop: threading.Event = field(default_factory=threading.Event)
    frames: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    """What the visitor is shown; _END comes last, after an error too."""
    outcome: Future[None] | None = None
    """Holds the job's error; None while it waits, and for good if it was stopped there."""
    told: Waiting | None = None
    """The place that was last told."""


@dataclass(slots=True, eq=False)
class _Device:
    """A place where one job runs at a time, always on the same thread."""

    name: str | None
    """None until the first job has looked for devices."""
    thread: ThreadPoolExecutor
    load: Load
    ticket: _Ticket | None = None


_END = object()


class SubjectWorkers:
    """All devices, and the line before them."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        devices: Callable[[], Sequence[str]] = find_devices,
        loader: Callable[[], Load] = lambda: Sessions().load,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare; nothing is loaded.

        Args:
            limits: what visitors may ask.
            devices: names the torch devices to use; asked once, on the first device's thread.
            loader: makes, for each device, the function that gives an atlas's session there.
            clock: seconds.
        """
        self.limits = limits or Limits()
        self._find_devices = devices
        self._loader = loader
        self._clock = clock
        self._rate = RateLimit(self.limits.burst, self.limits.refill_s, clock)
        self._lock = threading.Lock()
        self._line: FairQueue[_Ticket] = FairQueue()
        self._devices = [self._new_device(None)]
        self._ready: set[str] = set()
        self._failures: dict[str, str] = {}

    # asking ------------------------------------------------------------------------------------------------------

    def run(self, visitor: str, atlas: FeatureAtlas, job: Job[T]) -> Generator[Waiting | T]:
        """Places in the line, then what the job yields. Closing the generator gives up the place, or the model.

        Ends without more if :meth:`stop` was called. Raises SubjectBusy before anything else, SubjectTimeout, and
        what the job or the loading of the model raises.
        """
        ticket = _Ticket(visitor, atlas, job)
        self._join(ticket)
        try:
            yield from self._frames(ticket)
            if ticket.outcome is not None:
                ticket.outcome.result()
        finally:
            ticket.stop.set()
            self._leave(ticket)

    def _frames(self, ticket: _Ticket) -> Iterator[Any]:
        frame: Any = None
        while True:
            pulse = self.limits.pulse_s if isinstance(frame, Waiting) else None
            with suppress(Empty):
                frame = ticket.frames.get(timeout=pulse)
            if frame is _END:
                return
            yield frame

    def stop(self, visitor: str) -> int:
        """End all the visitor's requests: waiting ones at once, a running one after the token it is at. How many."""
        with self._lock:
            running = [one.ticket for one in self._devices if one.ticket is not None]
            tickets = [one for one in (*running, *(item for item, _ in self._line.places())) if one.visitor == visitor]
        for ticket in tickets:
            ticket.stop.set()
            self._leave(ticket)
        return len(tickets)

    def close(self) -> None:
        """End everything that runs or waits, so that the process can end."""
        with self._lock:
            visitors = {item.visitor for item, _ in self._line.places()}
            visitors |= {one.ticket.visitor for one in self._devices if one.ticket is not None}
        for visitor in visitors:
            self.stop(visitor)

    def of(self, atlas: FeatureAtlas) -> AtlasWorker:
        """The workers as one atlas sees them."""
        return AtlasWorker(workers=self, atlas=atlas)

    def ready(self, atlas: FeatureAtlas) -> bool:
        """Whether the atlas's subject has been loaded."""
        return fingerprint_of(atlas) in self._ready

    def failure(self, atlas: FeatureAtlas) -> str | None:
        """Why the atlas's subject could not be loaded when it was last tried, in words."""
        return self._failures.get(fingerprint_of(atlas))

    @property
    def n_taken(self) -> int:
        """Requests that are being answered or wait."""
        with self._lock:
            return len(self._line) + sum(one.ticket is not None for one in self._devices)

    # the line ----------------------------------------------------------------------------------------------------

    def _join(self, ticket: _Ticket) -> None:
        with self._lock:
            if ticket.visitor != WARM_UP:
                self._refuse_too_many(ticket.visitor)
                self._rate.take(ticket.visitor)
            served = {one.ticket.visitor for one in self._devices if one.ticket is not None}
            self._line.add(ticket.visitor, ticket, served)
            self._advance()

    def _refuse_too_many(self, visitor: str) -> None:
        if len(self._line) >= self.limits.waiting_in_all:
            raise SubjectBusy(f"{len(self._line)} requests wait for the model already. Try again in a minute.")
        n_own = self._line.count(visitor)
        if n_own >= self.limits.waiting_per_visitor:
            raise SubjectBusy(f"{n_own} of your own requests wait for the model already. Wait for one, or press Stop.")

    def _leave(self, ticket: _Ticket) -> None:
        """Give up a place in the line, if it still is one."""
        with self._lock:
            if self._line.remove(ticket.visitor, ticket):
                ticket.frames.put(_END)
                self._advance()

    def _advance(self) -> None:
        """Give free devices their next job, and tell the others their new places. Call with the lock held."""
        for device in self._devices:
            if device.ticket is None and len(self._line):
                _, ticket = self._line.take()
                device.ticket = ticket
                ticket.frames.put(Waiting(ahead=0, loading=not self.ready(ticket.atlas)))
                ticket.outcome = device.thread.submit(self._serve, device, ticket)
        running = [one.ticket for one in self._devices if one.ticket is not None]
        loading = any(not self.ready(one.atlas) for one in running)
        # Nobody asked for the warm-up: it is no request before anyone's.
        busy = sum(one.visitor != WARM_UP for one in running)
        for ticket, before in self._line.places():
            place = Waiting(ahead=before + busy, loading=loading)
            if ticket.told != place:
                ticket.told = place
                ticket.frames.put(place)

    # on the thread of a device -----------------------------------------------------------------------------------

    def _serve(self, device: _Device, ticket: _Ticket) -> None:
        """Run one job; its error stays in the future that the visitor's thread reads."""
        try:
            if not ticket.stop.is_set():
                self._produce(ticket, self._session(device, ticket.atlas))
        finally:
            with self._lock:
                device.ticket = None
                self._advance()
            ticket.frames.put(_END)

    def _produce(self, ticket: _Ticket, session: SteeringSession) -> None:
        ends = self._clock() + self.limits.job_s

        def should_stop() -> bool:
            return ticket.stop.is_set() or self._clock() > ends

        if should_stop():
            return
        for frame in ticket.job(session, should_stop):
            ticket.frames.put(frame)
            if should_stop():
                break
        if not ticket.stop.is_set() and self._clock() > ends:
            raise SubjectTimeout(
                f"The model worked for {self.limits.job_s:.0f} s, the most one request may take. Ask for less at once."
            )

    def _session(self, device: _Device, atlas: FeatureAtlas) -> SteeringSession:
        key = fingerprint_of(atlas)
        try:
            session = device.load(atlas, self._name(device))
        except IconoscopeError as error:
            self._failures[key] = str(error)
            raise
        with self._lock:
            is_new = key not in self._ready
            self._ready.add(key)
            self._failures.pop(key, None)
            if is_new:
                self._advance()
        return session

    def _name(self, device: _Device) -> str:
        """The device's torch name. The first device to run looks which there are, and opens the others."""
        if device.name is None:
            first, *others = self._find_devices()
            device.name = first
            with self._lock:
                self._devices += [self._new_device(name) for name in others]
                self._advance()
        return device.name

    def _new_device(self, name: str | None) -> _Device:
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"subject-{name or 'first'}")
        return _Device(name, thread, self._loader())


def workers_for(serving: Serving) -> SubjectWorkers:
    """The workers of models served in one way: a replica on every device it names, else on every GPU there is."""
    return SubjectWorkers(devices=lambda: serving.devices or find_devices(), loader=lambda: Sessions(serving).load)


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasWorker:
    """The workers as one atlas sees them; what ``services.worker`` is."""

    workers: SubjectWorkers
    atlas: FeatureAtlas

    @property
    def ready(self) -> bool:
        """Whether the subject model is in memory."""
        return self.workers.ready(self.atlas)

    @property
    def failure(self) -> str | None:
        """Why the subject could not be loaded when it was last tried, in words."""
        return self.workers.failure(self.atlas)

    def run(self, visitor: str, job: Job[T]) -> Generator[Waiting | T]:
        """See :meth:`SubjectWorkers.run`."""
        return self.workers.run(visitor, self.atlas, job)

    def stop(self, visitor: str) -> int:
        """See :meth:`SubjectWorkers.stop`; it ends the visitor's requests to other atlases too."""
        return self.workers.stop(visitor)

    def warm(self) -> threading.Thread:
        """Load the subject in the background and steer for two tokens, so that the first visitor need not wait."""
        thread = threading.Thread(target=self._warm, name="subject-warm-up", daemon=True)
        thread.start()
        return thread

    def _warm(self) -> None:
        try:
            for _ in self.run(WARM_UP, self._first_words):
                pass
        except IconoscopeError as error:
            # Browsing goes on; the tabs that need the model say why they cannot.
            log.warning("live steering is not available: %s", error)

    def _first_words(self, session: SteeringSession, should_stop: Callable[[], bool]) -> Iterator[None]:
        from backend.types import Intervention

        if self.atlas.store.cannot_steer:
            session.features()
            return
        first = Intervention(feature=int(self.atlas.store.feature_ids[0]), strength=1.0)
        prompt = next(iter(self.atlas.store.meta["prompts"].values()))
        rows = [[], [first], [first], [first]]
        for _ in session.stream(rows, prompt, max_new_tokens=2, should_stop=should_stop):
            yield None
