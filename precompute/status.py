"""What is done, what is missing, what is stale and which field made it so. Reads folders, computes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backend.artifact_writer import PLAN_NAME
from backend.artifacts import CONFIG_NAME, MANIFEST_NAME, SHARDS_NAME, Artifact, canonical_payload
from backend.errors import ArtifactError, ArtifactStale
from precompute.recipe import Recipe
from precompute.stage import PlannedStage, Stage, plan

State = Literal["done", "partial", "stale", "damaged", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """One stage of a recipe in an output folder."""

    stage: str
    state: State
    fingerprint: str
    folder: Path
    n_done: int = 0
    n_shards: int | None = None
    """None until the stage has planned its shards."""
    changes: tuple[str, ...] = ()
    """For ``stale``: every field that differs, e.g. ``config.sae.k: 8 -> 16``."""
    problem: str = ""

    @property
    def sentence(self) -> str:
        """The state in words."""
        if self.state == "done":
            return "done"
        if self.state == "partial":
            total = "?" if self.n_shards is None else str(self.n_shards)
            return f"{self.n_done} of {total} shards"
        if self.state == "stale":
            return "stale: " + "; ".join(self.changes)
        return f"damaged: {self.problem}" if self.state == "damaged" else "not started"


def status(
    recipe: Recipe, out_dir: Path, stages: Sequence[Stage] | None = None, verify: bool = False
) -> tuple[StageStatus, ...]:
    """The state of every stage. ``verify`` compares checksums too, not only presence and sizes."""
    return tuple(_stage_status(item, out_dir, verify) for item in plan(recipe, stages))


def _stage_status(item: PlannedStage, out_dir: Path, verify: bool) -> StageStatus:
    folder = out_dir / item.folder_name
    known = {"stage": item.stage.name, "fingerprint": item.fingerprint, "folder": folder}
    if (folder / MANIFEST_NAME).is_file():
        try:
            Artifact.open(folder, item.stage.name, verify=verify)
        except ArtifactError as error:
            return StageStatus(**known, state="damaged", problem=str(error))
        return StageStatus(**known, state="done")
    if (folder / CONFIG_NAME).is_file():
        n_done = len(list((folder / SHARDS_NAME).glob("*.json")))
        return StageStatus(**known, state="partial", n_done=n_done, n_shards=_n_planned(folder))
    older = _newest_config(out_dir / item.stage.name)
    if older is None:
        return StageStatus(**known, state="missing")
    return StageStatus(**known, state="stale", changes=changes_since(older, item))


def _n_planned(folder: Path) -> int | None:
    try:
        return len(json.loads((folder / PLAN_NAME).read_text(encoding="utf-8"))["shards"])
    except (OSError, ValueError, KeyError):
        return None  # killed before the plan was written: the number is unknown, and shown so


def _newest_config(stage_dir: Path) -> dict[str, Any] | None:
    """The newest readable config.json of another fingerprint of the same stage."""
    for path in sorted(stage_dir.glob(f"*/{CONFIG_NAME}"), key=lambda item: item.stat().st_mtime_ns, reverse=True):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(found, dict) and "inputs" in found:
            return found
    return None


def changes_since(older: Mapping[str, Any], item: PlannedStage) -> tuple[str, ...]:
    """Which fields make ``older`` (a config.json or manifest.json as a dict) differ from the plan, root causes first.

    A changed upstream fingerprint is explained by the upstream's own fields where the lineage tells them.
    """
    stage = item.stage
    inputs = older.get("inputs", {})
    changes: list[str] = []
    for name, now in item.lineage.items():
        before = inputs.get("lineage", {}).get(name)
        if before is not None:
            changes += [f"{name}.{line}" for line in _stage_changes(before, before.get("version"), now, now["version"])]
    changes += _stage_changes(inputs, older.get("stage_version"), item.inputs, stage.version)
    if not changes:
        changes = [f"upstream.{line}" for line in diff(inputs.get("upstream", {}), item.inputs["upstream"])]
    return tuple(changes) or ("nothing in its inputs (the folder was renamed or copied)",)


def _stage_changes(
    before: Mapping[str, Any], version_before: object, now: Mapping[str, Any], version_now: int
) -> list[str]:
    changes = [] if version_before == version_now else [f"version: {version_before} -> {version_now}"]
    return changes + diff(before.get("config", {}), canonical_payload(now["config"]))


def diff(before: object, now: object, name: str = "") -> list[str]:
    """Differences of two JSON values, one ``path: before -> now`` per field, sorted by path."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        lines: list[str] = []
        for key in sorted({*before, *now}):
            path = f"{name}.{key}" if name else str(key)
            if key not in before:
                lines.append(f"{path}: (absent) -> {_short(now[key])}")
            elif key not in now:
                lines.append(f"{path}: {_short(before[key])} -> (absent)")
            else:
                lines += diff(before[key], now[key], path)
        return lines
    return [] if before == now else [f"{name}: {_short(before)} -> {_short(now)}"]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def require_current(artifact: Artifact, recipe: Recipe, stages: Sequence[Stage] | None = None) -> None:
    """Check that ``artifact`` is what ``recipe`` and this code would make now, without computing it.

    The fingerprints of the whole chain are worked out from the recipe, the stages' versions and the models and data at
    hand. Raises ArtifactStale naming the fields that differ and the command that recomputes.
    """
    item = next(item for item in plan(recipe, stages) if item.stage.name == artifact.manifest.kind)
    if artifact.fingerprint == item.fingerprint:
        return
    older = {"inputs": artifact.manifest.inputs, "stage_version": artifact.manifest.stage_version}
    raise ArtifactStale(
        f"{artifact.folder} was made by other inputs: {'; '.join(changes_since(older, item))}. "
        f"Recompute it with: iconoscope run {recipe.name} --out DIR"
    )
