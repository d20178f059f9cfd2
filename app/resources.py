"""The server as a good neighbour of the programs beside it: few threads, and memory that is free given back."""

from __future__ import annotations

import ctypes
import gc
import os

import pyarrow as pa
from threadpoolctl import threadpool_limits

from backend.settings import is_set, suggest_threads

_MALLOPT = {"M_ARENA_MAX": (-8, 2), "M_MMAP_THRESHOLD": (-3, 1 << 20), "M_TRIM_THRESHOLD": (-1, 8 << 20)}
"""Numbers of glibc's malloc.h and the values set; sizes in bytes."""


def share_processors() -> None:
    """Let the model, the index and the encoder of queries share the processor with whoever reads meanwhile.

    Each of these libraries starts a thread for every core by default. Under load they then fight for the cores: on two
    of them a steered answer took 31 s instead of 2 s (docs/log.md, "Threads under load"). Whoever set OMP_NUM_THREADS
    knows better and keeps it.
    """
    # Read by torch and faiss when they are first imported, which nothing has done yet.
    suggest_threads(max(1, (os.cpu_count() or 1) // 2))
    threadpool_limits(limits=1, user_api="blas")


def keep_memory_small() -> bool:
    """Let glibc keep less of what is freed, and Arrow nothing: an arena for each of a hundred threads holds on to the
    most it ever had, as do Arrow's own (docs/log.md, "What the server keeps"). Whoever set MALLOC_ARENA_MAX knows
    better and keeps it. False where nothing could be set: another C library.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt is None or is_set("MALLOC_ARENA_MAX"):
        return False
    return all(mallopt(number, value) == 1 for number, value in _MALLOPT.values())


def return_freed_memory() -> None:
    """Give the system what loading has freed: worth the tenth of a second once everything stands."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    if trim := getattr(_c_library(), "malloc_trim", None):
        trim(0)


def _c_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)  # the one this process runs on
    except (OSError, TypeError):
        return None
