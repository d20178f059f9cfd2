"""Runs the stages of a recipe: folders by fingerprint, resume by shard, one process per output folder.

``OUT/<stage>/<first 12 hex>/`` holds config.json (first), plan.json (the shard keys), shards/, log.jsonl and
manifest.json (last); ``OUT/latest.json`` maps every finished stage to its folder. A shard counts as done when its
sidecar is there and every file matches it; anything else is computed again. A killed run thus ends, when run again,
with the bytes it would have had. This module knows no particular stage.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from backend.artifact_writer import PLAN_NAME, TEMPORARY_PREFIX, ArtifactWriter, raise_if_disk_full, sweep, write_file
from backend.artifacts import MANIFEST_NAME, SHARDS_NAME, Artifact
from backend.errors import ArtifactDamaged, ArtifactError, ArtifactStale
from backend.memory_limits import MemoryLimits, memory_limits
from precompute.engines.base import Engine
from precompute.engines.local import LocalEngine
from precompute.progress import duration
from precompute.recipe import Recipe, Runtime
from precompute.stage import PlannedStage, Progress, Stage, StageContext, StageLog, plan

LATEST_NAME = "latest.json"
LOCK_NAME = ".lock"


class RunStopped(KeyboardInterrupt):
    """The person (Ctrl-C) or the system (SIGTERM) asked the run to stop."""


def run_recipe(
    recipe: Recipe,
    out_dir: Path,
    runtime: Runtime,
    progress: Progress,
    stages: Sequence[Stage] | None = None,
    command: str | None = None,
    engine: Engine | None = None,
) -> Mapping[str, Artifact]:
    """Bring every stage of ``recipe`` up to date in ``out_dir`` and return the artifacts by stage.

    ``command`` is the command line that repeats this run; messages and config.json name it. ``engine`` computes the
    shards (it must be entered already); by default they are computed here.
    Raises ArtifactError (locked folder, full disk), RunStopped, and whatever a stage raises.
    """
    command = command or f"iconoscope run {recipe.name} --out {out_dir}"
    engine = engine or LocalEngine()
    started = time.monotonic()
    with locked(out_dir), stopping_cleanly():
        sweep(out_dir.glob(f"{TEMPORARY_PREFIX}*"))
        planned = plan(recipe, stages)
        artifacts: dict[str, Artifact] = {}
        n_computed = 0
        for item in planned:
            folder = out_dir / item.folder_name
            artifact = _finished(folder, item, progress)
            if artifact is None:
                above = {name: artifacts[name] for name in item.stage.upstream}
                try:
                    artifact = _run_stage(
                        item, folder, above, recipe, runtime, progress, command, engine or LocalEngine()
                    )
                except OSError as error:  # from a stage's own files or the log; the writer's are told already
                    raise_if_disk_full(error, folder)
                    raise
                n_computed += 1
            artifacts[item.stage.name] = artifact
            _write_latest(out_dir, item.stage.name, artifact.folder)
        if n_computed:
            progress.note(f"{recipe.name}: {n_computed} of {len(planned)} stages computed in {_since(started)}.")
        else:
            progress.note(f"{recipe.name}: nothing to do, all {len(planned)} stages are finished in {out_dir}.")
    return artifacts


def _since(started: float) -> str:
    return duration(time.monotonic() - started)


def _finished(folder: Path, item: PlannedStage, progress: Progress) -> Artifact | None:
    """The stage's artifact if it is complete and sound. A damaged one is reopened: its manifest is withdrawn."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        artifact = Artifact.open(folder, item.stage.name)
    except (ArtifactDamaged, ArtifactStale) as error:
        progress.note(f"{item.stage.name}: {error} Computing what is damaged again.")
        (folder / MANIFEST_NAME).unlink()
        return None
    assert artifact.fingerprint == item.fingerprint, f"{folder} carries another fingerprint"
    _prune_shards(artifact)
    return artifact


def _run_stage(
    item: PlannedStage,
    folder: Path,
    upstream: Mapping[str, Artifact],
    recipe: Recipe,
    runtime: Runtime,
    progress: Progress,
    command: str,
    engine: Engine,
) -> Artifact:
    stage, started = item.stage, time.monotonic()
    config, above = item.inputs["config"], item.inputs["upstream"]
    writer = ArtifactWriter(folder, stage.name, stage.version, config, above, lineage=item.lineage, command=command)
    assert writer.fingerprint == item.fingerprint
    writer.sweep()
    log = StageLog(folder)
    context = StageContext(
        recipe=recipe,
        runtime=runtime,
        writer=writer,
        upstream=upstream,
        progress=progress,
        out_dir=folder,
        log=log,
    )
    log.write("stage started", fingerprint=item.fingerprint, pid=os.getpid())
    keys = _shard_keys(stage, context)
    context = replace(context, shard_keys=keys)
    missing = _missing_shards(stage, writer, keys, progress)
    limits = MemoryLimits(say=lambda message: _memory_note(context, message))
    with memory_limits(limits):
        artifact = _computed(context, stage, keys, missing, engine)
    _prune_shards(artifact)
    log.write("stage finished", seconds=round(time.monotonic() - started, 3), failures=dict(artifact.manifest.failures))
    progress.note(f"{stage.name}: finished in {_since(started)}{_failure_text(artifact)} ({folder}).")
    return artifact


