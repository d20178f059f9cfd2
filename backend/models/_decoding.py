"""The token loop shared by the adapters: choose a token per row, stop rows that ended, ask for the next logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from backend.models.base import AnswerToken, Sampling

STEPS_PER_LOOK = 8
"""Tokens decoded on a GPU between two looks at whether all answers have ended: each look makes the host wait."""


def decode_tokens(
    first_logits: Float[Tensor, "prompt vocabulary"],
    next_logits: Callable[[Int[Tensor, " prompt"]], Float[Tensor, "prompt vocabulary"]],
    *,
    stop_ids: frozenset[int],
    pad_id: int,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    should_stop: Callable[[], bool] | None = None,
    every: int = 1,
) -> Iterator[Int[Tensor, "prompt step"]]:
    """Yield the tokens so far, on the CPU, after each ``every`` steps; a row that met a stop id is padded from then on.

    Stop ids are part of the output, as in transformers' generate. Only when it yields does the host wait for the
    device; steps that were taken after all rows had ended are cut off, so the last tokens do not depend on ``every``.
    With 1, ``next_logits`` is not called after the last token. (Sampling draws on the host, and waits at every step.)
    """
    choose = _greedy if sampling is None else _Sampler(sampling, first_logits.shape[0])
    stops = torch.tensor(sorted(stop_ids), device=first_logits.device)
    ended = torch.zeros(first_logits.shape[0], dtype=torch.bool, device=first_logits.device)
    columns: list[Tensor] = []
    logits = first_logits
    for step in range(max_new_tokens):
        tokens = torch.where(ended, pad_id, choose(logits))
        ended = ended | torch.isin(tokens, stops)
        columns.append(tokens)
        last = step + 1 == max_new_tokens
        if last or (step + 1) % every == 0:
            so_far, over = _looked_at(torch.stack(columns, dim=1).cpu(), stop_ids)
            yield so_far
            if over or last or (should_stop is not None and should_stop()):
                return
        logits = next_logits(tokens)


def _looked_at(tokens: Int[Tensor, "prompt step"], stop_ids: frozenset[int]) -> tuple[Int[Tensor, "prompt step"], bool]:
    """The tokens up to the step at which the last row ended, and whether all rows have."""
    stopped = torch.isin(tokens, torch.tensor(sorted(stop_ids)))
    if not bool(stopped.any(dim=1).all()):
        return tokens, False
    return tokens[:, : int(stopped.int().argmax(dim=1).max()) + 1], True


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


def _greedy(logits: Float[Tensor, "prompt vocabulary"]) -> Int[Tensor, " prompt"]:
    return logits.argmax(dim=-1)


class _Sampler:
    """Temperature, top-k and top-p sampling with one random stream per row, so a row does not depend on its batch."""

    def __init__(self, sampling: Sampling, n_rows: int) -> None:
        self._sampling = sampling
        seeds = [sampling.seed * 1_000_003 + (0 if sampling.paired else row) for row in range(n_rows)]
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, logits: Float[Tensor, "prompt vocabulary"]) -> Int[Tensor, " prompt"]:
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
