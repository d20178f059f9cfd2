"""The k largest pre-activations of each token, faster than by ``torch.topk`` over all features.

Both ways cut the features into runs and look at the maxima of the runs first: few runs can hold one of the k largest.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_RUN = 32
"""Neighbouring features whose maximum is looked at first when the k largest are sought in any order."""
_RUNS_PER_K = 3
"""At least so many runs for each of the k largest when they are sought in order: with more, fewer others pass."""


def top_k(pre: Float[Tensor, "token d_sae"], k: int) -> tuple[Float[Tensor, "token k"], Int[Tensor, "token k"]]:
    """The k largest of every row, largest first: values and indices of ``torch.topk``, whatever it does with ties.

    On the CPU at least k + 1 columns reach the (k + 1)-th largest maximum of a row's runs, so the k + 1 largest do too,
    and only the columns that do are sorted. Where two of the k + 1 are equal, ``torch.topk`` itself has the last word.
    """
    n_tokens, d_sae = pre.shape
    n_runs = 1 << (_RUNS_PER_K * (k + 1) - 1).bit_length()
    if pre.device.type != "cpu" or pre.dtype != torch.float32 or n_tokens == 0 or d_sae < 4 * n_runs:
        return tuple(pre.topk(k, dim=1))
    length = d_sae // n_runs
    # Run number r is the columns r, r + n_runs, ...: the maximum over whole slices is the quick one.
    maxima = np.sort(pre[:, : length * n_runs].unflatten(1, (length, n_runs)).amax(dim=1).numpy(), axis=1)
    if np.isnan(maxima[:, -1]).any():
        return tuple(pre.topk(k, dim=1))
    dense = pre.numpy()
    passed = np.flatnonzero(dense >= maxima[:, n_runs - k - 1, None])
    starts = np.searchsorted(passed, np.arange(n_tokens) * d_sae)
    counts = np.diff(starts, append=passed.size)
    width = int(counts.max())
    place = np.arange(passed.size) + np.repeat(np.arange(n_tokens) * width - starts, counts)
    columns = np.zeros(n_tokens * width, dtype=np.int64)
    columns[place] = passed
    few = np.full(n_tokens * width, -np.inf, dtype=np.float32)
    few[place] = dense.reshape(-1)[passed]
    found = torch.from_numpy(few).view(n_tokens, width).topk(k + 1, dim=1)
    indices = torch.from_numpy(columns).view(n_tokens, width).gather(1, found.indices[:, :k])
    indices -= torch.arange(0, n_tokens * d_sae, d_sae)[:, None]
    values = found.values[:, :k].contiguous()
    tied = (found.values[:, 1:] == found.values[:, :-1]).any(dim=1)
    if tied.any():
        values[tied], indices[tied] = pre[tied].topk(k, dim=1)
    return values, indices


def top_k_in_any_order(
    pre: Float[Tensor, "token d_sae"], k: int
) -> tuple[Float[Tensor, "token k"], Int[Tensor, "token k"]]:
    """The k largest of every row, in no particular order: exactly those of ``torch.topk``, up to ties.

    Nothing in it waits for a GPU. A value among the k largest lies in one of the k runs with the largest maxima, so
    only those are searched.
    """
    n_tokens, d_sae = pre.shape
    if d_sae % _RUN or d_sae // _RUN < 4 * k:
        found = pre.topk(k, dim=1, sorted=False)
        return found.values, found.indices
    runs = pre.view(n_tokens, d_sae // _RUN, _RUN)
    best = runs.amax(dim=2).topk(k, dim=1, sorted=False).indices
    firsts = torch.arange(0, n_tokens * runs.shape[1], runs.shape[1], device=pre.device)
    candidates = runs.flatten(0, 1).index_select(0, (best + firsts[:, None]).flatten()).view(n_tokens, k * _RUN)
    values, places = candidates.topk(k, dim=1, sorted=False)
    return values, best.gather(1, places // _RUN) * _RUN + places % _RUN
