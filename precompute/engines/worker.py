"""The worker of the Ray engine: an ordinary class that Ray turns into an actor. It computes one shard at a time.

An error is reported, not raised: Ray would send it as an object, and the driver makes its own from name and text.
"""

from __future__ import annotations

import os
import time
import traceback
from typing import Any

from backend import errors
from backend.errors import IconoscopeError
from backend.memory_limits import memory_limits
from precompute.engines.job import Job, JobSite
from precompute.stage import peak_memory_bytes

Report = dict[str, Any]


class ShardWorker:
    """Computes shards of whatever job it is given; models stay loaded between the shards of a job."""

    def __init__(self) -> None:
        self._site: tuple[tuple[str, str], JobSite] | None = None

    def hello(self) -> Report:
        """Where this worker lives."""
        return {"node": os.uname().nodename, "pid": os.getpid()}

    def compute(self, job: Job, key: str) -> Report:
        """Compute and finish one shard; the report holds what the driver is to log and say, or what went wrong."""
        started = time.monotonic()
        try:
            site = self._open(job)
            with memory_limits(site.limits):
                site.stage.run_shard(site.context, key)
            site.context.writer.finish_shard(key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver decides
            return {"error": described(error), **self._held()}
        return {
            "seconds": round(time.monotonic() - started, 3),
            "peak_memory_bytes": peak_memory_bytes(),
            **self._held(),
        }

    def _open(self, job: Job) -> JobSite:
        place = (job["out_dir"], job["fingerprint"])
        if self._site is None or self._site[0] != place:
            self._site = None  # the old one's models go before the new one's come
            self._site = (place, JobSite(job))
        return self._site[1]

    def _held(self) -> Report:
        if self._site is None:
            return {"notes": [], "events": []}
        site = self._site[1]
        held = {"notes": [*site.progress.notes], "events": [*site.log.events]}
        site.progress.notes.clear()
        site.log.events.clear()
        return held


def described(error: Exception) -> Report:
    """An error as plain text and numbers."""
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "errno": error.errno if isinstance(error, OSError) else None,
        "trace": "".join(traceback.format_exception(error)),
    }


def as_error(report: Report, where: str) -> Exception:
    """The driver's own error of the same kind; what is neither ours nor the system's shows the worker's trace."""
    kind = getattr(errors, report["kind"], None)
    if isinstance(kind, type) and issubclass(kind, IconoscopeError):
        return kind(report["message"])
    if report["errno"] is not None:
        return OSError(report["errno"], f"{where}: {report['message']}")
    return RuntimeError(f"{where} failed:\n{report['trace']}")
