"""The token loop shared by the adapters: choose a token per row, ask for the next logits, let go of rows that ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from backend.models.base import AnswerToken, Sampling

STEPS_PER_LOOK = 8
"""Tokens decoded on a GPU between two looks at which answers have ended: each look makes the host wait."""
ENDED_SHARE = 0.25
"""Of the rows that are fed, so many must have ended before they leave: the caches of those that stay are copied."""


def decode_tokens(
    first_logits: Float[Tensor, "prompt vocabulary"],
    next_logits: Callable[[Int[Tensor, " row"]], Float[Tensor, "row vocabulary"]],
    *,
    stop_ids: frozenset[int],
    pad_id: int,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    should_stop: Callable[[], bool] | None = None,
    every: int = 1,
    keep_rows: Callable[[Int[Tensor, " row"]], None] | None = None,
) -> Iterator[Int[Tensor, "prompt step"]]:
    """Yield the tokens so far, on the CPU, after each ``every`` steps; a row that met a stop id is padded from then on.

    Stop ids are part of the output, as in transformers' generate. Only when it yields does the host wait for the
    device; steps that were taken after all rows had ended are cut off, so the last tokens do not depend on ``every``.
    With 1, ``next_logits`` is not called after the last token. (Sampling draws on the host, and waits at every step.)

    Where ``keep_rows`` is given, rows that have ended are fed no longer once there are enough of them: it is told the
    places of those that stay among the rows fed so far, and ``next_logits`` then gets these alone. What is yielded
    holds all rows, in their order.
    """
    rows = _Rows(first_logits.shape[0], first_logits.device, stop_ids, pad_id, sampling)
    columns: list[Tensor] = []
    logits = first_logits
    for step in range(max_new_tokens):
        tokens = rows.chosen(logits)
        columns.append(rows.in_whole_batch(tokens))
        last = step + 1 == max_new_tokens
        if last or (step + 1) % every == 0:
            so_far, going = _looked_at(torch.stack(columns, dim=1).cpu(), stop_ids)
            yield so_far
            if last or not bool(going.any()) or (should_stop is not None and should_stop()):
                return
            if keep_rows is not None and (stay := rows.let_go(going)) is not None:
                keep_rows(stay)
                tokens = tokens[stay]
        logits = next_logits(tokens)


def _looked_at(
    tokens: Int[Tensor, "prompt step"], stop_ids: frozenset[int]
) -> tuple[Int[Tensor, "prompt step"], Bool[Tensor, " prompt"]]:
    """The tokens, up to the step at which the last row ended if all have; and which rows still go on."""
    stopped = torch.isin(tokens, torch.tensor(sorted(stop_ids)))
    going = ~stopped.any(dim=1)
    if bool(going.any()):
        return tokens, going
    return tokens[:, : int(stopped.int().argmax(dim=1).max()) + 1], going


class _Rows:
    """The rows that are fed: their places in the whole batch, whether they have ended, what they draw with."""

    def __init__(
        self, n_rows: int, device: torch.device, stop_ids: frozenset[int], pad_id: int, sampling: Sampling | None
    ) -> None:
        self._stops = torch.tensor(sorted(stop_ids), device=device)
        self._pad_id = pad_id
        self._pads = torch.full((n_rows,), pad_id, device=device)
        self._ended = torch.zeros(n_rows, dtype=torch.bool, device=device)
        self._on_device = torch.arange(n_rows, device=device)
        self._places = torch.arange(n_rows)
        self._sampler = None if sampling is None else _Sampler(sampling, n_rows)

    def chosen(self, logits: Float[Tensor, "row vocabulary"]) -> Int[Tensor, " row"]:
        """The next token of every fed row; a pad for one that has ended."""
        choice = logits.argmax(dim=-1) if self._sampler is None else self._sampler(logits)
        tokens = torch.where(self._ended, self._pad_id, choice)
        self._ended = self._ended | torch.isin(tokens, self._stops)
        return tokens

    def in_whole_batch(self, tokens: Int[Tensor, " row"]) -> Int[Tensor, " prompt"]:
        """Tokens of the fed rows among pads for those that have left."""
        return self._pads.index_copy(0, self._on_device, tokens)

    def let_go(self, going: Bool[Tensor, " prompt"]) -> Int[Tensor, " row"] | None:
        """Let rows that have ended leave, if they are enough; says which of the fed rows stay, or None for all."""
        stay = going[self._places].nonzero().squeeze(1)
        n_fed = len(self._places)
        if len(stay) == n_fed or n_fed - len(stay) < ENDED_SHARE * n_fed:
            return None
        self._places = self._places[stay]
        if self._sampler is not None:
            self._sampler.keep(stay.tolist())
        stay = stay.to(self._on_device.device)
        self._ended, self._on_device = self._ended[stay], self._on_device[stay]
        return stay


def trimmed(row: list[int], stop_ids: frozenset[int]) -> list[int]:
    """The row up to, not including, its first stop id."""
    return row[: next((at for at, token in enumerate(row) if token in stop_ids), len(row))]


def answer_tokens(
    logits: Float[Tensor, "prompt step vocabulary"], ids: list[int], decode: Callable[[list[int]], str]
) -> list[list[AnswerToken]]:
    """Probabilities of the tokens ``ids`` in every row, from the logits that precede each of them.

    ``decode`` turns token ids into text.
    """
    texts = token_texts(ids, decode)
    # Not log_softmax: that would make another tensor as large as the logits.
    total = logits.float().logsumexp(dim=-1)
    wanted = torch.tensor(ids, device=logits.device).expand(logits.shape[0], -1)
    said = logits.gather(2, wanted[..., None]).squeeze(2).float() - total
    best, best_ids = logits.max(dim=-1)
    rows = zip(said.tolist(), (best.float() - total).tolist(), best_ids.tolist(), strict=True)
    return [
        [
            AnswerToken(
                text=text,
                log_probability=here,
                likeliest_text=text.strip() if rather == own else decode([rather]).strip(),
                likeliest_log_probability=top,
            )
            for text, own, here, top, rather in zip(texts, ids, row, tops, rathers, strict=True)
        ]
        for row, tops, rathers in rows
    ]


def token_texts(ids: list[int], decode: Callable[[list[int]], str]) -> list[str]:
    """The text that each token adds to those before it, so that the pieces joined are the whole text.

    A token that completes a character begun by the one before adds the whole character.
    """
    pieces: list[str] = []
    whole = ""
    for at in range(len(ids)):
        longer = decode(ids[: at + 1])
        # An unfinished character decodes to a replacement sign that the next token takes back.
        start = next((at for at, (a, b) in enumerate(zip(whole, longer, strict=False)) if a != b), len(whole))
        pieces.append(longer[start:].rstrip("\N{REPLACEMENT CHARACTER}"))
        whole = longer
    return pieces


class _Sampler:
    """Temperature, top-k and top-p sampling with one random stream per row, so a row does not depend on its batch."""

    def __init__(self, sampling: Sampling, n_rows: int) -> None:
        self._sampling = sampling
        seeds = [sampling.seed * 1_000_003 + (0 if sampling.paired else row) for row in range(n_rows)]
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def keep(self, stay: list[int]) -> None:
        """Go on with these rows alone."""
        self._generators = [self._generators[row] for row in stay]

    def __call__(self, logits: Float[Tensor, "row vocabulary"]) -> Int[Tensor, " row"]:
        top_k = min(self._sampling.top_k, logits.shape[-1])
        values, indices = (logits.float().cpu() / self._sampling.temperature).topk(top_k, dim=-1)
        probabilities = values.softmax(dim=-1)
        # Keep the smallest set of tokens whose probability reaches top_p; the likeliest token always stays.
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= self._sampling.top_p, 0.0)
        picks = [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(probabilities, self._generators, strict=True)
        ]
        return indices.gather(1, torch.stack(picks)).squeeze(1).to(logits.device)
