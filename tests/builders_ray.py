"""What a Ray worker loads in a test: the toy pipeline or the planted one; and toy shards that kill their own process.

A file ``die-<shard>-<n>`` beside the stages' folders is one death: the worker removes it, writes half of the shard and
gets SIGKILL. ``fail-<shard>`` makes the shard raise instead, ``stop-<shard>`` names a process for SIGINT.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.errors import DataError
from precompute.recipe import Recipe, parse_recipe
from precompute.stage import Stage, StageContext, load_stages
from tests.toy_pipeline import Ranges, Total, Train

LOADER = "tests.builders_ray:recipe_and_stages"


class DeadlyRanges(Ranges):
    """The toy's ranges, which die, fail and speak as the files of the run's folder say."""

    def run_shard(self, context: StageContext, key: str) -> None:
        run = context.out_dir.parents[1]
        for order in sorted(run.glob(f"die-{key}-*")):
            order.unlink()
            context.writer.write_bytes("squares.parquet", b"half a shard", shard=key)
            os.kill(os.getpid(), signal.SIGKILL)
        if (run / f"fail-{key}").is_file():
            raise DataError(f"shard {key} cannot be read")
        if (order := run / f"stop-{key}").is_file():
            context.writer.write_bytes("squares.parquet", b"half a shard", shard=key)
            os.kill(int(order.read_text()), signal.SIGINT)
            time.sleep(60)
        super().run_shard(context, key)
        context.progress.note(f"computed {key}")
        context.log.write("range computed", first=key)


def deadly_stages() -> tuple[Stage, ...]:
    """The toy pipeline with deadly ranges."""
    return (Train(), DeadlyRanges(), Total())


def order_deaths(run: Path, key: str, n: int) -> None:
    """Let the shard's worker die ``n`` times."""
    run.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        (run / f"die-{key}-{number}").touch()


def recipe_and_stages(raw: Mapping[str, Any], name: str) -> tuple[Recipe, Sequence[Stage]]:
    """The loader of both pipelines."""
    if name == "planted":
        from tests.builders_pipeline import install, planted_recipe  # loads torch, which the toy does without

        install()
        return planted_recipe(Path(raw["subject"]["path"])), load_stages()
    return parse_recipe(raw, name), deadly_stages()
