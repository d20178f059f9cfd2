"""The ``iconoscope`` command line: one file per command, each a frozen dataclass whose call does the work.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 2 something is wrong and one
line says what, 130 stopped on request.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from backend.errors import IconoscopeError
from backend.settings import quiet_libraries
from precompute.cli.copy import Copy
from precompute.cli.inspect import Inspect
from precompute.cli.plan import PlanRecipe
from precompute.cli.run import Run, Status
from precompute.cli.sae import SAECommand
from precompute.cli.search import SearchAtlas
from precompute.cli.serve import Demo, Serve
from precompute.cli.steer import Steer
from precompute.cli.train import Train

DESCRIPTION = """Iconoscope explains what the features of a vision encoder mean, and lets you check the words.

Start with:  iconoscope demo

It serves the atlas that ships with the project; nothing is downloaded or computed."""

Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[PlanRecipe, tyro.conf.subcommand("plan")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[SearchAtlas, tyro.conf.subcommand("search")]
    | Annotated[Steer, tyro.conf.subcommand("steer")]
    | Annotated[Copy, tyro.conf.subcommand("copy")]
    | Annotated[SAECommand, tyro.conf.subcommand("sae")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. ``arguments`` defaults to the command line."""
    quiet_libraries()
    try:
        command = tyro.cli(
            Command,
            prog="iconoscope",
            description=DESCRIPTION,
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.EnumChoicesFromValues),
        )
        return command()
    except IconoscopeError as error:
        print(f"iconoscope: {one_line(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) has seen enough
        return 0
    except OSError as error:
        print(f"iconoscope: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("iconoscope: stopped.", file=sys.stderr)
        return 130


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
