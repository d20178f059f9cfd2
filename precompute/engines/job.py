"""What a worker is told, and how it makes a stage's context of it: plain text and numbers, nothing else.

Ray turns messages into pickles. Here they pass only between processes of one run, and hold only dicts, lists, strings
and numbers; results travel as files on the shared filesystem, written as the local engine writes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from backend.artifact_writer import ArtifactWriter
from backend.artifacts import Artifact
from backend.errors import EngineError
from backend.memory_limits import MemoryLimits
from precompute.progress import SilentProgress
from precompute.recipe import Recipe, Runtime, parse_recipe
from precompute.stage import PlannedStage, Stage, StageContext, StageLog, load_stages, peak_memory_bytes, plan
from precompute.status import changes_since

LOADER = "precompute.engines.job:recipe_and_stages"
Job = dict[str, Any]


def job_of(stage: Stage, context: StageContext, loader: str = LOADER) -> Job:
    """All that a worker needs to compute shards of ``stage`` as this process would.

    ``loader`` (``module:function``) turns the recipe's dict and name into the recipe and its stages.
    """
    raw = _without_none(json.loads(json.dumps(asdict(context.recipe))))
    return {
        "loader": loader,
        "name": raw.pop("name"),
        "recipe": raw,
        "runtime": asdict(context.runtime),
        "stage": stage.name,
        "stage_version": stage.version,
        "fingerprint": context.writer.fingerprint,
        "inputs": json.loads(json.dumps(context.writer.inputs)),
        "command": context.writer.command,
        "out_dir": str(context.out_dir.resolve()),
        "working_dir": str(Path.cwd()),
        "upstream": {name: str(artifact.folder.resolve()) for name, artifact in context.upstream.items()},
        "shard_keys": list(context.shard_keys),
    }


def recipe_and_stages(raw: Mapping[str, Any], name: str) -> tuple[Recipe, Sequence[Stage]]:
    """The usual loader: a recipe of the shipped kinds, and the five stages."""
    return parse_recipe(raw, name), load_stages()


def _without_none(value: Any) -> Any:
    """Fields that are None are left out: a recipe's parser knows no null."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


class HeldProgress(SilentProgress):
    """Keeps the notes for the driver; bars inside a shard are not shown."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


class HeldLog(StageLog):
    """Keeps the events for the driver: only one process appends to log.jsonl."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.events: list[dict[str, Any]] = []

    def write(self, event: str, **fields: object) -> None:
        self.events.append({"event": event, "peak_memory_bytes": peak_memory_bytes(), **fields})


class JobSite:
    """A job made ready in this process; kept for the next shard of the same job."""

    def __init__(self, job: Job) -> None:
        """Raises EngineError if this machine would compute something else than the driver asked for."""
        if Path(job["working_dir"]).is_dir():
            os.chdir(job["working_dir"])  # relative paths of a recipe mean what they mean to the driver
        module, _, function = job["loader"].partition(":")
        recipe, stages = getattr(import_module(module), function)(job["recipe"], job["name"])
        item = next(item for item in plan(recipe, stages) if item.stage.name == job["stage"])
        _require_same(item, job)
        self.stage = item.stage
        self.progress = HeldProgress()
        folder = Path(job["out_dir"])
        self.log = HeldLog(folder)
        self.limits = MemoryLimits(say=self._memory_note)
        inputs = item.inputs
        self.context = StageContext(
            recipe=recipe,
            runtime=Runtime(**job["runtime"]),
            writer=ArtifactWriter(
                folder,
                item.stage.name,
                item.stage.version,
                inputs["config"],
                inputs["upstream"],
                lineage=item.lineage,
                command=job["command"],
            ),
            upstream={name: Artifact.open(Path(place), name, verify=False) for name, place in job["upstream"].items()},
            progress=self.progress,
            out_dir=folder,
            log=self.log,
            shard_keys=tuple(job["shard_keys"]),
        )

    def _memory_note(self, message: str) -> None:
        self.progress.note(message)
        self.log.write("memory ran out", message=message)


def _require_same(item: PlannedStage, job: Job) -> None:
    if item.fingerprint == job["fingerprint"]:
        return
    asked = {"inputs": job["inputs"], "stage_version": job["stage_version"]}
    raise EngineError(
        f"node {os.uname().nodename} would compute another {job['stage']}: {'; '.join(changes_since(asked, item))}. "
        "Give every node the same Iconoscope, models and data."
    )
