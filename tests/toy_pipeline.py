"""A pipeline in miniature for the runner: one stage of checkpoints, one of ranges, one that sums up.

Run as ``python -m tests.toy_pipeline OUT pause SECONDS`` it is slow enough to be stopped from outside; as
``python -m tests.toy_pipeline OUT kill N N ...`` it runs once per N, each time killed (SIGKILL) at its N-th write.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from backend import artifact_writer
from precompute.progress import LineProgress
from precompute.recipe import Recipe, Runtime, parse_recipe
from precompute.runner import run_recipe
from precompute.stage import Stage, StageContext

RECIPE: dict[str, Any] = {
    "title": "Toy",
    "subject": {"path": "assets/world/subject", "layer": 4},
    "data": {"kind": "world", "path": "assets/world/corpus", "n_train_images": 100},
    "judges": {"kind": "world", "clip": "assets/world/clip"},
    "sae": {
        "d_sae": 64,
        "k": 4,
        "n_tokens": 400,
        "batch_tokens": 100,
        "buffer_tokens": 200,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
        "decay_fraction": 0.2,
        "auxk_coefficient": 0.03,
        "dead_after_tokens": 100,
        "grad_clip": 1,
        "seed": 3,
        "checkpoint_every_steps": 1,
    },
    "harvest": {"n_exemplars": 4, "histogram_bins": 8, "n_coactivated": 2, "images_per_shard": 10},
    "explain": {
        "prompts": {"steering": "What is it?", "top_k_masks": "What is shared?", "top_k_heatmaps": "What is lit?"},
        "n_images": 5,
        "max_new_tokens": 8,
        "strengths": [8, 16.0],
        "informed_strengths": [4.0],
        "n_selection_features": 2,
        "per_feature_strength": False,
        "informed_scope": "active",
        "features_per_shard": 8,
        "seed": 0,
        "heatmap_alpha": 0.5,
        "answer_prefixes": [],
    },
    "score": {
        "n_images": 4,
        "n_synthetic": 2,
        "n_negatives": 4,
        "n_bootstrap": 10,
        "seed": 0,
        "quality_iou": 0.1,
        "quality_synthetic": 0.1,
        "ap_threshold": 0.3,
    },
    "atlas": {
        "n_clusters": 4,
        "umap_neighbors": 5,
        "umap_min_dist": 0.1,
        "seed": 0,
        "thumbnail_px": 64,
        "n_exemplars": 4,
    },
}
PAUSE_S = 0.0


def toml_text(table: dict[str, Any], prefix: str = "") -> str:
    """A recipe as a file."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{prefix}{key}]", toml_text(value, f"{prefix}{key}.")]
    return "\n".join(lines)


def toy_recipe(**changes: Any) -> Recipe:
    """The toy recipe with fields replaced: ``toy_recipe(sae__k=8)``."""
    raw = {name: dict(value) if isinstance(value, dict) else value for name, value in RECIPE.items()}
    for name, value in changes.items():
        section, _, field = name.partition("__")
        raw[section][field] = value
    return parse_recipe(raw, "toy")


class Train(Stage):
    """Each checkpoint adds to the one before: the sum shows whether every step happened exactly once."""

    name, version, sequential, keep_shards = "train", 1, True, False

    def science(self, recipe: Recipe) -> dict[str, Any]:
        return {"sae": {"k": recipe.sae.k, "seed": recipe.sae.seed}, "subject": "f" * 64}

    def shards(self, context: StageContext) -> Sequence[str]:
        return [f"step-{step:03d}" for step in range(1, 6)]

    def run_shard(self, context: StageContext, key: str) -> None:
        before = [other for other in context.shard_keys if other < key]
        state = context.writer.read_table("state", before[-1])["value"].to_numpy() if before else np.zeros(1000)
        for old in before[:-1]:
            context.writer.retire_shard(old)
        time.sleep(PAUSE_S)
        step = int(key.removeprefix("step-"))
        noise = np.random.default_rng([context.recipe.sae.seed, step]).normal(size=1000)
        context.writer.write_table("state", pa.table({"value": state + noise}), shard=key)

    def finish(self, context: StageContext) -> Mapping[str, Any]:
        context.writer.write_table("weights", context.writer.read_table("state", context.shard_keys[-1]))
        return {"notes": {"steps": len(context.shard_keys)}}


class Ranges(Stage):
    """Two files per shard, so that a kill between them leaves half a shard."""

    name, version, upstream = "ranges", 1, ("train",)

    def science(self, recipe: Recipe) -> dict[str, Any]:
        return {"harvest": {"n_exemplars": recipe.harvest.n_exemplars}}

    def shards(self, context: StageContext) -> Sequence[str]:
        return [f"items-{start:04d}" for start in range(0, 600, 100)]

    def run_shard(self, context: StageContext, key: str) -> None:
        start = int(key.removeprefix("items-"))
        weights = context.upstream["train"].table("weights")["value"].to_numpy()[start : start + 100]
        context.writer.write_table("squares", pa.table({"item": range(start, start + 100), "value": weights**2}), key)
        time.sleep(PAUSE_S)
        context.writer.write_array("cubes", weights**3, shard=key)
        with context.progress.track("items", 100) as advance:
            advance(100)

    def finish(self, context: StageContext) -> Mapping[str, Any]:
        return {"failures": {"negative": 2}}


class Total(Stage):
    name, version, upstream = "total", 1, ("train", "ranges")

    def science(self, recipe: Recipe) -> dict[str, Any]:
        return {"title": recipe.title}

    def shards(self, context: StageContext) -> Sequence[str]:
        return []

    def run_shard(self, context: StageContext, key: str) -> None:
        raise AssertionError("there are no shards")

    def finish(self, context: StageContext) -> Mapping[str, Any]:
        squares = context.upstream["ranges"].table("squares")["value"].to_numpy()
        time.sleep(PAUSE_S)
        context.writer.write_table("total", pa.table({"value": [float(squares.sum())]}))
        return {}


def toy_stages() -> tuple[Stage, ...]:
    return (Train(), Ranges(), Total())


def table_bytes(out_dir: Path) -> dict[str, bytes]:
    """Every data file of a run by its name, without what is about the run (logs, times, plans)."""
    suffixes = {".parquet", ".npy"}
    found = (path for path in sorted(out_dir.rglob("*")) if path.suffix in suffixes)
    return {path.relative_to(out_dir).as_posix(): path.read_bytes() for path in found}


def run_toy(out_dir: Path) -> None:
    """Run the toy pipeline as the command line would."""
    run_recipe(toy_recipe(), out_dir, Runtime(), LineProgress(), stages=toy_stages())


def run_killed(out_dir: Path, n_writes: int) -> bool:
    """Run in a child process that is killed at its ``n_writes``-th sync: before or after a rename, by turns.

    Returns whether it was killed; False means it finished first.
    """
    child = os.fork()
    if child == 0:
        left = n_writes

        def die(path: Path) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        artifact_writer._sync = die
        run_toy(out_dir)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    place, mode, *numbers = Path(sys.argv[1]), *sys.argv[2:]
    if mode == "pause":
        PAUSE_S = float(numbers[0])
        run_toy(place)
    else:
        pa.table({"loaded": [1]})  # Arrow loads its slow optional parts once, before the forks
        sys.stdout.write(str(sum(run_killed(place, int(number)) for number in numbers)))
