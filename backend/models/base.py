"""What every model whose vision tower we cut can do, and what one that also answers in words can do besides.

A :class:`VisionTower` runs images to the hook point: enough to train an SAE on it, to harvest its features and to score
their explanations. A :class:`SubjectModel` is a vision tower with a language model behind it: it runs on from the hook
point and answers, so it can explain features and be steered.

Cutting the forward pass at the hook point is what makes steering cheap: the residual of an image is computed once and
every edited copy of it only runs the rest of the tower. An adapter for one model family is one module beside this one,
named like the ``model_type`` of the family's config.json.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from backend.types import HookPoint, PatchGrid

MaskMode = Literal["causal", "bidirectional within an image"]
"""``causal``: what comes before it, and itself. The other: all of its own image besides; never a later image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Who the subject model is; shown by the explorer and written into artifacts."""

    name: str
    family: str
    repository_id: str | None
    """Hub repository, or None for a model that only lives in a local folder."""
    licence_url: str | None
    note: str = ""
    """What a reader of its results must know, in one sentence; empty for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn when the answer is not greedy. Row i of a batch draws from its own stream (seed, i)."""

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 64
    seed: int = 0
    paired: bool = False
    """All rows draw with the same random numbers, so that rows which agree say the same: chance parts none of them."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}; leave sampling out to be greedy")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {self.top_k}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerToken:
    """One token of a given answer, and how likely the model was to say it there."""

    text: str
    """The texts of all tokens, joined, are the answer."""
    log_probability: float
    """Natural logarithm, given the prompt, the image and the tokens before."""
    likeliest_text: str
    """What the model would rather have said there, or the same."""
    likeliest_log_probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerState:
    """All that the vision tower carries past the hook point for some images, float32."""

    patches: Float[Tensor, "image patch d_model"]
    """The residual stream on the patch grid, row-major: what an SAE reads and steering edits."""
    prefix_tokens: Float[Tensor, "image prefix d_model"]
    """The tokens before the first patch (CLS, registers); none for many towers. Later blocks read them; nothing edits
    them."""

    def of(self, image: int) -> TowerState:
        """One image alone, copied, so that the others can be freed."""
        return TowerState(
            patches=self.patches[image : image + 1].clone(), prefix_tokens=self.prefix_tokens[image : image + 1].clone()
        )

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.patches.nbytes + self.prefix_tokens.nbytes


def joined(states: Sequence[TowerState]) -> TowerState:
    """The images of several states of one subject, in order. There must be at least one state."""
    return TowerState(
        patches=torch.cat([state.patches for state in states]),
        prefix_tokens=torch.cat([state.prefix_tokens for state in states]),
    )


