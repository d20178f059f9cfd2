"""Where a server can listen: asked before anything is loaded or computed for it."""

from __future__ import annotations

import socket

from backend.errors import AddressUnusable

LOOPBACK = "127.0.0.1"
"""This machine only."""


def free_port(host: str) -> int:
    """A TCP port of ``host`` that is free right now. Raises AddressUnusable if nothing can listen there at all."""
    return _bound_port(host, 0)


def require_address(host: str, port: int) -> None:
    """Raises AddressUnusable if a server could not listen at ``port`` of ``host`` now, naming a port where it could."""
    try:
        _bound_port(host, port)
    except AddressUnusable as error:
        raise AddressUnusable(f"{error} {_way_out(host)}") from error


def _way_out(host: str) -> str:
    try:
        return f"This port is free: --port {free_port(host)}"
    except AddressUnusable:
        return f"Choose an address of this machine: --host {LOOPBACK}"


def _bound_port(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that has just ended is gone
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            told = getattr(error, "strerror", None) or error
            raise AddressUnusable(f"The explorer cannot listen at {host}, port {port} ({told}).") from error
        return int(probe.getsockname()[1])
