"""What a recipe will cost before it is run: time, memory and disk per stage, and which weights are missing.

Unit costs come from measuring on this machine (``probes``) or from a device's data sheet (``roofline``); ``workload``
counts how often each unit is done; ``estimate`` multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend.errors import IconoscopeError, RecipeError
from backend.model_shapes import shape_of
from backend.models import locate
from backend.settings import resolve_path
from backend.types import Split
from precompute.datasets import open_image_set
from precompute.judges import open_judges
from precompute.planning.estimate import StageCost, stage_costs
from precompute.planning.roofline import DEVICES, unit_costs
from precompute.planning.unit_costs import UnitCosts
from precompute.planning.workload import SplitSizes, workload
from precompute.recipe import Recipe, Runtime, SubjectSection
from precompute.stages.train_sae import held_out_count

HERE = "here"
"""The device that stands for this machine: measured, not calculated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run of a recipe will take."""

    recipe: str
    device: str
    measured: bool
    """Unit costs were measured on this machine; otherwise they are calculated from a data sheet."""
    stages: tuple[StageCost, ...]
    missing: tuple[str, ...]
    """What must be fetched or accepted first, one sentence each; empty if the recipe can run now."""

    @property
    def seconds(self) -> float:
        """One device, stage after stage."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def accelerator_bytes(self) -> float:
        return max(stage.accelerator_bytes for stage in self.stages)

    @property
    def host_bytes(self) -> float:
        return max(stage.host_bytes for stage in self.stages)

    @property
    def disk_bytes(self) -> float:
        """All finished artifacts together."""
        return sum(stage.disk_bytes for stage in self.stages)


def make_plan(recipe: Recipe, device: str, runtime: Runtime) -> Plan:
    """The plan of a recipe on ``here`` or on a device of ``roofline.DEVICES``.

    Raises:
        RecipeError: the device is unknown, or ``here`` is asked for and something is missing.
        SizesUnknown: the sizes of a model are.
    """
    missing = missing_parts(recipe)
    if device == "auto":
        device = HERE if not missing else "h100"
    if device != HERE and device not in DEVICES:
        raise RecipeError(f"There is no device {device!r} to plan for; choose one of: {HERE}, {', '.join(DEVICES)}.")
    if device == HERE and missing:
        raise RecipeError(
            f"Recipe {recipe.name} cannot be measured here: {' '.join(missing)} "
            f"Plan for another device instead, e.g. --device {next(iter(DEVICES))}."
        )
    subject, explainer = (shape_of(_name(one), _folder(one)) for one in (recipe.subject, explainer_section(recipe)))
    costs = _measured(recipe, runtime) if device == HERE else None
    if costs is None:
        costs = unit_costs(
            recipe,
            DEVICES[device],
            subject,
            explainer,
            layer=recipe.subject.layer,
            rows=runtime.prompts_per_batch,
        )
    sizes = split_sizes(recipe)
    work = workload(
        recipe,
        sizes,
        patches_per_image=subject.n_patches,
        n_concepts=_concepts(recipe),
        held_out=held_out_count(sizes.train),
    )
    return Plan(
        recipe=recipe.name,
        device=device,
        measured=device == HERE,
        stages=stage_costs(recipe, work, costs, subject, explainer, runtime.prompts_per_batch),
        missing=missing,
    )


def _measured(recipe: Recipe, runtime: Runtime) -> UnitCosts:
    from precompute.planning.probes import measure  # loads the models' libraries

    return measure(recipe, runtime)


def explainer_section(recipe: Recipe) -> SubjectSection:
    """The model that explains: the subject itself unless the recipe names another."""
    return recipe.subject


def _name(section: SubjectSection) -> str:
    return section.repository or section.path or ""


def _folder(section: SubjectSection) -> Path | None:
    """The model's folder, or None if it is not on this machine."""
    try:
        return locate(resolve_path(section.path) if section.path else _name(section))
    except IconoscopeError:
        return None


def missing_parts(recipe: Recipe) -> tuple[str, ...]:
    """What a run would stop at, all of it: weights, gated repositories, images. Each sentence names what mends it."""
    found: list[str] = []
    for section in dict.fromkeys((recipe.subject, explainer_section(recipe))):
        try:
            locate(resolve_path(section.path) if section.path else _name(section))
        except IconoscopeError as error:
            found.append(str(error))
    try:
        open_judges(recipe)
    except IconoscopeError as error:
        found.append(str(error))
    for split in Split:
        try:
            open_image_set(recipe, split)
        except IconoscopeError as error:
            found.append(str(error))
    return tuple(dict.fromkeys(found))


def split_sizes(recipe: Recipe) -> SplitSizes:
    """Images per split: counted where they are, else as the recipe limits them."""
    sizes: dict[str, int] = {}
    for split in Split:
        try:
            sizes[split.value] = len(open_image_set(recipe, split).ids)
        except IconoscopeError:
            limit = getattr(recipe.data, f"n_{split.value}_images", None)
            if limit is None:
                raise
            sizes[split.value] = limit
    return SplitSizes(**sizes)


def _concepts(recipe: Recipe) -> int | None:
    """Concepts of the world, whose explanations have a closed vocabulary; None for any other recipe."""
    if recipe.judges.kind != "world":
        return None
    truth = open_judges(recipe).truth
    return None if truth is None else len(truth.concepts)
