"""What the subject model says when it is steered: four answers in one batch, and ten strengths in another.

Pure of Gradio: the Steer tab and the programming interface both read these frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import exp
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from app import pictures
from app.services import Services
from app.steer_setup import ANSWER_TOKENS, DOSE_TOKENS, DOSES, SteerSetup
from app.subject_worker import Job, Waiting
from backend.errors import InterventionNotApplied, SubjectError
from backend.types import Operation, PatchScope

if TYPE_CHECKING:
    from PIL import Image

    from backend.directions import Direction
    from backend.models.base import AnswerToken
    from backend.steering import SteeredText, SteeringSession
    from backend.types import Intervention

CONTROL_SEED = 0
"""Seed of the random directions."""
COLUMNS = ("unsteered", "steered", "random", "permuted")
OWN_DOSE = DOSES.index(1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFrame:
    """The answers so far, in the order of COLUMNS."""

    texts: tuple[str, ...] = ("",) * len(COLUMNS)
    n_patches_edited: tuple[int, ...] = ()
    tokens: tuple[tuple[AnswerToken, ...], ...] = ()
    """At the end: each token of the steered answer, and how likely it was in every column."""
    seconds: float = 0.0
    """Since the model began."""
    done: bool = False
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseFrame:
    """Short answers at each strength of DOSES, beside those along a random direction."""

    unsteered: str = ""
    steered: tuple[str, ...] = ("",) * len(DOSES)
    random: tuple[str, ...] = ("",) * len(DOSES)
    p_unsteered: tuple[float, ...] = ()
    """At the end: geometric mean probability of the unsteered answer's tokens at each strength."""
    p_own: tuple[float, ...] = ()
    """The same of the answer at the set's own strength."""
    p_own_unsteered: float | None = None
    """The same of that answer without steering."""
    seconds: float = 0.0
    done: bool = False
    stopped: bool = False


Frame = TypeVar("Frame", AnswerFrame, DoseFrame)


def require_steerable(services: Services) -> None:
    """Raise SubjectError with the reason if the atlas's model cannot answer."""
    if services.store.cannot_steer:
        raise SubjectError(f"{services.store.cannot_steer}.")


def answers(services: Services, visitor: str, setup: SteerSetup) -> Iterator[Waiting | AnswerFrame]:
    """Places in the line, then the four answers after each token; the last frame is ``done`` or ``stopped``.

    Raises UnknownFeature and ImageMissing at once, then what the worker and the session raise.
    """
    image = _checked(services, setup)
    along = _controls(services)

    def job(session: SteeringSession, should_stop: Callable[[], bool]) -> Iterator[AnswerFrame]:
        started = monotonic()
        steered = setup.interventions
        rows = [[], steered, steered, steered]
        frame, steered_ids = AnswerFrame(), tuple[int, ...]()
        steps = session.stream(
            rows,
            setup.prompt,
            image,
            max_new_tokens=ANSWER_TOKENS,
            sampling=setup.sampling(),
            directions=along(),
            should_stop=should_stop,
        )
        for texts in steps:
            frame = AnswerFrame(texts=_words(texts), n_patches_edited=_edited(texts), seconds=monotonic() - started)
            steered_ids = texts[1].token_ids
            yield frame
        if should_stop():
            return
        tokens = session.answer_probabilities(rows, setup.prompt, steered_ids, image, directions=along())
        told = tuple(tuple(row) for row in tokens)
        yield replace(frame, tokens=told, seconds=monotonic() - started, done=True)

    return _ended(services, visitor, setup, job, AnswerFrame())


