"""The Ray engine: workers on any number of nodes compute shards, this process hands them out, checks and logs them.

One worker per GPU (or per group of CPU cores), each with its own model replica. Shards go to free workers one by one;
files are written by the worker that computed them, into a folder that all nodes share. A worker that dies costs the
shard it had: the rest of it is removed, and another worker computes it again. Sequential stages run in this process.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from backend.artifact_writer import ArtifactWriter
from backend.errors import EngineError
from backend.settings import worker_environment
from precompute.engines.base import Engine
from precompute.engines.cluster import join_cluster
from precompute.engines.job import LOADER, Job, job_of
from precompute.engines.leases import MAX_DEATHS, Leases
from precompute.engines.local import LocalEngine
from precompute.engines.worker import Report, ShardWorker, as_error
from precompute.recipe import Runtime
from precompute.stage import Advance, Stage, StageContext
from precompute.subject import release_models

KILL_S = 10.0
"""How long killed workers are waited for."""
POLL_S = 0.05
"""How often the workers are asked whether one is done; a signal to stop is heard in between."""
START_S = 300.0
"""Longest wait for a worker while there is none."""
VISIBLE_S = 60.0
"""How long a shared filesystem may take to show a file that another node wrote."""


@dataclass(slots=True, eq=False)
class _Member:
    """One worker as the driver sees it."""

    number: int
    actor: Any
    place: str = ""
    """Node and process once it has said hello."""
    pending: Any = None
    """What Ray will answer: to hello, or with a shard's report."""
    key: str | None = None
    """The shard it computes."""

    @property
    def name(self) -> str:
        return f"worker {self.number}" + (f" ({self.place})" if self.place else "")


