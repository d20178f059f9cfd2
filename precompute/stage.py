"""What a pipeline stage is: a declaration (name, version, science, shards) and three functions that do the work.

A stage lives in ``precompute/stages/<name>.py`` as the module constant ``STAGE``; the file name is the registry key.
The runner (precompute/runner.py) owns folders, resuming, locking and logging; a stage only computes and writes through
``context.writer``. This module knows no particular stage and no model.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from backend.artifact_writer import LOG_NAME, ArtifactWriter, artifact_fingerprint, inputs_of
from backend.artifacts import Artifact
from precompute.recipe import Recipe, Runtime
from precompute.shrunken import ensure_for

STAGE_NAMES: tuple[str, ...] = ("train_sae", "harvest", "explain", "score", "atlas")
"""The pipeline in order; a stage may only name earlier stages as its upstream."""


class Advance(Protocol):
    """Moves a bar on by ``n`` items."""

    def __call__(self, n: int = 1) -> None: ...


class Progress(Protocol):
    """Progress of the run as the person at the terminal sees it; see precompute/progress.py."""

    def stage(self, name: str, n_shards: int, n_done: int) -> AbstractContextManager[Advance]:
        """A bar over the shards of a stage, ``n_done`` of which were there already."""
        ...

    def track(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """A bar inside a shard, e.g. over images or tokens."""
        ...

    def note(self, message: str) -> None:
        """One line of plain text."""
        ...


class StageLog:
    """Appends one JSON object per event to the stage's log.jsonl: about the run, never about the result."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG_NAME

    def write(self, event: str, **fields: object) -> None:
        """Append ``event`` with Unix time (s), the process's peak memory (bytes) and the given fields."""
        record = {"time_s": round(time.time(), 3), "event": event, "peak_memory_bytes": peak_memory_bytes(), **fields}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, in bytes (the kernel counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """All a stage gets: nothing else may influence its output."""

    recipe: Recipe
    runtime: Runtime
    writer: ArtifactWriter
    upstream: Mapping[str, Artifact]
    """Complete, verified artifacts of the stages named in ``Stage.upstream``."""
    progress: Progress
    out_dir: Path
    """The stage's own folder (the same as ``writer.folder``)."""
    log: StageLog
    shard_keys: tuple[str, ...] = ()
    """All shard keys of the stage, in order; empty while ``Stage.shards`` itself runs."""


class Stage(ABC):
    """One step of the pipeline. Instances hold no data between calls that a rerun would not rebuild."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Bumped whenever the algorithm changes: it is part of the fingerprint."""
    upstream: ClassVar[tuple[str, ...]] = ()
    sequential: ClassVar[bool] = False
    """Shards build on one another (training checkpoints): one that is damaged takes the later ones with it."""
    keep_shards: ClassVar[bool] = True
    """Whether the shards are part of the artifact; if not, they are removed once the manifest is written."""

    @abstractmethod
    def science(self, recipe: Recipe) -> dict[str, Any]:
        """Everything that determines the output: config, prompts, fingerprints of models, data and judges.

        Never device, dtype, batch size, worker count or a path. Values are JSON-like; see artifacts.canonical_json.
        """

    @abstractmethod
    def shards(self, context: StageContext) -> Sequence[str]:
        """Content keys, e.g. ``features-00000-00063``: unique, usable as folder names, the same on every run."""

    @abstractmethod
    def run_shard(self, context: StageContext, key: str) -> None:
        """Compute one shard and write its files with ``context.writer.write_*(..., shard=key)``.

        The result may depend on the recipe, upstream and key only (for sequential stages: on the earlier shards too).
        """

    def phases(self, keys: Sequence[str]) -> Sequence[Sequence[str]]:
        """``keys`` in groups: shards of one group read nothing of one another, only of the groups before."""
        return [[key] for key in keys] if self.sequential else [list(keys)]

    @abstractmethod
    def finish(self, context: StageContext) -> Mapping[str, Any]:
        """Write what needs all shards; return ``{"failures": {reason: count}, "notes": {...}}`` for the manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """A stage with its fingerprint for one recipe, known before anything is computed."""

    stage: Stage
    inputs: Mapping[str, Any]
    """``config`` and ``upstream`` fingerprints."""
    lineage: Mapping[str, Any]
    """For every stage above: its version and inputs, so that a stale artifact can say which field differs."""
    fingerprint: str

    @property
    def folder_name(self) -> str:
        return f"{self.stage.name}/{self.fingerprint[:12]}"


def load_stage(name: str) -> Stage:
    """The ``STAGE`` of precompute/stages/<name>.py."""
    stage = importlib.import_module(f"precompute.stages.{name}").STAGE
    assert isinstance(stage, Stage), f"precompute/stages/{name}.py: STAGE is not a Stage"
    assert stage.name == name, f"precompute/stages/{name}.py: STAGE is named {stage.name!r}"
    return stage


def load_stages() -> tuple[Stage, ...]:
    """All stages in pipeline order."""
    return tuple(load_stage(name) for name in STAGE_NAMES)


def plan(recipe: Recipe, stages: Sequence[Stage] | None = None) -> tuple[PlannedStage, ...]:
    """Fingerprints of every stage for ``recipe``, from the science alone; nothing is run or written.

    Shrunken models that the recipe names are built if they are not there: fingerprints are over their contents.
    """
    ensure_for(recipe)
    planned: dict[str, PlannedStage] = {}
    for stage in load_stages() if stages is None else stages:
        above = {name: planned[name] for name in stage.upstream}
        inputs = inputs_of(stage.science(recipe), {name: item.fingerprint for name, item in above.items()})
        lineage: dict[str, Any] = {}
        for name, item in above.items():
            lineage.update(item.lineage)
            lineage[name] = {"version": item.stage.version, **item.inputs}
        planned[stage.name] = PlannedStage(
            stage=stage,
            inputs=inputs,
            lineage=dict(sorted(lineage.items())),
            fingerprint=artifact_fingerprint(stage.name, stage.version, inputs),
        )
    return tuple(planned.values())
