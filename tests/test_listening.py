"""Where a server can listen is known before anything is loaded or computed for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
from backend.errors import AddressUnusable
from backend.listening import LOOPBACK, free_port, require_address
from precompute.cli import main


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which another program listens."""
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        yield int(other.getsockname()[1])


def test_a_free_port_can_be_bound() -> None:
    port = free_port(LOOPBACK)
    require_address(LOOPBACK, port)
    with socket.socket() as probe:
        probe.bind((LOOPBACK, port))


def test_a_taken_port_is_told_with_one_that_is_free(taken: int) -> None:
    with pytest.raises(AddressUnusable, match=rf"port {taken} .*in use.*--port \d+$") as told:
        require_address(LOOPBACK, taken)
    require_address(LOOPBACK, int(str(told.value).rsplit(" ", 1)[1]))


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 7860), ("no such host", 7860)])
def test_an_address_of_another_machine_is_refused(host: str, port: int) -> None:
    with pytest.raises(AddressUnusable, match=r"--host 127\.0\.0\.1$"):
        require_address(host, port)


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(AddressUnusable, match=r"port 70000 .*--port \d+$"):
        require_address(LOOPBACK, 70_000)


def test_a_run_that_shall_be_served_asks_before_it_computes(
    taken: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["run", "world", "--out", str(out), "--serve", "--port", str(taken)]) == 2
    assert f"cannot listen at 127.0.0.1, port {taken}" in capsys.readouterr().err
    assert not out.exists()


def test_the_explorer_refuses_a_taken_port_before_it_opens_an_atlas(taken: int, tmp_path: Path) -> None:
    with pytest.raises(AddressUnusable):
        app.launch(tmp_path / "nothing", port=taken, block=False)
