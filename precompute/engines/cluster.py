"""Reaching a Ray cluster: one of this machine alone, or a running one at an address. Ray is imported in here only.

Ray ends the whole process if it cannot reach its head, so an address is tried by a child process first. A cluster of
our own listens on the loopback interface only and asks for a token of its own. No usage statistics are sent.
"""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from backend.errors import DependencyMissing, EngineUnreachable
from backend.settings import suggest_environment

CONNECT_S = 5.0
"""Longest wait for a TCP connection to the head."""
REHEARSAL_S = 45.0
"""Longest wait for Ray itself to join the cluster."""
OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""Messages are short; Ray would take a third of the memory."""
_REHEARSAL = (
    "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR'); ray.shutdown()"
)
_CLIENT_SCHEME = "ray://"


def join_cluster(address: str, n_cpus: int | None) -> Any:
    """The ``ray`` module, connected: to the head at ``address`` (HOST:PORT), or to a new cluster of this machine.

    Raises DependencyMissing or EngineUnreachable, the latter at the latest after CONNECT_S + REHEARSAL_S.
    """
    suggest_environment({"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"})
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        require_head(address)
        ray = _imported()
        with _own_signal_handlers():
            ray.init(address=address, **quiet)
        return ray
    # A token of this run alone: Ray would put one into the home folder. The second name is Ray's for: this node is
    # reached through the loopback interface, as on a laptop.
    suggest_environment({"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})
    ray = _imported()
    with _own_signal_handlers():
        ray.init(
            num_cpus=n_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _system_config={"worker_niceness": 0},  # workers are the run, not a job in its background
            **quiet,
        )
    return ray


def _require_installed() -> None:
    """Not by importing it: Ray reads its settings from the environment then, once and for all."""
    if find_spec("ray") is None:
        raise DependencyMissing('The Ray engine needs the package ray. Install it: pip install "iconoscope[paper]"')


def _imported() -> Any:
    _require_installed()
    import ray

    return ray


def require_head(address: str) -> None:
    """Check that a Ray head answers at ``address``. Raises EngineUnreachable or DependencyMissing, in bounded time."""
    if address.startswith(_CLIENT_SCHEME):
        raise EngineUnreachable(
            f"{address} names Ray's client port. Run Iconoscope on a node of the cluster and give the head's own "
            f"address: --ray-address {_host(address)}:6379"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise EngineUnreachable(f"{address!r} is no address of a Ray head: give HOST:PORT, for example 10.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise _unreachable(address, str(error)) from error
    _require_installed()
    command = [sys.executable, "-c", _REHEARSAL, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=REHEARSAL_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unreachable(address, f"no answer from Ray within {REHEARSAL_S:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise _unreachable(address, last)


def _unreachable(address: str, reason: str) -> EngineUnreachable:
    port = address.rpartition(":")[2]
    return EngineUnreachable(
        f"No Ray head answers at {address} ({reason}). Start one there with `ray start --head --port {port}`, or join "
        f"this machine to its cluster with `ray start --address {address}`, and run the same command again."
    )


def _host(address: str) -> str:
    return address.removeprefix(_CLIENT_SCHEME).rpartition(":")[0] or address.removeprefix(_CLIENT_SCHEME)


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep this process's handling of SIGTERM and SIGINT: Ray sets its own when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