def doses(services: Services, visitor: str, setup: SteerSetup) -> Iterator[Waiting | DoseFrame]:
    """Places in the line, then the short answers at all strengths after each token. Errors as for :func:`answers`."""
    if not setup.has_strength:
        raise SubjectError("Ablating has no strength to vary. Choose Add or Set for at least one feature.")
    image = _checked(services, setup)
    scaled = [setup.scaled(factor).interventions for factor in DOSES]
    rows = [[], *scaled, *scaled]

    def job(session: SteeringSession, should_stop: Callable[[], bool]) -> Iterator[DoseFrame]:
        from backend.directions import OWN, Random

        started = monotonic()
        n = len(DOSES)
        frame = DoseFrame()
        steps = session.stream(
            rows,
            setup.prompt,
            image,
            max_new_tokens=DOSE_TOKENS,
            sampling=setup.sampling(),
            directions=[OWN] * (1 + n) + [Random(CONTROL_SEED)] * n,
            should_stop=should_stop,
        )
        said: list[SteeredText] = []
        for said in steps:
            unsteered, *rest = _words(said)
            steered, random = tuple(rest[:n]), tuple(rest[n:])
            frame = DoseFrame(unsteered=unsteered, steered=steered, random=random, seconds=monotonic() - started)
            yield frame
        if not should_stop():
            yield _with_probabilities(session, setup, image, rows[: 1 + n], frame, said, started)

    return _ended(services, visitor, setup, job, DoseFrame())


def _with_probabilities(
    session: SteeringSession,
    setup: SteerSetup,
    image: Image.Image | None,
    rows: list[list[Intervention]],
    frame: DoseFrame,
    said: list[SteeredText],
    started: float,
) -> DoseFrame:
    """How the unsteered answer fades, and how the set's own answer comes and goes, as the strength grows."""
    of_answers = (said[0].token_ids, said[1 + OWN_DOSE].token_ids) if said else ((), ())
    before, own = (
        [_mean(one) for one in session.answer_probabilities(rows, setup.prompt, ids, image)] for ids in of_answers
    )
    return replace(
        frame,
        p_unsteered=tuple(one for one in before[1:] if one is not None),
        p_own=tuple(one for one in own[1:] if one is not None),
        p_own_unsteered=own[0],
        seconds=monotonic() - started,
        done=True,
    )


def _mean(tokens: list[AnswerToken]) -> float | None:
    """Geometric mean of the tokens' probabilities; None for an answer without tokens."""
    return exp(sum(one.log_probability for one in tokens) / len(tokens)) if tokens else None


def _checked(services: Services, setup: SteerSetup) -> Image.Image | None:
    """The picture, once features and patches are known to exist. Raises UnknownFeature, ImageMissing, SubjectError."""
    require_steerable(services)
    for row in setup.rows:
        services.store.feature(row.feature)
    n_patches = services.store.grid.n_patches
    if setup.where.patches and max(setup.where.patches) >= n_patches:
        raise SubjectError(f"Patch {max(setup.where.patches)} lies outside the picture's patches 0 to {n_patches - 1}.")
    return pictures.open_picture(services, setup.image_id)


def _controls(services: Services) -> Callable[[], list[Direction]]:
    """Directions of the four columns; asked for on the model's thread, since they import torch."""

    def along() -> list[Direction]:
        from backend.directions import OWN, Permuted, Random

        return [OWN, OWN, Random(CONTROL_SEED), Permuted(tuple(services.store.feature_ids.tolist()))]

    return along


def _ended(
    services: Services, visitor: str, setup: SteerSetup, job: Job[Frame], first: Frame
) -> Iterator[Waiting | Frame]:
    """The worker's frames; a run that was stopped ends with a frame that says so."""
    frame = first
    try:
        for one in services.worker.run(visitor, job):
            frame = frame if isinstance(one, Waiting) else one
            yield one
    except InterventionNotApplied as error:
        raise InterventionNotApplied(not_applied(setup, error)) from error
    if not frame.done:
        yield replace(frame, done=True, stopped=True)


def not_applied(setup: SteerSetup, error: InterventionNotApplied) -> str:
    """Why nothing was edited, and what to do about it."""
    told = f"{str(error)[:1].upper()}{str(error)[1:]}."
    ablated = any(row.operation is Operation.ABLATE for row in setup.rows)
    if not ablated and setup.where.scope is not PatchScope.ACTIVE:
        return told
    where = "The blank image shows nothing; choose" if not setup.image_id else "Choose"
    return f"{told} {where} one of the feature's exemplars as the image."


def _words(texts: list[SteeredText]) -> tuple[str, ...]:
    return tuple(one.text for one in texts)


def _edited(texts: list[SteeredText]) -> tuple[int, ...]:
    return tuple(one.n_patches_edited for one in texts)
