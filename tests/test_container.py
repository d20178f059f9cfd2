"""The image and its services: what the Dockerfile installs is copied and locked, and every command can be parsed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import tyro
import yaml

from precompute.cli import Command
from precompute.cli.serve import Serve
from tests.source_tree import ROOT

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
INSTALL = re.compile(r"pip install (?P<flags>[^&]*?)-r (?P<file>\S+)")


def filled(text: str) -> str:
    """A value with the defaults of its variables."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def parsed(service: str) -> Any:
    return tyro.cli(
        Command,
        prog="iconoscope",
        args=[filled(str(word)) for word in SERVICES[service]["command"]],
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.EnumChoicesFromValues),
    )


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_services_command_is_one_of_ours(service: str) -> None:
    assert type(parsed(service)).__module__.startswith("precompute.cli.")


def test_the_demo_box_puts_one_quantised_replica_on_each_card() -> None:
    box = parsed("demo-box")
    assert isinstance(box, Serve)
    assert (box.subject, box.quantize, box.devices) == ("google/gemma-3-27b-it", "int4", ("cuda:0", "cuda:1"))
    reserved = SERVICES["demo-box"]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
    assert len(reserved) == len(box.devices)
    assert box.host == "0.0.0.0" and f":{box.port}" in SERVICES["demo-box"]["ports"][0]
    assert SERVICES["demo-box"]["environment"].keys() > SERVICES["pipeline"]["environment"].keys()


def test_the_image_copies_every_lock_before_it_installs_from_it() -> None:
    used = list(INSTALL.finditer(DOCKERFILE))
    assert {one["file"] for one in used} == {path.name for path in ROOT.glob("*.lock")}
    for one in used:
        assert re.search(rf"^COPY .*\b{re.escape(one['file'])}\b", DOCKERFILE[: one.start()], re.MULTILINE)


def test_the_image_installs_as_the_makefile_does() -> None:
    makefile = re.sub(r"\\\n\s*", "", (ROOT / "Makefile").read_text(encoding="utf-8"))
    for one in INSTALL.finditer(DOCKERFILE):
        same = next(other for other in INSTALL.finditer(makefile) if other["file"] == one["file"])
        quiet = {"--quiet", "--disable-pip-version-check"}
        assert set(one["flags"].split()) == set(same["flags"].split()) - quiet
        assert {"--require-hashes", "--no-deps"} <= set(one["flags"].split())


def test_what_is_copied_into_the_image_exists() -> None:
    for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
