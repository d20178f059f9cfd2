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
from precompute.given_sae import N_IMAGES
from precompute.judges import missing_judges, open_judges
from precompute.planning.estimate import StageCost, rows_that_fit, stage_costs
from precompute.planning.roofline import DEVICES, Device, unit_costs
from precompute.planning.unit_costs import UnitCosts
from precompute.planning.workload import SplitSizes, workload
from precompute.recipe import ExplainerSection, Recipe, Runtime, SubjectSection
from precompute.sae_run import held_out_count
from precompute.shrunken import ensure_for
from precompute.subject import device_of

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
    too_large: str | None = None
    """Stages that need more memory than the device has."""

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

    Shrunken models that the recipe names are built if they are not there, as a run would do.

    Raises:
        RecipeError: the device is unknown, or ``here`` is asked for and something is missing.
        SizesUnknown: the sizes of a model are.
    """
    ensure_for(recipe)
    missing = missing_parts(recipe)
    if device == "auto":
        device = HERE if not missing else next(iter(DEVICES))
    if device != HERE and device not in DEVICES:
        raise RecipeError(f"There is no device {device!r} to plan for; choose one of: {HERE}, {', '.join(DEVICES)}.")
    if device == HERE and missing:
        raise RecipeError(
            f"Recipe {recipe.name} cannot be measured here: {' '.join(missing)} "
            f"Plan for another device instead: --on {next(iter(DEVICES))}."
        )
    sections = (recipe.subject, recipe.explainer or recipe.subject)
    subject, explainer = (shape_of(_name(one), _folder(one)) for one in sections)
    rows, costs = runtime.prompts_per_batch, None
    if device == HERE:
        costs = _measured(recipe, runtime)
    else:
        rows = rows_that_fit(recipe, explainer, DEVICES[device], rows)
        costs = unit_costs(recipe, DEVICES[device], subject, explainer, layer=recipe.subject.layer, rows=rows)
    sizes = split_sizes(recipe)
    held_out = held_out_count(sizes.train) if recipe.sae.path is None else min(N_IMAGES, sizes.explain)
    concepts = _concepts(recipe)
    work = workload(recipe, sizes, patches_per_image=subject.n_patches, n_concepts=concepts, held_out=held_out)
    on_gpu = device != HERE or device_of(runtime) != "cpu"
    stages = stage_costs(recipe, work, costs, subject, explainer, rows, prefetch=runtime.prefetch and on_gpu)
    return Plan(
        recipe=recipe.name,
        device=device,
        measured=device == HERE,
        stages=stages,
        missing=missing,
        too_large=None if device == HERE else _too_large(stages, DEVICES[device]),
    )


def _too_large(stages: tuple[StageCost, ...], device: Device) -> str | None:
    over = [one for one in stages if one.accelerator_bytes > device.memory_bytes]
    if not over:
        return None
    needs = ", ".join(f"{one.stage} needs {one.accelerator_bytes / 1e9:.0f} GB" for one in over)
    return f"{needs}, the {device.label} has {device.memory_bytes / 1e9:.0f} GB."


def _measured(recipe: Recipe, runtime: Runtime) -> UnitCosts:
    from precompute.planning.probes import measure  # loads the models' libraries

    return measure(recipe, runtime)


def _name(section: SubjectSection | ExplainerSection) -> str:
    return section.repository or section.path or ""


def _folder(section: SubjectSection | ExplainerSection) -> Path | None:
    """The model's folder, or None if it is not on this machine."""
    try:
        return locate(resolve_path(section.path) if section.path else _name(section))
    except IconoscopeError:
        return None


def missing_parts(recipe: Recipe) -> tuple[str, ...]:
    """What a run would stop at, all of it: weights, gated repositories, images. Each sentence names what mends it."""
    found: list[str] = []
    for section in dict.fromkeys((recipe.subject, recipe.explainer or recipe.subject)):
        try:
            locate(resolve_path(section.path) if section.path else _name(section))
        except IconoscopeError as error:
            found.append(str(error))
    found += [one.message for one in missing_judges(recipe)]
    for split in _splits(recipe):
        try:
            open_image_set(recipe, split)
        except IconoscopeError as error:
            found.append(str(error))
    return tuple(dict.fromkeys(found))


def split_sizes(recipe: Recipe) -> SplitSizes:
    """Images per split: counted where they are, else as the recipe limits them."""
    sizes = dict.fromkeys(Split, 0)
    for split in _splits(recipe):
        try:
            sizes[split] = len(open_image_set(recipe, split).ids)
        except IconoscopeError:
            limit = recipe.data.limit(split)
            if limit is None:
                raise
            sizes[split] = limit
    return SplitSizes(**{split.value: size for split, size in sizes.items()})


def _splits(recipe: Recipe) -> tuple[Split, ...]:
    """The splits a run reads: nothing is trained where the recipe gives an SAE."""
    return tuple(split for split in Split if split is not Split.TRAIN or recipe.sae.path is None)


def _concepts(recipe: Recipe) -> int | None:
    """Concepts of the world, whose explanations have a closed vocabulary; None for any other recipe."""
    if recipe.judges.kind != "world":
        return None
    truth = open_judges(recipe).truth
    return None if truth is None else len(truth.concepts)
