"""A run as the visitor sees it: places in the line, answers as they grow, what was done, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator

from app.components.markup import Markup
from app.components.numbers import count
from app.latest import Latest
from app.services import Services
from app.steer_answers import answers, doses
from app.steer_setup import SteerSetup
from app.steer_views import columns, done_line, dose_strip
from app.subject_worker import Waiting
from backend.errors import IconoscopeError

_latest = Latest()


def shown_answers(services: Services, who: str, setup: SteerSetup) -> Iterator[Markup]:
    """The columns of a run. A newer run of the same visitor ends this one without a word."""
    services.worker.stop(who)
    turn = _latest.begin(f"answers {who}")
    yield columns(None, "Starting …", streaming=True)
    try:
        for frame in answers(services, who, setup):
            if not _latest.is_on(f"answers {who}", turn):
                return
            if isinstance(frame, Waiting):
                yield columns(None, waiting(frame), streaming=True)
            elif not frame.done:
                yield columns(frame, f"Answering … {frame.seconds:.1f} s", streaming=True)
            else:
                told = "Stopped before the first word." if frame.stopped and not any(frame.texts) else ""
                yield columns(frame, told, line=done_line(services, setup, frame))
    except IconoscopeError as error:
        if not _latest.is_on(f"answers {who}", turn):
            return
        # Half an answer must not stand there as if it were one.
        yield columns(None, f"No answer: {error}")
        raise


def shown_doses(services: Services, who: str, setup: SteerSetup) -> Iterator[Markup]:
    """The strip of a run, as :func:`shown_answers`."""
    services.worker.stop(who)
    turn = _latest.begin(f"doses {who}")
    yield dose_strip(services, setup, None, "Starting …", streaming=True)
    try:
        for frame in doses(services, who, setup):
            if not _latest.is_on(f"doses {who}", turn):
                return
            if isinstance(frame, Waiting):
                yield dose_strip(services, setup, None, waiting(frame), streaming=True)
            else:
                told = "" if frame.done else f"Answering … {frame.seconds:.1f} s"
                yield dose_strip(services, setup, frame, told, streaming=not frame.done)
    except IconoscopeError as error:
        if not _latest.is_on(f"doses {who}", turn):
            return
        yield dose_strip(services, setup, None, f"No answer: {error}", streaming=False)
        raise


def waiting(frame: Waiting) -> str:
    """A place in the line in words."""
    if frame.loading:
        return "Loading the subject model …"
    if frame.ahead == 0:
        return "Your turn: the model begins …"
    return f"Waiting: {count(frame.ahead)} {'request' if frame.ahead == 1 else 'requests'} before yours."
