"""``iconoscope plan``: what a recipe will cost, and what is missing, before anything is computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from precompute.cli.run import print_json
from precompute.progress import duration
from precompute.recipe import Runtime, load_recipe

if TYPE_CHECKING:
    from precompute.planning import Plan

GB = 1e9
HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class PlanRecipe:
    """Say what a recipe will take: stages, hours, memory and disk, and every model or data set that is missing."""

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """Name of a shipped recipe (gemma3-27b-mid) or path of a .toml file."""
    on: str = "auto"
    """What it would run on: here (measured on this machine in half a minute), h100, h200 or rtx4090 (calculated).
    auto: here if nothing is missing, else h100."""
    json: bool = False
    """Print JSON instead of a table."""
    runtime: Annotated[Runtime, tyro.conf.arg(name="")] = field(default_factory=Runtime)
    """How it would run."""

    def __call__(self) -> int:
        from precompute.planning import make_plan  # imports torch

        plan = make_plan(load_recipe(self.recipe), self.on, self.runtime)
        if self.json:
            totals = {name: getattr(plan, name) for name in ("seconds", "host_bytes", "disk_bytes")}
            print_json({**asdict(plan), **totals, "accelerator_bytes": plan.accelerator_bytes})
        else:
            show(plan)
        return 0


def show(plan: Plan) -> None:
    """The plan on the terminal."""
    console = Console()
    how = "measured on this machine" if plan.measured else "calculated from its data sheet, nothing was run"
    console.print(f"{plan.recipe} on one {plan.device} ({how}):")
    console.print(plan_table(plan))
    if plan.too_large:
        console.print(f"Does not fit on one {plan.device}: {plan.too_large}", highlight=False, soft_wrap=True)
    for sentence in plan.missing:
        console.print(f"Missing: {sentence}", highlight=False, soft_wrap=True, markup=False)


def plan_table(plan: Plan) -> Table:
    """The stages with their cost, and the sums."""
    device = "memory of the device" if not plan.measured else "memory for models"
    table = Table("stage", "work", box=None, pad_edge=False)
    for name in ("time", device, "main memory", "disk"):
        table.add_column(name, justify="right")
    for stage in plan.stages:
        table.add_row(
            stage.stage,
            stage.work,
            time_text(stage.seconds),
            gigabytes(stage.accelerator_bytes),
            gigabytes(stage.host_bytes),
            gigabytes(stage.disk_bytes),
        )
    peaks = (gigabytes(plan.accelerator_bytes), gigabytes(plan.host_bytes), gigabytes(plan.disk_bytes))
    table.add_row("all", "", time_text(plan.seconds), *peaks, style="bold")
    return table


def time_text(seconds: float) -> str:
    """Hours from one hour on, minutes and seconds below."""
    return f"{seconds / HOUR:.1f} h" if seconds >= HOUR else duration(seconds)


def gigabytes(size: float) -> str:
    """In GB (10^9 bytes), at least 0.1."""
    return f"{max(size / GB, 0.1):,.1f} GB"