def _computed(
    context: StageContext, stage: Stage, keys: tuple[str, ...], missing: Sequence[str], engine: Engine
) -> Artifact:
    _run_shards(stage, context, keys, missing, engine)
    context.progress.note(f"{stage.name}: {len(keys)} of {len(keys)} shards done, finishing.")
    extra = stage.finish(context)
    return context.writer.commit(extra, shards=keys if stage.keep_shards else ())


def _memory_note(context: StageContext, message: str) -> None:
    """Said aloud and kept: a batch size that does not fit costs time on every run."""
    context.progress.note(message)
    context.log.write("memory ran out", message=message)


def _failure_text(artifact: Artifact) -> str:
    """Failures are said aloud: they were counted, and nobody should have to look for them."""
    failures = artifact.manifest.failures
    return f", failures: {', '.join(f'{reason} {count}' for reason, count in failures.items())}" if failures else ""


def _shard_keys(stage: Stage, context: StageContext) -> tuple[str, ...]:
    keys = tuple(stage.shards(context))
    assert len(set(keys)) == len(keys), f"stage {stage.name} names a shard twice"
    assert all(key and "/" not in key and not key.startswith(".") for key in keys), f"{stage.name}: bad shard key"
    write_file(context.out_dir / PLAN_NAME, (json.dumps({"shards": keys}, indent=1) + "\n").encode())
    return keys


def _missing_shards(stage: Stage, writer: ArtifactWriter, keys: Sequence[str], progress: Progress) -> list[str]:
    """Keys to compute, after dropping what is damaged (for sequential stages: and everything that follows it)."""
    states = {key: writer.shard_state(key) for key in keys}
    for key, state in states.items():
        if state == "damaged":
            progress.note(f"{stage.name}: shard {key} is damaged and will be computed again.")
    if stage.sequential:
        missing = _sequential_missing(keys, states)
    else:
        missing = [key for key in keys if states[key] not in {"done", "retired"}]
    for key in missing:
        writer.drop_shard(key)
    return missing


def _sequential_missing(keys: Sequence[str], states: Mapping[str, str]) -> list[str]:
    """The keys after the last one that is whole, of those reachable without a gap."""
    gap = next((place for place, key in enumerate(keys) if states[key] not in {"done", "retired"}), len(keys))
    whole = [place for place in range(gap) if states[keys[place]] == "done"]
    return list(keys[whole[-1] + 1 if whole else 0 :])


def _run_shards(
    stage: Stage, context: StageContext, keys: Sequence[str], missing: Sequence[str], engine: Engine
) -> None:
    n_done = len(keys) - len(missing)
    if n_done and missing:
        context.progress.note(f"{stage.name}: resuming, {n_done} of {len(keys)} shards are there already.")
    with context.progress.stage(stage.name, len(keys), n_done) as advance:
        engine.run(stage, context, missing, advance)


def _prune_shards(artifact: Artifact) -> None:
    """Remove shards that the manifest does not list (checkpoints of a finished training)."""
    folder = artifact.folder / SHARDS_NAME
    if folder.is_dir() and not artifact.manifest.shards:
        shutil.rmtree(folder, ignore_errors=True)


def _write_latest(out_dir: Path, stage: str, folder: Path) -> None:
    """Point latest.json at a finished stage; the others keep pointing at what they last finished."""
    path = out_dir / LATEST_NAME
    latest: dict[str, str] = {}
    if path.is_file():
        try:
            latest = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            latest = {}  # an index, nothing more: every entry is written again in this run
    if latest.get(stage) != (name := folder.relative_to(out_dir).as_posix()):
        write_file(path, (json.dumps({**latest, stage: name}, indent=1) + "\n").encode())


@contextmanager
def locked(out_dir: Path) -> Iterator[None]:
    """Hold the lock of ``out_dir``: the kernel frees it when the process ends. ArtifactError if it is held."""
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / LOCK_NAME
    with path.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise ArtifactError(
                f"Another run (process {owner}) is writing to {out_dir}. Wait for it, stop it, or give another --out."
            ) from error
        handle.seek(0)
        handle.truncate()
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


@contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into RunStopped, so that temporary files are removed on the way out."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise RunStopped(signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers; elsewhere the caller's own handling stays
        return
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
