"""How long the explorer takes from the command to the first answer, against importing Gradio and nothing else.

Each round starts a new process, so nothing is warm but the system's file cache.

    python -m benchmarks.explorer_boot
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.measuring import in_turn, print_table

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "precompute"]
POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    atlas: Path = Path("assets/atlas")
    """Folder of the atlas to serve."""
    n_rounds: int = 3
    """How often each way is run."""
    patience_s: float = 120.0
    """Give up after this many seconds."""


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def boot(settings: Settings) -> None:
    """Start the explorer, wait for its page, stop it. Raises RuntimeError if it ends or never answers."""
    port = free_port()
    command = [*COMMAND, "serve", str(settings.atlas), "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _wait_for_page(process, f"http://127.0.0.1:{port}/", settings.patience_s)
        finally:
            process.terminate()


def _wait_for_page(process: subprocess.Popen[bytes], address: str, patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if process.poll() is not None:
            said = process.stderr.read().decode() if process.stderr else ""
            raise RuntimeError(f"the explorer ended with {process.returncode}: {said[-500:]}")
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(POLL_S)
    raise RuntimeError(f"no answer from {address} within {patience_s:g} s")


def import_gradio() -> None:
    """The floor: a new Python that imports Gradio."""
    subprocess.run([sys.executable, "-c", "import gradio"], check=True, capture_output=True)


def import_torch() -> None:
    """For scale: a new Python that imports torch and transformers, which opening the explorer must not."""
    subprocess.run([sys.executable, "-c", "import torch, transformers"], check=True, capture_output=True)


def main(settings: Settings) -> None:
    """Measure and print."""
    measured = in_turn(
        {
            "import gradio": import_gradio,
            "explorer answers": lambda: boot(settings),
            "import torch, transformers": import_torch,
        },
        n_rounds=settings.n_rounds,
    )
    print_table("Explorer boot", measured, baseline="import gradio", n_units=1, unit="starts")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
