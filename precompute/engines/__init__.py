"""Where the shards of a stage are computed: in this process, or by workers of a Ray cluster; the bytes are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from precompute.engines.base import Engine
from precompute.engines.local import LocalEngine
from precompute.recipe import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Which engine computes the shards; never part of a fingerprint."""

    engine: Literal["local", "ray"] = "local"
    """``local``: one shard after another in this process; ``ray``: by workers, one model replica per GPU."""
    ray_workers: int = 0
    """Workers of the Ray engine; 0 takes one per GPU of the cluster, or what its CPUs allow where there is none."""
    ray_address: str = ""
    """HOST:PORT of a running Ray head; without it a cluster of this machine alone is started and ended with the run."""


def open_engine(options: EngineOptions, runtime: Runtime) -> Engine:
    """The engine, not yet started: entering it as a context does that.

    Entering raises DependencyMissing (no Ray) or EngineUnreachable (no Ray head at the address).
    """
    if options.engine == "local":
        return LocalEngine()
    from precompute.engines.ray import RayEngine

    return RayEngine(runtime, n_workers=options.ray_workers, address=options.ray_address)
