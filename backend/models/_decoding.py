"""The token loop shared by the adapters: choose a token per row, stop rows that ended, ask for the next logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from backend.models.base import Sampling


def decode_tokens(
    first_logits: Float[Tensor, "prompt vocabulary"],
    next_logits: Callable[[Int[Tensor, " prompt"]], Float[Tensor, "prompt vocabulary"]],
    *,
    stop_ids: frozenset[int],
    pad_id: int,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[Int[Tensor, "prompt step"]]:
    """Yield the tokens so far, on the CPU, after each step; a row that met a stop id is padded from then on.

    Stop ids are part of the output, as in transformers' generate. ``next_logits`` is not called after the last token.
    """
    choose = _greedy if sampling is None else _Sampler(sampling, first_logits.shape[0])
    stops = torch.tensor(sorted(stop_ids), device=first_logits.device)
    ended = torch.zeros(first_logits.shape[0], dtype=torch.bool, device=first_logits.device)
    columns: list[Tensor] = []
    logits = first_logits
    for step in range(max_new_tokens):
        tokens = torch.where(ended, pad_id, choose(logits))
        ended = ended | torch.isin(tokens, stops)
        columns.append(tokens.cpu())
        yield torch.stack(columns, dim=1)
        if bool(ended.all()) or step + 1 == max_new_tokens or (should_stop is not None and should_stop()):
            return
        logits = next_logits(tokens)


def trimmed(row: list[int], stop_ids: frozenset[int]) -> list[int]:
    """The row up to, not including, its first stop id."""
    return row[: next((at for at, token in enumerate(row) if token in stop_ids), len(row))]


def _greedy(logits: Float[Tensor, "prompt vocabulary"]) -> Int[Tensor, " prompt"]:
    return logits.argmax(dim=-1)


class _Sampler:
    """Temperature, top-k and top-p sampling with one random stream per row, so a row does not depend on its batch."""

    def __init__(self, sampling: Sampling, n_rows: int) -> None:
        self._sampling = sampling
        self._generators = [torch.Generator().manual_seed(sampling.seed * 1_000_003 + row) for row in range(n_rows)]

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