class VisionTower(ABC):
    """An image encoder that can be cut at one hook point, alone or inside a vision-language model.

    Residuals leave in float32; inside, the model computes in its own dtype. No method keeps gradients.
    """

    card: ModelCard
    hook_point: HookPoint
    grid: PatchGrid
    d_model: int
    """Width of the residual stream at the hook point."""
    image_px: int
    """Side of the square the processor resizes every image to."""
    patch_order: Int[Tensor, " patch"] | None = None
    """For a tower that runs through the patches of all images in one sequence and in an order of its own: the row-major
    patch of each token. None where tokens are row-major, image by image."""
    device: torch.device

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of weights, config, processor and tokenizer; independent of folder, device and dtype."""

    @property
    @abstractmethod
    def hook_module(self) -> nn.Module:
        """The untouched module whose output is the residual stream at the hook point."""

    @abstractmethod
    def cut_at(self, hook_point: HookPoint) -> Self:
        """The same weights, not copied, cut at another hook point. Raises SubjectMismatch if there is none such."""

    @abstractmethod
    def preprocess(self, images: Sequence[Image.Image]) -> Float[Tensor, "image 3 h w"]:
        """The model's own image processing (resize, scale, normalise), float32 on the CPU."""

    @abstractmethod
    def state_at_hook(self, pixel_values: Float[Tensor, "image 3 h w"]) -> TowerState:
        """All tokens of the residual stream at the hook point. Runs no block after the hook point."""

    def to_hook(self, pixel_values: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image patch d_model"]:
        """Residual stream at the hook point, patches only, float32. Runs no block after the hook point."""
        return self.state_at_hook(pixel_values).patches

    def states(self, images: Sequence[Image.Image], *, batch_size: int = 64) -> TowerState:
        """Preprocess and run to the hook point, ``batch_size`` images at a time."""
        parts = [
            self.state_at_hook(self.preprocess(images[start : start + batch_size]))
            for start in range(0, len(images), batch_size)
        ]
        if not parts:
            return TowerState(
                patches=torch.empty(0, self.grid.n_patches, self.d_model, device=self.device),
                prefix_tokens=torch.empty(0, self.grid.n_prefix_tokens, self.d_model, device=self.device),
            )
        return joined(parts)

    def residuals(self, images: Sequence[Image.Image], *, batch_size: int = 64) -> Float[Tensor, "image patch d_model"]:
        """The patches of :meth:`states`."""
        return self.states(images, batch_size=batch_size).patches

    def blank_image(self) -> Image.Image:
        """The blank image of the STEERING method: pure white, as in arXiv 2603.22593."""
        return Image.new("RGB", (self.image_px, self.image_px), (255, 255, 255))


class SubjectModel(VisionTower):
    """A vision-language model whose vision tower can be cut at one hook point, continued from there and asked.

    Residuals leave and enter in float32.
    """

    d_text: int
    """Width of one image embedding, as the language model reads it."""
    n_image_tokens: int
    """Image embeddings per image."""
    mask_mode: ClassVar[MaskMode]
    """What a token of an image sees in the language model. It has changed between versions of transformers (up to 4.51
    a token of a Gemma 3 image saw later images too), so artifacts record it."""

    @abstractmethod
    def from_hook(
        self,
        residual: Float[Tensor, "image patch d_model"],
        prefix_tokens: Float[Tensor, "image prefix d_model"] | None = None,
    ) -> Float[Tensor, "image token d_text"]:
        """Image embeddings for the language model: the remaining blocks, the final norm and the projector, float32.

        Args:
            residual: the patches, edited or not.
            prefix_tokens: those of the same images, from :meth:`state_at_hook`; None for a tower without any.

        Raises:
            ValueError: the tower has another number of prefix tokens.
        """

    @abstractmethod
    def stream_ids(
        self,
        image_embeddings: Float[Tensor, "prompt image token d_text"],
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[list[list[int]]]:
        """Token ids of the answers so far, one list per row, after each token; without the token that ends an answer.

        Ends when all rows have ended or should_stop says so. Every row has the same prompt and the same number of
        images (none is allowed: a plain text question).

        Raises:
            SubjectError: the prompt holds a mark by which the model reads images, or the processor does not fit.
        """

    @abstractmethod
    def text_of(self, token_ids: Sequence[int]) -> str:
        """What an answer of these tokens says, without special tokens and spaces around it."""

    def stream(
        self,
        image_embeddings: Float[Tensor, "prompt image token d_text"],
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[list[str]]:
        """The texts of :meth:`stream_ids`, one per row."""
        steps = self.stream_ids(
            image_embeddings, prompt, max_new_tokens=max_new_tokens, sampling=sampling, should_stop=should_stop
        )
        for rows in steps:
            yield [self.text_of(row) for row in rows]

    @abstractmethod
    def answer_probabilities(
        self, image_embeddings: Float[Tensor, "prompt image token d_text"], prompt: str, answer: str | Sequence[int]
    ) -> list[list[AnswerToken]]:
        """How likely each token of one given answer is under each row's images; one forward pass for all rows.

        The answer is followed token by token, whatever the model itself would have said (teacher forcing). Give what
        the model said as the token ids of :meth:`stream_ids`: read again from its text, it may be cut into other
        tokens and lacks special ones. A text is read with the model's own tokenizer. An answer without tokens gives
        empty lists.
        """

    def generate(
        self,
        image_embeddings: Float[Tensor, "prompt image token d_text"],
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
    ) -> list[str]:
        """Whole answers, one per row; greedy unless sampling is given. Arguments as for :meth:`stream`."""
        steps = self.stream(image_embeddings, prompt, max_new_tokens=max_new_tokens, sampling=sampling)
        last = deque(steps, maxlen=1)
        return last[0] if last else [""] * image_embeddings.shape[0]

    def answer_bytes(self, prompt: str, n_images: int, max_new_tokens: int) -> int:
        """Memory that one row of an answer takes, in bytes, estimated from above; 0 if that is unknown."""
        del prompt, n_images, max_new_tokens
        return 0
