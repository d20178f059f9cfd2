"""What the subject model says about an image with and without one feature, beside directions that mean nothing.

One batch: the image as it is, the feature taken out where it fires, and the same amounts taken out along random
directions. The random rows say how often *any* edit of this size changes the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

from app import pictures
from app.intervals import Interval, wilson
from app.services import Services
from app.steer_answers import require_steerable
from app.steer_setup import ANSWER_TOKENS, MAX_PROMPT_CHARACTERS
from app.subject_worker import Waiting
from backend.errors import InterventionNotApplied, SubjectError
from backend.types import Intervention, Operation, PatchScope

if TYPE_CHECKING:
    from backend.steering import SteeringSession

N_RANDOM = 8
"""Random directions, with seeds 0, 1, …; the first is shown beside the two answers."""
DEFAULT_QUESTION = "describe the image"
"""Asked of a model unless the visitor writes another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationAnswers:
    """The answers so far."""

    given: str = ""
    """The image as it is."""
    without: str = ""
    random: tuple[str, ...] = ("",) * N_RANDOM
    n_edited: int | None = None
    """Patches on which the feature fires, hence edited."""
    seconds: float = 0.0
    done: bool = False
    """Whether the model came to an end; else it is still answering, or was stopped."""

    @property
    def changed(self) -> bool:
        """Whether taking the feature out changes the answer."""
        return self.without != self.given

    @property
    def random_changes(self) -> Interval:
        """Share of the random directions that change the answer: what chance looks like."""
        return wilson(sum(text != self.given for text in self.random), len(self.random))


def answers_without(
    services: Services, visitor: str, image_id: str, feature: int, question: str = DEFAULT_QUESTION
) -> Iterator[Waiting | AblationAnswers]:
    """Places in the line, then the answers after each token; greedy.

    Raises:
        UnknownFeature, ImageMissing: at once.
        SubjectError: the question is empty or too long, the model is not here, or it cannot answer.
        InterventionNotApplied: the feature is silent on this image as the model sees it.
    """
    services.store.feature(feature)
    require_steerable(services)
    if not question.strip():
        raise SubjectError("The question is empty. Write what to ask about the image.")
    if len(question) > MAX_PROMPT_CHARACTERS:
        raise SubjectError(f"The question has {len(question)} characters; at most {MAX_PROMPT_CHARACTERS} fit.")
    image = pictures.open_picture(services, image_id)
    ablation = Intervention(feature=feature, strength=0.0, operation=Operation.ABLATE, scope=PatchScope.ACTIVE)

    def job(session: SteeringSession, should_stop: Callable[[], bool]) -> Iterator[AblationAnswers]:
        from backend.directions import OWN, Random

        started = monotonic()
        frame = AblationAnswers()
        steps = session.stream(
            [[], *[[ablation]] * (1 + N_RANDOM)],
            question,
            image,
            max_new_tokens=ANSWER_TOKENS,
            directions=[OWN, OWN, *(Random(seed) for seed in range(N_RANDOM))],
            should_stop=should_stop,
        )
        for given, without, *random in steps:
            frame = AblationAnswers(
                given=given.text,
                without=without.text,
                random=tuple(one.text for one in random),
                n_edited=without.n_patches_edited,
                seconds=monotonic() - started,
            )
            yield frame
        if not should_stop():
            yield replace(frame, done=True, seconds=monotonic() - started)

    return _told(services, visitor, feature, image_id, job)


def _told(
    services: Services,
    visitor: str,
    feature: int,
    image_id: str,
    job: Callable[[SteeringSession, Callable[[], bool]], Iterator[AblationAnswers]],
) -> Iterator[Waiting | AblationAnswers]:
    try:
        yield from services.worker.run(visitor, job)
    except InterventionNotApplied as error:
        copy = ""
        if pictures.is_of_atlas(services, image_id):
            copy = " The atlas keeps a smaller or lossy copy of its images, on which weak activations can vanish."
        raise InterventionNotApplied(
            f"Feature {feature} is silent when the model looks at {pictures.name(image_id)}, so there is nothing to "
            f"take out.{copy} Choose a feature that fires more strongly."
        ) from error
