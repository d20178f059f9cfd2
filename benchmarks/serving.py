"""An explorer in a process of its own, as a benchmark needs it: started, awaited, weighed and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType

from benchmarks.explorer_boot import ROOT, free_port

COMMAND = (sys.executable, "-m", "precompute", "serve")
POLL_S = 0.1


class Server(AbstractContextManager["Server"]):
    """``iconoscope serve`` over some atlases, while the context lasts."""

    def __init__(self, atlases: Sequence[Path], *, port: int | None = None, patience_s: float = 180.0) -> None:
        self.atlases = tuple(atlases)
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._patience_s = patience_s
        self._said = TemporaryFile()  # noqa: SIM115 - open as long as the server runs
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        command = [*COMMAND, *map(str, self.atlases), "--port", str(self.port)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=self._said
        )
        try:
            self._wait_for_page()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
        self._stop()

    def memory_mb(self) -> float | None:
        """Resident memory of the server and its children in MB; None where the system does not tell."""
        if self._process is None:
            return None
        sizes = [_resident_kb(one) for one in (self._process.pid, *_children(self._process.pid))]
        known = [one for one in sizes if one is not None]
        return sum(known) / 1024 if known else None

    def _wait_for_page(self) -> None:
        end = time.monotonic() + self._patience_s
        while time.monotonic() < end:
            if self._process is not None and self._process.poll() is not None:
                self._said.seek(0)
                told = self._said.read()[-800:].decode("utf-8", "replace")
                raise RuntimeError(f"the explorer ended with {self._process.returncode}: {told}")
            try:
                with urllib.request.urlopen(self.url, timeout=10) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(POLL_S)
        raise RuntimeError(f"no answer from {self.url} within {self._patience_s:g} s")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._said.close()


def _resident_kb(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(found[0]) if found else None


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    except OSError:
        return []
