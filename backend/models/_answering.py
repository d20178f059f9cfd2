"""The language half of an adapter: a prompt with image embeddings goes in, words and their probabilities come out.

The same for every family whose transformers class generates from ``inputs_embeds``. An adapter adds the vision half
and says how its family lays out a prompt and masks attention.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from backend.errors import SubjectError
from backend.models._checkpoint import Checkpoint
from backend.models._decoding import STEPS_PER_LOOK, answer_tokens, decode_tokens, trimmed
from backend.models._memory import answer_bytes
from backend.models._tower import CheckpointTower
from backend.models.base import AnswerToken, ModelCard, Sampling, SubjectModel
from backend.types import HookPoint

MAX_PREPARED_PROMPTS = 32
AttentionMask = dict[str, Tensor | None] | None
"""Masks by kind of layer, or None where the model builds its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _PreparedPrompt:
    """A prompt ready for any number of rows: all that does not depend on what the images show."""

    embeddings: Float[Tensor, "token d_text"]
    image_positions: Int[Tensor, " token"]
    is_image: Bool[Tensor, " token"]
    masks: AttentionMask
    positions: Int[Tensor, "axis 1 position"] | None
    """Where each token lies for the language model; None where it counts them itself."""

    def placed(self, n_rows: int, *, first: int, end: int) -> dict[str, Tensor]:
        """Positions of the tokens ``first`` to ``end - 1`` of prompt and answer, as an argument of the model."""
        if self.positions is None:
            return {}
        # Words of an answer go on after the largest position of the prompt, on every axis.
        n_prompt = self.positions.shape[2]
        later = self.positions.max() + 1 + torch.arange(max(end - n_prompt, 0), device=self.positions.device)
        whole = torch.cat([self.positions, later.expand(self.positions.shape[0], 1, -1)], dim=2)
        return {"position_ids": whole[:, :, first:end].expand(-1, n_rows, -1)}

    def filled(
        self, image_embeddings: Float[Tensor, "prompt image token d_text"]
    ) -> Float[Tensor, "prompt position d_text"]:
        """The prompt once per row, with that row's images in their places."""
        embeddings = self.embeddings.repeat(image_embeddings.shape[0], 1, 1)
        flat = rearrange(image_embeddings, "prompt image token d_text -> prompt (image token) d_text")
        embeddings[:, self.image_positions] = flat.to(embeddings.device, embeddings.dtype)
        return embeddings