class RayEngine(Engine):
    """See the module docstring."""

    def __init__(self, runtime: Runtime, *, n_workers: int = 0, address: str = "", loader: str = LOADER) -> None:
        """``n_workers`` 0: one per GPU, else as many as the CPUs allow. ``loader``: see precompute/engines/job.py."""
        self._runtime = runtime
        self._n_asked = n_workers
        self._address = address
        self._loader = loader
        self._members: list[_Member] = []
        self._n_started = 0
        self._failed_starts = 0
        self._on_gpu = False
        self._ray: Any = None

    def __enter__(self) -> Self:
        n_cpus = self._n_asked * self._runtime.workers if self._n_asked else None
        self._ray = join_cluster(self._address, n_cpus)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dismiss()
        self._ray.shutdown()

    def run(self, stage: Stage, context: StageContext, keys: Sequence[str], advance: Advance) -> None:
        if stage.sequential or not keys:
            LocalEngine().run(stage, context, keys, advance)
            return
        job = self._job(stage, context)
        try:
            for group in stage.phases(keys):
                self._run_group(context, job, group, advance)
        except BaseException:
            self._abandon(context.writer)
            raise
        if self._on_gpu:
            self._dismiss()  # what follows in this process may need the GPU

    def _job(self, stage: Stage, context: StageContext) -> Job:
        if not self._members:
            release_models()
            self._on_gpu = context.runtime.device != "cpu" and self._ray.cluster_resources().get("GPU", 0) >= 1
        # Ray shows each worker its own GPU alone.
        runtime = replace(context.runtime, device="cuda:0") if self._on_gpu else context.runtime
        return job_of(stage, replace(context, runtime=runtime), self._loader)

    # workers -------------------------------------------------------------------------------------------------------

    def _n_workers(self) -> int:
        """How many are asked for, or fit. Raises EngineError if not even one fits."""
        resource, each = ("GPU", 1) if self._on_gpu else ("CPU", self._runtime.workers)
        n_fitting = int(self._ray.cluster_resources().get(resource, 0) // each)
        if n_fitting < 1:
            raise EngineError(
                f"The Ray cluster has fewer than {each} {resource}, which one worker needs: add a node with "
                "`ray start --address HEAD`, or lower --workers."
            )
        return self._n_asked or n_fitting

    def _recruit(self, context: StageContext) -> None:
        """Bring the crew to its full number."""
        wanted = self._n_workers()
        if not self._members:
            context.progress.note(f"ray: {wanted} workers{', one GPU each' if self._on_gpu else ''}.")
        actor = self._ray.remote(ShardWorker).options(
            num_gpus=1 if self._on_gpu else 0,
            num_cpus=1 if self._on_gpu else self._runtime.workers,
            max_restarts=0,
            runtime_env={"env_vars": worker_environment()},
        )
        while len(self._members) < wanted:
            self._n_started += 1
            member = _Member(number=self._n_started, actor=actor.remote())
            member.pending = member.actor.hello.remote()
            self._members.append(member)

    def _dismiss(self) -> None:
        """End all workers, and wait until they have ended: one that is still writing would leave what it writes."""
        for member in self._members:
            self._ray.kill(member.actor)
        ending = [member.pending for member in self._members if member.pending is not None]
        if ending:
            self._ray.wait(ending, num_returns=len(ending), timeout=KILL_S)
        self._members.clear()

    def _abandon(self, writer: ArtifactWriter) -> None:
        """Stop all workers and remove what they left half-written."""
        begun = [member.key for member in self._members if member.key]
        self._dismiss()
        for key in begun:
            if writer.shard_state(key) != "done":
                writer.drop_shard(key)

    # one group of shards ---------------------------------------------------------------------------------------------

    def _run_group(self, context: StageContext, job: Job, keys: Sequence[str], advance: Advance) -> None:
        leases = Leases(keys)
        deadline = time.monotonic() + START_S
        while True:
            if leases.waiting:
                self._recruit(context)
            for member in self._members:
                if member.pending is None and (key := leases.next_key()) is not None:
                    member.key, member.pending = key, member.actor.compute.remote(job, key)
            if not leases.waiting and not any(member.key for member in self._members):
                break
            self._attend(context, leases, advance)
            if any(member.place for member in self._members):
                deadline = time.monotonic() + START_S  # should the last one die, its successor has as long
            elif time.monotonic() > deadline:
                raise EngineError(f"No worker has started within {START_S:.0f} s: {self._room()}.")
        if leases.error is not None:
            raise leases.error

    def _room(self) -> str:
        free = self._ray.available_resources()
        return f"the cluster has {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free"

    def _attend(self, context: StageContext, leases: Leases, advance: Advance) -> None:
        """Deal with the answers that are there, after a short wait.

        The wait is Python's: a signal that arrives while Ray itself waits would come out as another error.
        """
        time.sleep(POLL_S)
        pending = {member.pending: member for member in self._members if member.pending is not None}
        ready, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=0) if pending else ([], [])
        for reference in ready:
            member = pending[reference]
            member.pending, key = None, member.key
            try:
                report = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                self._bury(member, context, leases, error)
                continue
            member.key = None
            if key is None:
                self._failed_starts = 0
                member.place = f"process {report['pid']} on {report['node']}"
                context.log.write("worker started", worker=member.number, **report)
            elif self._finished(context, member, key, report, leases):
                advance()

    def _bury(self, member: _Member, context: StageContext, leases: Leases, error: Exception) -> None:
        """A worker is dead: take its shard back, and let the next round recruit another."""
        self._members.remove(member)
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        context.log.write("worker died", worker=member.number, shard=member.key, cause=str(error))
        if member.key is None:
            self._failed_starts += 1
            context.progress.note(f"ray: {member.name} could not start: {cause}")
            if self._failed_starts >= MAX_DEATHS:
                leases.fail(EngineError(f"{MAX_DEATHS} workers in a row could not start, the last one: {error}"))
            return
        context.writer.drop_shard(member.key)
        n_deaths = leases.died(member.key, cause)
        then = "it is given up" if n_deaths >= MAX_DEATHS else "another worker computes it again"
        context.progress.note(
            f"ray: {member.name} died while it computed shard {member.key} ({cause}); {then}. Death {n_deaths} of at "
            f"most {MAX_DEATHS} for this shard; all others are kept."
        )

    def _finished(self, context: StageContext, member: _Member, key: str, report: Report, leases: Leases) -> bool:
        """Log and check a report; whether the shard is there and whole."""
        for event in report["events"]:
            context.log.write(event.pop("event"), worker=member.number, **event)
        for note in report["notes"]:
            context.progress.note(note)
        if "error" in report:
            context.writer.drop_shard(key)
            context.log.write("shard failed", shard=key, worker=member.number, trace=report["error"]["trace"])
            leases.fail(as_error(report["error"], f"Shard {key} on {member.name}"))
            return False
        if not _visible(context.writer, key):
            leases.fail(
                EngineError(
                    f"{member.name} says that shard {key} is finished, but it is not in {context.out_dir}: --out must "
                    "lie on a filesystem that all nodes share, under the same path."
                )
            )
            return False
        context.log.write(
            "shard finished",
            shard=key,
            seconds=report["seconds"],
            worker=member.number,
            worker_peak_memory_bytes=report["peak_memory_bytes"],
        )
        return True


def _visible(writer: ArtifactWriter, key: str) -> bool:
    """Whether the shard is whole as this process sees it; a shared filesystem may show it late."""
    deadline = time.monotonic() + VISIBLE_S
    while writer.shard_state(key) != "done":
        if time.monotonic() > deadline:
            return False
        time.sleep(min(1.0, VISIBLE_S / 10))
    return True
