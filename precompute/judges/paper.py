"""The judges of a ``paper`` recipe, by the names it gives, and what this machine lacks for them."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

from backend.errors import DependencyMissing, IconoscopeError, RecipeError, SubjectMissing
from backend.text_encoders import find_text_encoder, text_encoder_repository
from backend.weights import licence_page
from precompute import judges
from precompute.data_section import DataSection
from precompute.judges.base import JudgeKind, Judges
from precompute.recipe import JudgesSection, Recipe, Runtime

EXTRA = 'pip install "iconoscope[paper]"'
_ROLES = ("generator", "segmenter", "image_text")


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingJudge:
    """One thing that a recipe's judges need and this machine lacks."""

    part: str
    """What it is for, e.g. ``segmenter: boxes``."""
    name: str
    """Repository id, folder or package."""
    licence_page: str | None
    """Where the licence is read and accepted; None for a folder or a package."""
    message: str
    """What is missing, and the command that mends it."""


def judge_kinds() -> dict[str, JudgeKind]:
    """Every paper-scale judge by its name: the modules of this package that hold a ``JUDGE``."""
    names = sorted(item.name for item in pkgutil.iter_modules(judges.__path__) if not item.name.startswith("_"))
    modules = ((name, import_module(f"precompute.judges.{name}")) for name in names)
    return {name: module.JUDGE for name, module in modules if hasattr(module, "JUDGE")}


def chosen_kinds(section: JudgesSection) -> dict[str, JudgeKind]:
    """The kind of judge for each role. Raises RecipeError for a name that no module has, naming those there are."""
    known = judge_kinds()
    chosen: dict[str, JudgeKind] = {}
    for role in _ROLES:
        name = getattr(section, role)
        if name not in known or known[name].role != role:
            fitting = ", ".join(other for other, kind in known.items() if kind.role == role)
            raise RecipeError(f"[judges] {role} = {name!r} is unknown; choose one of: {fitting}")
        chosen[role] = known[name]
    return chosen


def open_judges(recipe: Recipe, runtime: Runtime | None = None) -> Judges:
    """See ``precompute.judges.open_judges``. Nobody knows the truth about real images.

    Judges are kept for the next shard and stage of the same run, with the models they loaded.
    """
    return _open(recipe.judges, recipe.data, runtime or Runtime())


@lru_cache(maxsize=4)
def _open(section: JudgesSection, images: DataSection, runtime: Runtime) -> Judges:
    """``images`` is a key alone: judges remember pictures by their ids, which mean other pictures in another set."""
    del images
    kinds = chosen_kinds(section)
    _require(list(_missing(kinds, section)))
    opened = {role: kind.open(section, runtime) for role, kind in kinds.items()}
    return Judges(generator=opened["generator"], segmenter=opened["segmenter"], image_text=opened["image_text"])


def missing_judges(recipe: Recipe) -> list[MissingJudge]:
    """See ``precompute.judges.missing_judges``; the text encoder of the atlas stage is among them."""
    section = recipe.judges
    found = list(_missing(chosen_kinds(section), section)) if section.kind == "paper" else []
    try:
        find_text_encoder(section.text_encoder)
    except IconoscopeError as error:
        found.append(_entry("text encoder", section.text_encoder, text_encoder_repository(section.text_encoder), error))
    return found


def _missing(kinds: dict[str, JudgeKind], section: JudgesSection) -> Iterator[MissingJudge]:
    for role, kind in kinds.items():
        for package in kind.packages:
            if find_spec(package) is None:
                message = f"{role} {getattr(section, role)!r} needs the package {package}: {EXTRA}"
                yield MissingJudge(part=role, name=package, licence_page=None, message=message)
        for weights in kind.weights(section):
            try:
                weights.folder()
            except SubjectMissing as error:
                yield _entry(weights.part, weights.model, weights.repository, error)


def _entry(part: str, name: str, repository: str | None, error: Exception) -> MissingJudge:
    page = licence_page(repository) if repository else None
    return MissingJudge(part=part, name=repository or name, licence_page=page, message=str(error))


def _require(missing: Sequence[MissingJudge]) -> None:
    """Raise an error that lists everything. Weights come first: a package alone is quickly installed."""
    if not missing:
        return
    lines = "".join(f"\n- {one.part}: {one.message}" for one in missing)
    only_packages = all(one.part in _ROLES for one in missing)
    raise (DependencyMissing if only_packages else SubjectMissing)(f"the judges of this recipe are not at hand:{lines}")
