"""Batches that halve when the device's memory is used up, and go on; and how many rows a GPU's free memory holds.

Rows never look at one another, so a split batch gives the same rows up to the rounding of float sums (which may differ
with the batch size). Code that uses this must not let anything else depend on where a batch ends.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from backend.errors import NotEnoughMemory
from backend.memory_limits import MemoryLimits, limits_in_force

Result = TypeVar("Result")
MEMORY_SHARE = 0.8
"""Of the free memory so much is planned for; the rest is for what the estimate does not know."""
OPTIONS = ("images", "prompts")
"""Kinds of rows whose batch size a run can be told: ``--images-per-batch``, ``--prompts-per-batch``."""
_CPU_SIGNS = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")


def in_batches(what: str, n_rows: int, batch_size: int, compute: Callable[[slice], Result]) -> Iterator[Result]:
    """``compute`` of slices of ``n_rows`` rows, in order; a slice that does not fit into memory is tried in halves.

    Args:
        what: what a row is, in the plural, e.g. ``images``; halving lasts for all batches of one kind.
        n_rows: rows in all.
        batch_size: rows of one slice at most.
        compute: must leave nothing behind if it raises.

    Raises:
        NotEnoughMemory: one row alone does not fit.
    """
    limits = limits_in_force()
    start = 0
    while start < n_rows:
        size = min(batch_size, limits.rows.get(what, batch_size))
        part = slice(start, min(start + size, n_rows))
        results, reason = _attempt(what, part, compute)
        if reason is not None:
            # Not inside the handler: the error's frames hold the tensors of the failed attempt.
            _halve(limits, what, part.stop - part.start, reason)
            continue
        yield results[0]
        start = part.stop


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device (or the host, through torch's allocator) had no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, NotEnoughMemory)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _CPU_SIGNS)


def _attempt(what: str, part: slice, compute: Callable[[slice], Result]) -> tuple[list[Result], str | None]:
    try:
        return [compute(part)], None
    except (RuntimeError, NotEnoughMemory) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if part.stop - part.start > 1:
            return [], reason
        raise NotEnoughMemory(
            f"A batch of 1 does not fit into memory ({what}: {reason}). Use a device with more memory, a smaller or "
            "quantised model, or --dtype bfloat16."
        ) from error


def _halve(limits: MemoryLimits, what: str, n_rows: int, reason: str) -> None:
    limits.n_halved[what] += 1
    limits.rows[what] = n_rows // 2
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
    starts = f" --{what}-per-batch {n_rows // 2} starts so." if what in OPTIONS else ""
    limits.say(f"memory ran out with {n_rows} {what} at once; going on with {n_rows // 2} ({reason}).{starts}")


def fitting_rows(device: torch.device, bytes_per_row: int, limit: int) -> int:
    """Rows that the free memory of a GPU holds, at least 1 and at most ``limit``; elsewhere always ``limit``."""
    if device.type != "cuda" or bytes_per_row <= 0:
        return limit
    free, _ = torch.cuda.mem_get_info(device)
    # What torch has reserved and does not use is free as well.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return rows_in(free, bytes_per_row, limit)


def rows_in(free_bytes: int, bytes_per_row: int, limit: int) -> int:
    """Rows of a size that MEMORY_SHARE of some free bytes holds, at least 1 and at most ``limit``."""
    return max(1, min(limit, int(MEMORY_SHARE * free_bytes) // bytes_per_row))
