"""What the server takes of its machine: threads that leave cores to readers, memory that is given back."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info

from app.resources import keep_memory_small, share_processors
from tests.source_tree import ROOT

IS_GLIBC = platform.libc_ver()[0] == "glibc"
FRAGMENTED = """
from app.resources import return_freed_memory
def resident_mb():
    line = next(one for one in open("/proc/self/status") if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
blocks = [bytearray(60_000) for _ in range(4_000)]
kept = blocks[-1]
del blocks
before = resident_mb()
return_freed_memory()
print(before - resident_mb())
"""


def test_the_model_leaves_cores_to_readers_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    share_processors()
    assert os.environ["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    share_processors()
    assert os.environ["OMP_NUM_THREADS"] == "7"
    blas = [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]
    assert blas and set(blas) == {1}


@pytest.mark.skipif(not IS_GLIBC, reason="another C library keeps its own house")
def test_freed_memory_below_a_block_in_use_goes_back_to_the_system() -> None:
    told = subprocess.run([sys.executable, "-c", FRAGMENTED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(told.stdout) > 150, "of 240 MB that were freed below one block in use"


def test_few_arenas_are_kept_unless_somebody_chose_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert keep_memory_small() is IS_GLIBC
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    assert not keep_memory_small()