class AnsweringSubject(CheckpointTower, SubjectModel):
    """A transformers model for conditional generation, with its processor, cut at one block of its vision tower."""

    end_of_turn: ClassVar[str]
    """The token that closes a turn in the family's chat template."""
    image_marks: ClassVar[tuple[str, ...]]
    """Tokens by which the family marks images and videos in a prompt; a question may not hold one."""
    step_mask: ClassVar[AttentionMask] = None
    """Attention mask of one new token, when everything in the cache is visible."""

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        super().__init__(checkpoint, card=card, hook_point=hook_point)
        self.processor: Any = checkpoint.processor
        self.d_text = self.model.config.text_config.hidden_size
        self._prompts: OrderedDict[tuple[str, int], _PreparedPrompt] = OrderedDict()
        self._stop_ids = self._find_stop_ids()
        self._pad_id = int(self.processor.tokenizer.pad_token_id or 0)

    @abstractmethod
    def _masks(
        self, embeddings: Float[Tensor, "1 position d_text"], is_image: Bool[Tensor, " position"]
    ) -> AttentionMask:
        """Attention masks of a prompt. One row's serve every row: same prompt, same length, no padding."""

    def _find_stop_ids(self) -> frozenset[int]:
        eos: Any = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ids = set(eos if isinstance(eos, list) else [] if eos is None else [eos])
        tokenizer = self.processor.tokenizer
        if tokenizer.eos_token_id is not None:
            ids.add(tokenizer.eos_token_id)
        end_of_turn = tokenizer.convert_tokens_to_ids(self.end_of_turn)
        if end_of_turn is not None and end_of_turn != tokenizer.unk_token_id:
            ids.add(end_of_turn)
        return frozenset(ids)

    def _sequence(
        self,
        residual: Float[Tensor, "image patch d_model"],
        prefix_tokens: Float[Tensor, "image prefix d_model"] | None,
    ) -> Float[Tensor, "image token d_model"]:
        """All tokens in the tower's order, in its dtype. Raises ValueError if prefix tokens are missing or too many."""
        n_given = 0 if prefix_tokens is None else prefix_tokens.shape[1]
        if n_given != self.grid.n_prefix_tokens:
            raise ValueError(
                f"{self.card.name} carries {self.grid.n_prefix_tokens} prefix tokens past the hook point, not "
                f"{n_given}: take them from state_at_hook"
            )
        tokens = residual if prefix_tokens is None or not n_given else torch.cat([prefix_tokens, residual], dim=1)
        return tokens.to(self.device, self.model.dtype)

    def _positions(
        self, ids: Int[Tensor, "1 position"], is_image: Bool[Tensor, " position"]
    ) -> Int[Tensor, "axis 1 position"] | None:
        """Positions of a prompt's tokens, where the language model does not simply count them."""
        del ids, is_image
        return None

    def stream_ids(
        self,
        image_embeddings: Float[Tensor, "prompt image token d_text"],
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[list[list[int]]]:
        for tokens in self._token_steps(image_embeddings, prompt, max_new_tokens, sampling, should_stop):
            yield [trimmed(row, self._stop_ids) for row in tokens.tolist()]

    def text_of(self, token_ids: Sequence[int]) -> str:
        return self._decode(list(token_ids)).strip()

    def _decode(self, token_ids: list[int]) -> str:
        return self.processor.tokenizer.decode(token_ids, skip_special_tokens=True)

    def generate(
        self,
        image_embeddings: Float[Tensor, "prompt image token d_text"],
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
    ) -> list[str]:
        tokens = self.generate_ids(image_embeddings, prompt, max_new_tokens=max_new_tokens, sampling=sampling)
        return [self.text_of(trimmed(row, self._stop_ids)) for row in tokens.tolist()]

    def generate_ids(
        self,
        image_embeddings: Float[Tensor, "prompt image token d_text"],
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
    ) -> Int[Tensor, "prompt step"]:
        """The answers' token ids, stop id included, padded after it: what transformers' generate appends."""
        every = 1 if self.device.type == "cpu" else STEPS_PER_LOOK
        last = deque(self._token_steps(image_embeddings, prompt, max_new_tokens, sampling, None, every), maxlen=1)
        return last[0] if last else torch.empty(image_embeddings.shape[0], 0, dtype=torch.long)

    @torch.no_grad()
    def answer_probabilities(
        self, image_embeddings: Float[Tensor, "prompt image token d_text"], prompt: str, answer: str | Sequence[int]
    ) -> list[list[AnswerToken]]:
        self._check_embeddings(image_embeddings)
        said = self.processor.tokenizer.encode(answer, add_special_tokens=False) if isinstance(answer, str) else answer
        ids, n_rows = list(said), image_embeddings.shape[0]
        if not ids or not n_rows:
            return [[] for _ in range(n_rows)]
        prepared = self._prepare(prompt, image_embeddings.shape[1])
        # The last token's own logits would tell of the token after it, so it is not fed.
        fed = self.model.get_input_embeddings()(torch.tensor([ids[:-1]], dtype=torch.long, device=self.device))
        filled = prepared.filled(image_embeddings)
        embeddings = torch.cat([filled, fed.expand(n_rows, -1, -1).to(filled.dtype)], dim=1)
        is_image = torch.cat([prepared.is_image, prepared.is_image.new_zeros(fed.shape[1])])
        output = self.model(
            inputs_embeds=embeddings,
            attention_mask=self._masks(embeddings[:1], is_image),
            use_cache=False,
            logits_to_keep=len(ids),
            **prepared.placed(n_rows, first=0, end=embeddings.shape[1]),
        )
        return answer_tokens(output.logits, ids, self._decode)

    def answer_bytes(self, prompt: str, n_images: int, max_new_tokens: int) -> int:
        n_prompt = self._prepare(prompt, n_images).embeddings.shape[0]
        return answer_bytes(self.model.config.text_config, n_prompt, max_new_tokens, self.model.dtype.itemsize)

    def _check_embeddings(self, image_embeddings: Float[Tensor, "prompt image token d_text"]) -> None:
        if tuple(image_embeddings.shape[2:]) != (self.n_image_tokens, self.d_text):
            raise ValueError(
                f"image embeddings have the shape [prompt image {self.n_image_tokens} {self.d_text}], "
                f"not {tuple(image_embeddings.shape)}"
            )

    def _token_steps(
        self,
        image_embeddings: Float[Tensor, "prompt image token d_text"],
        prompt: str,
        max_new_tokens: int,
        sampling: Sampling | None,
        should_stop: Callable[[], bool] | None,
        every: int = 1,
    ) -> Iterator[Int[Tensor, "prompt step"]]:
        self._check_embeddings(image_embeddings)
        n_prompts, n_images = image_embeddings.shape[:2]
        if n_prompts == 0 or max_new_tokens < 1:
            return
        prepared = self._prepare(prompt, n_images)
        embeddings = prepared.filled(image_embeddings)
        with torch.no_grad():
            output = self.model(
                inputs_embeds=embeddings,
                attention_mask=prepared.masks,
                use_cache=True,
                logits_to_keep=1,
                **prepared.placed(n_prompts, first=0, end=embeddings.shape[1]),
            )
        cache = output.past_key_values

        def next_logits(tokens: Int[Tensor, " row"]) -> Float[Tensor, "row vocabulary"]:
            n_before = cache.get_seq_length()
            with torch.no_grad():
                step = self.model(
                    input_ids=tokens[:, None],
                    attention_mask=self.step_mask,
                    past_key_values=cache,
                    use_cache=True,
                    **prepared.placed(len(tokens), first=n_before, end=n_before + 1),
                )
            return step.logits[:, -1]

        yield from decode_tokens(
            output.logits[:, -1],
            next_logits,
            stop_ids=self._stop_ids,
            pad_id=self._pad_id,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            should_stop=should_stop,
            every=every,
            keep_rows=cache.batch_select_indices,
        )

    @torch.no_grad()
    def _prepare(self, prompt: str, n_images: int) -> _PreparedPrompt:
        """Tokens, embeddings and attention masks of one user turn: the images, then the words."""
        key = (prompt, n_images)
        if key in self._prompts:
            self._prompts.move_to_end(key)
            return self._prompts[key]
        ids = self._token_ids(prompt, n_images)
        is_image = ids[0] == self.model.config.image_token_id
        if int(is_image.sum()) != n_images * self.n_image_tokens:
            raise SubjectError(
                f"the chat template of {self.card.name} gave {int(is_image.sum())} image tokens for {n_images} images, "
                f"but the model makes {self.n_image_tokens} an image: the processor belongs to another model"
            )
        # The image token may lie outside the embedding table; its embedding is overwritten in any case.
        embeddings = self.model.get_input_embeddings()(ids.masked_fill(is_image, self._pad_id))
        prepared = _PreparedPrompt(
            embeddings=embeddings[0],
            image_positions=is_image.nonzero().squeeze(1),
            is_image=is_image,
            masks=self._masks(embeddings, is_image),
            positions=self._positions(ids, is_image),
        )
        self._prompts[key] = prepared
        if len(self._prompts) > MAX_PREPARED_PROMPTS:
            self._prompts.popitem(last=False)
        return prepared

    def _token_ids(self, prompt: str, n_images: int) -> Int[Tensor, "1 position"]:
        """The user turn through the model's own chat template, around ``n_images`` blank images."""
        marks = [mark for mark in self.image_marks if mark in prompt]
        if marks:
            raise SubjectError(
                f"the prompt holds {', '.join(marks)}, by which {self.card.name} marks its images: leave it out; "
                "images are put in by themselves, before the words"
            )
        blank = self.blank_image()
        content: list[dict[str, object]] = [{"type": "image", "image": blank} for _ in range(n_images)]
        content.append({"type": "text", "text": prompt})
        return self._tokenised([{"role": "user", "content": content}]).to(self.device)

    def _tokenised(self, turn: Sequence[dict[str, object]]) -> Int[Tensor, "1 position"]:
        """A turn as the processor lays it out, with all the tokens of each image."""
        inputs = self.processor.apply_chat_template(
            list(turn),
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"images_kwargs": dict(self.image_options)} if self.image_options else None,
        )
        return inputs["input_ids"]
