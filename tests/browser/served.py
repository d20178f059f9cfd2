"""An explorer in a process of its own, so that a test can end it and start another: nothing survives but the files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.source_tree import ROOT

PROGRAM = """
import sys
from app.launching import start
from tests.builders_atlas import BagEncoder
explorer = start(sys.argv[1:], "127.0.0.1", None, block=False, warm=False, encoder=BagEncoder())
print("URL", explorer.url, flush=True)
explorer.wait()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Where it answers; stands in for an Explorer where only its address matters."""

    url: str


@contextmanager
def served(atlases: list[Path], environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Serve planted atlases on a free port while the context lasts."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, atlases)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("URL "):
                yield Served(url=line.split()[1])
                return
        _, told = process.communicate(timeout=30)
        raise RuntimeError(f"the explorer did not start: {told[-2000:]}")
    finally:
        process.kill()
        process.communicate()
