"""What an explanation method is given and what it gives back.

A method is one module of this package, named like its :class:`~backend.types.Method`, with a class ``METHOD``. It
takes a batch of features and answers each with an explanation or a recorded failure, in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from backend.batching import fitting_rows, in_batches
from backend.explainers.cleaning import clean
from backend.explainers.prompts import PAPER_ANSWER_PREFIXES, PAPER_PROMPTS, prompt_key
from backend.heatmaps import HEATMAP_ALPHA
from backend.models.base import Sampling, SubjectModel, TowerState, joined
from backend.sae import TopKSAE
from backend.types import Arm, Explanation, ExplanationFailure, PatchGrid, PatchScope

EMPTY_ANSWER = "empty answer"
NOT_FINITE = "the steered image embeddings are not finite"
CACHE_BYTES = 512 * 1024 * 1024
Result = Explanation | ExplanationFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class ExemplarInput:
    """One image on which the feature is strongly active, with its activation grid."""

    image_id: str
    image: Image.Image
    grid: NDArray[np.floating]
    """Activations [row col], at or above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationRequest:
    """One feature to explain."""

    feature: int
    strength: float | None = None
    """Residual-stream L2 units; needed by the methods that steer."""
    exemplars: tuple[ExemplarInput, ...] = ()
    """Best first; needed by the methods that show images. All of them are shown."""


class PrefixCache:
    """What the tower holds at the hook point, kept while several arms or strengths look at the same pictures.

    TOP_K and STEERING_INFORMED_TOP_K show the same pixels, so the tower up to the hook point runs once for both.
    The least recently used are dropped when ``max_bytes`` is reached.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, TowerState] = OrderedDict()

    def states(
        self,
        pictures: Sequence[tuple[Hashable, Callable[[], Image.Image]]],
        subject: SubjectModel,
        *,
        batch_size: int,
    ) -> TowerState:
        """State of each picture, given as (key, function that draws it); only unknown pictures are drawn and run."""
        unknown = [(key, draw) for key, draw in dict(pictures).items() if key not in self._kept]
        fresh: dict[Hashable, TowerState] = {}

        def run(part: slice) -> dict[Hashable, TowerState]:
            states = subject.states([draw() for _, draw in unknown[part]], batch_size=batch_size)
            return {key: states.of(at) for at, (key, _) in enumerate(unknown[part])}

        for states in in_batches("images", len(unknown), batch_size, run):
            fresh.update(states)
        wanted = joined([fresh[key] if key in fresh else self._kept[key] for key, _ in pictures])
        self._keep(fresh)
        return wanted

    def _keep(self, fresh: Mapping[Hashable, TowerState]) -> None:
        for key, state in fresh.items():
            self._kept[key] = state
            self._bytes += state.nbytes
        while self._bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainerContext:
    """What all requests share. Everything above the batch sizes belongs to the fingerprint of a run."""

    subject: SubjectModel
    sae: TopKSAE
    prompts: Mapping[str, str] = field(default_factory=lambda: PAPER_PROMPTS)
    max_new_tokens: int = 50
    seed: int = 0
    informed_scope: PatchScope | str = PatchScope.ACTIVE
    """Patches STEERING_INFORMED_TOP_K edits: ACTIVE (activation above 0) or ALL."""
    heatmap_alpha: float = HEATMAP_ALPHA
    answer_prefixes: tuple[str, ...] = PAPER_ANSWER_PREFIXES
    alive_features: tuple[int, ...] = ()
    """Needed by PERMUTED_DIRECTION."""
    exemplar_grid: PatchGrid | None = None
    """Grid of the exemplars' activations; None: that of the subject, which they were harvested from."""
    sampling: Sampling | None = None
    """Greedy if None."""
    batch_size: int = 64
    """Answers generated at once."""
    image_batch_size: int = 64
    """Images run through the vision tower at once."""
    prefixes: PrefixCache = field(default_factory=PrefixCache)

    def prompt(self, arm: Arm) -> str:
        """The prompt of an arm.

        Raises:
            ValueError: the recipe gave none.
        """
        key = prompt_key(arm)
        if key not in self.prompts:
            raise ValueError(f"no prompt {key!r} was given for {arm.key}")
        return self.prompts[key]


class Explainer(ABC):
    """One explanation method or control, in one variant."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm

    @abstractmethod
    def explain(self, requests: Sequence[ExplanationRequest], context: ExplainerContext) -> list[Result]:
        """Explain each feature; one result per request, in order."""

    def failure(self, request: ExplanationRequest, reason: str, raw_text: str = "") -> ExplanationFailure:
        return ExplanationFailure(
            feature=request.feature, arm=self.arm, reason=reason, raw_text=raw_text, strength=request.strength
        )

    def result(
        self,
        request: ExplanationRequest,
        raw_text: str,
        context: ExplainerContext,
        *,
        strength: float | None,
        n_patches_edited: int,
    ) -> Result:
        """The cleaned answer as an explanation, or a failure if nothing is left of it."""
        text = clean(raw_text, context.answer_prefixes)
        if not text:
            return self.failure(request, EMPTY_ANSWER, raw_text)
        return Explanation(
            feature=request.feature,
            arm=self.arm,
            text=text,
            raw_text=raw_text,
            strength=strength,
            n_patches_edited=n_patches_edited,
            image_ids=tuple(exemplar.image_id for exemplar in request.exemplars),
        )


def image_embeddings(
    residual: Float[Tensor, "picture patch d_model"],
    prefix_tokens: Float[Tensor, "picture prefix d_model"],
    context: ExplainerContext,
) -> Float[Tensor, "picture token d_text"]:
    """Run on from the hook point, a bounded number of pictures at a time."""

    def run(part: slice) -> Float[Tensor, "picture token d_text"]:
        return context.subject.from_hook(residual[part], prefix_tokens[part])

    return torch.cat(list(in_batches("images", len(residual), context.image_batch_size, run)))


def answers_at_once(context: ExplainerContext, prompt: str, n_images: int) -> int:
    """Rows of a batch of answers: as many as the context allows, fewer where a GPU's free memory holds fewer."""
    row = context.subject.answer_bytes(prompt, n_images, context.max_new_tokens)
    return fitting_rows(context.subject.device, row, context.batch_size)


def required_strength(request: ExplanationRequest, arm: Arm) -> float:
    """The request's strength.

    Raises:
        ValueError: it has none, though the method steers.
    """
    if request.strength is None:
        raise ValueError(f"{arm.key} needs a strength for feature {request.feature}")
    return request.strength
