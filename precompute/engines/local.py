"""The plain engine: one shard after another, in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence

from precompute.engines.base import Engine
from precompute.stage import Advance, Stage, StageContext


class LocalEngine(Engine):
    """See the module docstring."""

    def run(self, stage: Stage, context: StageContext, keys: Sequence[str], advance: Advance) -> None:
        for key in keys:
            started = time.monotonic()
            stage.run_shard(context, key)
            context.writer.finish_shard(key)
            context.log.write("shard finished", shard=key, seconds=round(time.monotonic() - started, 3))
            advance()
