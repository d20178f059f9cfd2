"""Steering: interventions on the residual stream at the hook point, and the answers they lead to.

Three operations, each along the unit direction ``d`` of a feature (its decoder row), at chosen patches:

* ADD: ``h + s d``. The intervention of arXiv 2603.22593, with strength ``s`` in residual-stream L2 units.
* SET: ``s d``. The patch's residual is replaced by the scaled direction (the paper's footnote calls it substitution).
* ABLATE: ``h - a d``, where ``a`` is the feature's own SAE activation there: its contribution is taken out, no more.

Several interventions of one row are applied in order. Activations, which ABLATE and the ACTIVE scope need, are always
those of the unedited image.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from backend.batching import in_batches
from backend.directions import OWN, Direction
from backend.errors import ActivationsNotFinite, InterventionNotApplied, SubjectError, SubjectMismatch
from backend.models import NO_LANGUAGE_MODEL
from backend.models.base import AnswerToken, Sampling, SubjectModel, TowerState, VisionTower
from backend.sae import FeatureActivations, TopKSAE
from backend.types import Intervention, Operation, PatchScope

MAX_CACHED_IMAGES = 16
MAX_ROWS = 64
"""Rows of a batch, where nobody says that fewer fit."""


def edit(
    residual: Float[Tensor, "row patch d_model"],
    direction: Float[Tensor, "row d_model"],
    strength: Float[Tensor, " row"],
    operation: Operation,
    mask: Bool[Tensor, "row patch"],
    activation: Float[Tensor, "row patch"] | None = None,
) -> Float[Tensor, "row patch d_model"]:
    """The edited residual; patches outside the mask keep their exact values. Pure.

    Args:
        residual: residual stream at the hook point.
        direction: one unit vector per row.
        strength: residual-stream L2 units, one per row; ignored by ABLATE.
        operation: ADD, SET or ABLATE.
        mask: patches to edit.
        activation: the feature's SAE activation, needed by ABLATE.
    """
    along = rearrange(direction, "row d_model -> row 1 d_model")
    if operation is Operation.ADD:
        edited = residual + rearrange(strength, "row -> row 1 1") * along
    elif operation is Operation.SET:
        edited = (rearrange(strength, "row -> row 1 1") * along).expand_as(residual)
    else:
        if activation is None:
            raise ValueError("ABLATE needs the feature's activations")
        edited = residual - rearrange(activation, "row patch -> row patch 1") * along
    return torch.where(rearrange(mask, "row patch -> row patch 1"), edited, residual)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeredText:
    """An answer and how many patches were edited before it was given; 0 only for a row without interventions."""

    text: str
    n_patches_edited: int
    token_ids: tuple[int, ...] = field(default=(), compare=False)
    """Of a streamed answer: its tokens but the one that ended it, as :meth:`SteeringSession.answer_probabilities` takes
    them."""


class SteeringSession:
    """One subject and one SAE, ready to steer: image prefixes are computed once, rows are steered as a batch.

    Of an image encoder without a language model it gives residuals and features; what needs ``subject`` is refused.
    Not thread-safe: one caller at a time.
    """

    def __init__(self, tower: VisionTower, sae: TopKSAE, *, max_rows: int = MAX_ROWS) -> None:
        """Pair them; ``max_rows`` are computed at once, at most.

        Raises:
            SubjectMismatch: the SAE has another width or was trained at another hook point.
        """
        if sae.d_model != tower.d_model:
            raise SubjectMismatch(
                f"the SAE reads width {sae.d_model}, but {tower.card.name} has width {tower.d_model} at "
                f"{tower.hook_point}"
            )
        if sae.config.hook_point is not None and sae.config.hook_point != tower.hook_point:
            raise SubjectMismatch(
                f"the SAE was trained at {sae.config.hook_point}, but the subject is cut at {tower.hook_point}"
            )
        self.tower = tower
        self.sae = sae.to(tower.device)
        self._max_rows = max_rows
        self._states: OrderedDict[str, TowerState] = OrderedDict()

    @property
    def subject(self) -> SubjectModel:
        """The model that answers. Raises SubjectError if the tower stands alone."""
        if not isinstance(self.tower, SubjectModel):
            raise SubjectError(f"{self.tower.card.name} {NO_LANGUAGE_MODEL}")
        return self.tower

    def residual(self, image: Image.Image | None = None) -> Float[Tensor, "patch d_model"]:
        """Unedited residual stream of an image (None: the blank image), computed once per image."""
        return self._state(image).patches[0]

    def _state(self, image: Image.Image | None) -> TowerState:
        key = "blank" if image is None else _image_key(image)
        if key not in self._states:
            self._states[key] = self.tower.states([self.tower.blank_image() if image is None else image])
            if len(self._states) > MAX_CACHED_IMAGES:
                self._states.popitem(last=False)
        self._states.move_to_end(key)
        return self._states[key]

    def features(self, image: Image.Image | None = None) -> FeatureActivations:
        """The features active on each patch of an image: values and indices [patch k]."""
        return self.sae.encode(self.residual(image))

    def embeddings(
        self,
        interventions: Sequence[Sequence[Intervention]],
        image: Image.Image | None = None,
        *,
        directions: Direction | Sequence[Direction] = OWN,
    ) -> Float[Tensor, "row token d_text"]:
        """Image embeddings of each steered row. Arguments and errors as for :meth:`answers`."""
        return self._steered(interventions, image, directions)[0]

    def answers(
        self,
        interventions: Sequence[Sequence[Intervention]],
        prompt: str,
        image: Image.Image | None = None,
        *,
        max_new_tokens: int = 50,
        sampling: Sampling | None = None,
        directions: Direction | Sequence[Direction] = OWN,
    ) -> list[SteeredText]:
        """Steer each row and let the subject answer.

        Args:
            interventions: one sequence per row, applied in order; an empty one is the unsteered row.
            prompt: question put to the subject, the same for every row.
            image: picture to steer on; None is the blank image.
            max_new_tokens: longest answer.
            sampling: greedy if None.
            directions: what the features' own directions are replaced by (a control), for all rows or one per row;
                scopes and ablated amounts stay those of the feature.

        Raises:
            InterventionNotApplied: an intervention touched no patch or changed nothing. No text is returned.
            UnknownFeature: a feature id lies outside the SAE.
            ActivationsNotFinite: the strength drove the tower out of its number range.
        """
        along = _per_row(directions, len(interventions))

        def run(part: slice) -> list[SteeredText]:
            embeddings, n_edited = self._steered(interventions[part], image, along[part])
            texts = self.subject.generate(embeddings[:, None], prompt, max_new_tokens=max_new_tokens, sampling=sampling)
            return [SteeredText(text=t, n_patches_edited=n) for t, n in zip(texts, n_edited, strict=True)]

        # Sampling draws by the row's place in its batch: halves would draw otherwise, so only greedy answers halve.
        n_rows = len(interventions)
        if sampling is not None:
            return [answer for part in self._parts(n_rows) for answer in run(part)]
        return [answer for answers in in_batches("prompts", n_rows, self._max_rows, run) for answer in answers]

    def _parts(self, n_rows: int) -> list[slice]:
        return [slice(start, start + self._max_rows) for start in range(0, n_rows, self._max_rows)]

    def stream(
        self,
        interventions: Sequence[Sequence[Intervention]],
        prompt: str,
        image: Image.Image | None = None,
        *,
        max_new_tokens: int = 50,
        sampling: Sampling | None = None,
        directions: Direction | Sequence[Direction] = OWN,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[list[SteeredText]]:
        """Like :meth:`answers`, yielding all rows' texts so far after each token: steered and controls side by side.

        Of more than ``max_rows`` rows, those of later batches have said nothing, and edited nothing, until the earlier
        ones are done.
        """
        along = _per_row(directions, len(interventions))
        said = [SteeredText(text="", n_patches_edited=0)] * len(interventions)
        for part in self._parts(len(interventions)):
            embeddings, n_edited = self._steered(interventions[part], image, along[part])
            steps = self.subject.stream_ids(
                embeddings[:, None], prompt, max_new_tokens=max_new_tokens, sampling=sampling, should_stop=should_stop
            )
            for rows in steps:
                said[part] = [
                    SteeredText(text=self.subject.text_of(ids), n_patches_edited=n, token_ids=tuple(ids))
                    for ids, n in zip(rows, n_edited, strict=True)
                ]
                yield list(said)
            if should_stop is not None and should_stop():
                return

    def answer_probabilities(
        self,
        interventions: Sequence[Sequence[Intervention]],
        prompt: str,
        answer: str | Sequence[int],
        image: Image.Image | None = None,
        *,
        directions: Direction | Sequence[Direction] = OWN,
    ) -> list[list[AnswerToken]]:
        """How likely each token of one given answer is in every steered row: what steering changed, token by token.

        Arguments and errors as for :meth:`answers`. ``answer`` is a text, or better the token ids of a
        :class:`SteeredText`; see :meth:`backend.models.base.SubjectModel.answer_probabilities`.
        """
        along = _per_row(directions, len(interventions))
        tokens: list[list[AnswerToken]] = []
        for part in self._parts(len(interventions)):
            embeddings, _ = self._steered(interventions[part], image, along[part])
            tokens += self.subject.answer_probabilities(embeddings[:, None], prompt, answer)
        return tokens

    def _steered(
        self,
        interventions: Sequence[Sequence[Intervention]],
        image: Image.Image | None,
        directions: Direction | Sequence[Direction],
    ) -> tuple[Float[Tensor, "row token d_text"], list[int]]:
        n_rows = len(interventions)
        along = _per_row(directions, n_rows)
        state = self._state(image)
        base = state.patches[0]
        activations = self._needed_activations(base, interventions)
        residual = base.expand(n_rows, -1, -1)
        touched = torch.zeros(residual.shape[:2], dtype=torch.bool, device=base.device)
        for turn in range(max((len(row) for row in interventions), default=0)):
            for operation in Operation:
                rows = [
                    at for at, row in enumerate(interventions) if len(row) > turn and row[turn].operation is operation
                ]
                if not rows:
                    continue
                chosen = [interventions[at][turn] for at in rows]
                masks = torch.stack([self._mask(one, activations, base.shape[0]) for one in chosen]).to(base.device)
                edited = edit(
                    residual[rows],
                    torch.stack([along[at].of(one.feature, self.sae) for at, one in zip(rows, chosen, strict=True)]),
                    torch.tensor([one.strength for one in chosen], device=base.device),
                    operation,
                    masks,
                    _stacked(chosen, activations) if operation is Operation.ABLATE else None,
                )
                _require_applied(chosen, residual[rows], edited, masks)
                residual = residual.index_copy(0, torch.tensor(rows, device=base.device), edited)
                touched[rows] |= masks
        embeddings = self.subject.from_hook(residual, state.prefix_tokens.expand(n_rows, -1, -1))
        if not torch.isfinite(embeddings).all():
            raise ActivationsNotFinite("the steered image embeddings are not finite: choose a smaller strength")
        return embeddings, touched.sum(dim=1).tolist()

    def _needed_activations(
        self, base: Float[Tensor, "patch d_model"], interventions: Sequence[Sequence[Intervention]]
    ) -> dict[int, Float[Tensor, " patch"]]:
        features = sorted(
            {
                one.feature
                for row in interventions
                for one in row
                if one.scope is PatchScope.ACTIVE or one.operation is Operation.ABLATE
            }
        )
        if not features:
            return {}
        columns = self.sae.activations_of(base, features).unbind(dim=-1)
        return dict(zip(features, columns, strict=True))

    @staticmethod
    def _mask(
        intervention: Intervention, activations: dict[int, Float[Tensor, " patch"]], n_patches: int
    ) -> Bool[Tensor, " patch"]:
        if intervention.scope is PatchScope.ACTIVE:
            return activations[intervention.feature] > 0
        if intervention.scope is PatchScope.ALL:
            return torch.ones(n_patches, dtype=torch.bool)
        patches: Int[Tensor, " n"] = torch.tensor(intervention.patches, dtype=torch.long)
        if patches.numel() and not 0 <= int(patches.min()) <= int(patches.max()) < n_patches:
            raise InterventionNotApplied(f"a given patch lies outside 0..{n_patches - 1}")
        return torch.zeros(n_patches, dtype=torch.bool).index_fill(0, patches, True)


def _require_applied(
    interventions: Sequence[Intervention],
    before: Float[Tensor, "row patch d_model"],
    after: Float[Tensor, "row patch d_model"],
    masks: Bool[Tensor, "row patch"],
) -> None:
    changed = (before != after).flatten(1).any(dim=1).tolist()
    for one, has_changed, n_patches in zip(interventions, changed, masks.sum(dim=1).tolist(), strict=True):
        if n_patches == 0:
            raise InterventionNotApplied(
                f"feature {one.feature} touched no patch: it is not active on this image, or no patch was chosen"
            )
        if not has_changed and one.operation is Operation.ABLATE:
            raise InterventionNotApplied(
                f"ablating feature {one.feature} changed nothing: it is not active on the chosen patches"
            )
        if not has_changed:
            raise InterventionNotApplied(
                f"{one.operation.value} of feature {one.feature} at strength {one.strength:g} changed nothing"
            )


def _per_row(directions: Direction | Sequence[Direction], n_rows: int) -> Sequence[Direction]:
    along = [directions] * n_rows if isinstance(directions, Direction) else directions
    if len(along) != n_rows:
        raise ValueError(f"{len(along)} directions were given for {n_rows} rows")
    return along


def _stacked(
    interventions: Sequence[Intervention], activations: dict[int, Float[Tensor, " patch"]]
) -> Float[Tensor, "row patch"]:
    return torch.stack([activations[one.feature] for one in interventions])


def _image_key(image: Image.Image) -> str:
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()
