"""What the public functions that need the subject model answer: steering with its controls, and features of an image.

Both wait in the same fair line as the page's visitors (app/subject_worker.py) and fall under the same limits.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp
from typing import Any, TypedDict, TypeVar

from app import pictures, steer_answers
from app.components import addresses
from app.feature_document import AtlasStamp, ScoreDocument, link, score_documents, stamp
from app.inspecting import RELIABILITY_METRIC, FeatureOnImage, Inspection
from app.services import Services
from app.steer_answers import COLUMNS, AnswerFrame
from app.steer_setup import SteerRow, SteerSetup
from app.subject_worker import Waiting
from backend.errors import SubjectError
from backend.types import Operation

T = TypeVar("T")
COLUMN_NOTES = {
    "unsteered": "the image as it is: what the model says anyway",
    "steered": "along the features' own directions",
    "random": "control: the same strengths on the same patches along random directions",
    "permuted": "control: the same strengths on the same patches along the directions of other features",
}


class ColumnAnswer(TypedDict):
    """What the model said under one condition; ``n`` is the number of answers behind it."""

    text: str
    note: str
    is_control: bool
    n: int
    n_patches_edited: int


class TokenAnswer(TypedDict):
    """One token of the steered answer and its probability under each condition, in [0, 1]."""

    token: str
    probability: dict[str, float]


class SteerAnswer(TypedDict):
    """A steered answer, never without its controls; ``answered_by`` names the model and, if quantised, its bits."""

    atlas: AtlasStamp
    features: list[dict[str, Any]]
    patches: str
    image_id: str
    image: str
    prompt: str
    sampling: str
    answers: dict[str, ColumnAnswer]
    tokens: list[TokenAnswer]
    answered_by: str
    stopped: bool
    seconds: float
    note: str
    link: str


class FiringAnswer(TypedDict):
    """One feature that fires on an image; ``reliability`` says how well its words predict it."""

    feature: int
    text: str | None
    written_by: str | None
    truth: str
    reliability: ScoreDocument | None
    maximum: float
    mean: float
    share_of_own_maximum: float
    unusual_bits: float
    n_patches_active: int
    n_patches_active_image: int
    source: str
    grid: list[list[float]] | None
    link: str


class InspectAnswer(TypedDict):
    """The named features of an image, the most unusual first."""

    atlas: AtlasStamp
    image_id: str
    image: str
    grid: dict[str, int]
    patches: list[int]
    n_patches: int
    n_features_firing: int
    n_features_unlisted: int
    by_model: bool
    missing: str | None
    features: list[FiringAnswer]
    seconds: float


# steering --------------------------------------------------------------------------------------------------------


def steer_answer(services: Services, visitor: str, setup: SteerSetup) -> SteerAnswer:
    """Wait for the turn, and for the whole answer. Raises what app.steer_answers.answers raises."""
    frame = _last(steer_answers.answers(services, visitor, setup), AnswerFrame)
    return {
        "atlas": stamp(services),
        "features": [_row(services, row) for row in setup.rows],
        "patches": str(setup.where),
        "image_id": pictures.normal(setup.image_id) or "blank",
        "image": pictures.name(setup.image_id),
        "prompt": setup.prompt,
        "sampling": _sampling(setup),
        "answers": {
            name: {
                "text": text,
                "note": COLUMN_NOTES[name],
                "is_control": name != "steered",
                "n": 1,
                "n_patches_edited": edited,
            }
            for name, text, edited in zip(
                COLUMNS, frame.texts, frame.n_patches_edited or (0,) * len(COLUMNS), strict=True
            )
        },
        "tokens": _tokens(frame),
        "answered_by": services.answering.phrase(services.steered_name),
        "stopped": frame.stopped,
        "seconds": frame.seconds,
        "note": "One answer per column (n = 1): what differs from every control is the feature's doing.",
        "link": addresses.page(atlas=services.key, tab="steer", feature=setup.rows[0].feature),
    }


def _row(services: Services, row: SteerRow) -> dict[str, Any]:
    record = services.store.feature(row.feature)
    ablated = row.operation is Operation.ABLATE
    return {
        "feature": row.feature,
        "text": record.best_text,
        "operation": row.operation.value,
        "strength": None if ablated else row.strength,
        "multiple_of_maximum": None if ablated or not record.maximum else row.strength / record.maximum,
    }


def _sampling(setup: SteerSetup) -> str:
    if setup.temperature is None:
        return "greedy"
    return f"temperature {setup.temperature:g}, top-p {setup.top_p:g}, seed {setup.seed}"


def _tokens(frame: AnswerFrame) -> list[TokenAnswer]:
    """The tokens of the steered answer; each row of the frame holds them under one condition."""
    if not frame.tokens:
        return []
    columns = dict(zip(COLUMNS, frame.tokens, strict=True))
    return [
        {
            "token": one.text,
            "probability": {name: exp(column[place].log_probability) for name, column in columns.items()},
        }
        for place, one in enumerate(columns["steered"])
    ]


# inspecting ------------------------------------------------------------------------------------------------------


def inspect_answer(services: Services, steps: Iterable[Waiting | Inspection], with_grids: bool) -> InspectAnswer:
    """Wait for the turn, and for the features. Raises what app.inspecting.inspect raises."""
    found = _last(steps, Inspection)
    grid = services.store.grid
    return {
        "atlas": stamp(services),
        "image_id": found.image_id or "blank",
        "image": pictures.name(found.image_id),
        "grid": {"rows": grid.rows, "cols": grid.cols},
        "patches": list(found.patches),
        "n_patches": found.n_patches,
        "n_features_firing": found.n_firing,
        "n_features_unlisted": found.n_unlisted,
        "by_model": found.live,
        "missing": found.missing,
        "features": [_firing(services, one, with_grids) for one in found.features],
        "seconds": found.seconds,
    }


def _firing(services: Services, one: FeatureOnImage, with_grids: bool) -> FiringAnswer:
    record = one.record
    known = score_documents(services, [one.auroc]) if one.auroc is not None else []
    return {
        "feature": record.feature,
        "text": record.best_text,
        "written_by": record.best_arm.label if record.best_arm else None,
        "truth": one.outcome.value,
        "reliability": next((score for score in known if score["metric"] == RELIABILITY_METRIC), None),
        "maximum": one.maximum,
        "mean": one.mean,
        "share_of_own_maximum": one.relative,
        "unusual_bits": one.unusual,
        "n_patches_active": one.n_active,
        "n_patches_active_image": one.n_active_image,
        "source": "stored in the atlas" if one.stored else "the subject model, just now",
        "grid": [[float(value) for value in row] for row in one.grid] if with_grids else None,
        "link": link(services, record.feature),
    }


def _last(steps: Iterable[Any], kind: type[T]) -> T:
    """The last thing of a kind that comes. Raises SubjectError if the run was stopped before there was one."""
    found: T | None = None
    for step in steps:
        if isinstance(step, kind):
            found = step
    if found is None:
        raise SubjectError("The request was stopped before the model had answered. Ask again.")
    return found
