"""What a visitor may search by: words, likeness to a feature, or a picture; and what was found, with its reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

from app import inspecting, pictures
from app.components.numbers import number, percent
from app.services import Services
from app.subject_worker import Waiting
from backend.errors import QueryError
from backend.search import LIKE_KINDS, Hit
from backend.types import ARM_BY_KEY, Arm, Score

N_HITS = 24
RELIABILITY = inspecting.RELIABILITY_METRIC
"""Metric of the badge that says how far an explanation can be trusted."""
LIKE_WORDS = {
    "meaning": "in meaning",
    "direction": "in decoder direction",
    "coactivation": "in when they fire",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Hits of one search, best first."""

    hits: tuple[Hit, ...]
    n_searched: int
    """Features that could have been found."""
    seconds: float
    told: str = ""
    """A caveat for the visitor; "" if there is none."""

    @property
    def features(self) -> tuple[int, ...]:
        return tuple(hit.feature for hit in self.hits)


def by_words(services: Services, query: str, arm_key: str = "") -> Found:
    """Features by meaning and words; ``arm_key`` names the only method to search. Raises what Search.query raises."""
    started = perf_counter()
    hits = services.search.query(query, N_HITS, _arm(arm_key))
    return Found(hits=tuple(hits), n_searched=len(services.store), seconds=perf_counter() - started)


def read_like(services: Services, value: str) -> tuple[str, int]:
    """Kind and feature of ``<kind>:<feature>``. Raises QueryError or UnknownFeature."""
    kind, _, feature = value.partition(":")
    if kind not in LIKE_KINDS or not (feature.isascii() and feature.isdigit() and len(feature) < 10):
        known = ", ".join(f"{one}:12" for one in LIKE_KINDS)
        raise QueryError(f"“{value[:40]}” names no feature to compare with. Write it like one of these: {known}.")
    services.store.feature(int(feature))
    return kind, int(feature)


def by_likeness(services: Services, kind: str, feature: int) -> Found:
    """Features like another. Raises what Search.like raises."""
    started = perf_counter()
    hits = services.search.like(feature, kind, N_HITS)
    told = "" if kind == "meaning" else f"The atlas stores the nearest {len(hits)} of each feature."
    return Found(hits=tuple(hits), n_searched=len(services.store) - 1, seconds=perf_counter() - started, told=told)


def by_picture(services: Services, visitor: str, image_id: str) -> Iterator[Waiting | Found]:
    """Places in the line while the model is busy, then the features that fire most unusually on a picture.

    Raises ImageMissing, and SubjectError and kin where no model can look and the atlas stored nothing of the image.
    """
    for step in inspecting.features_of_image(services, visitor, image_id, N_HITS):
        if isinstance(step, Waiting):
            yield step
            continue
        told = "" if step.live else f"Only activations stored in the atlas were searched: {step.missing}"
        strongest = max((one.unusual for one in step.features), default=0.0)
        hits = tuple(_image_hit(one, strongest) for one in step.features)
        yield Found(hits=hits, n_searched=len(services.store), seconds=step.seconds, told=told)


def _image_hit(one: inspecting.FeatureOnImage, strongest: float) -> Hit:
    record = one.record
    where = f"fires on {one.n_active} of {one.grid.size} patches"
    why = f"{where}, up to {number(one.maximum)} ({percent(one.relative)} of its maximum)"
    return Hit(
        feature=record.feature,
        score=min(max(one.unusual / strongest, 0.0), 1.0) if strongest > 0 else 0.0,
        reason="activation",
        text=record.best_text or "",
        arm=record.best_arm,
        why=why,
    )


def reliability(services: Services, hit: Hit) -> Score | None:
    """How well the text shown predicts its feature; None if that was never asked."""
    if hit.arm is None:
        return None
    scores = services.store.scores(hit.feature).get(hit.arm, ())
    return next((score for score in scores if score.metric == RELIABILITY), None)


def outcome(services: Services, hit: Hit) -> str:
    """Truth verdict on the text shown."""
    records = services.store.explanations(hit.feature)
    verdicts = [one.truth_outcome.value for one in records if one.arm == hit.arm]
    return verdicts[0] if verdicts else "undecidable"


def picture_name(image_id: str) -> str:
    """A picture in words."""
    return pictures.name(pictures.normal(image_id))


def _arm(key: str) -> Arm | None:
    arm = ARM_BY_KEY.get(key)
    return None if arm is None or arm.is_control else arm
