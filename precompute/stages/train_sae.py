"""Stage 1, train_sae: a TopK SAE on the residual stream of the subject model at the hook point.

Shards are checkpoints: each trains on from the one before, saves parameters, optimiser and data cursor, and retires
its predecessor. Held-out images (the last of the training split, never trained on) give the quality figures.

Output: sae/{sae_weights.safetensors, cfg.json}, firing.parquet (feature, firing_fraction on held-out tokens),
losses.parquet (step, loss), quality.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from backend.models.base import VisionTower
from backend.sae import SAEConfig, TopKSAE
from backend.types import Split
from precompute.datasets import open_image_set
from precompute.encoding import UNREADABLE, fixed_threads
from precompute.given_sae import sae_science, take_sae
from precompute.processes import ALONE, Processes
from precompute.recipe import Recipe, section_science
from precompute.sae_evaluation import measure
from precompute.sae_run import (
    HELD_OUT_FRACTION,
    HELD_OUT_LIMIT,
    TrainingRun,
    n_steps,
    read_checkpoint,
    write_checkpoint,
)
from precompute.sae_trainer import SAETrainer
from precompute.shared_encoder import SharedEncoder
from precompute.shared_training import lead_start, lead_training
from precompute.stage import Stage, StageContext
from precompute.subject import hook_point_of, subject_science

CHECKPOINT_NAME = "checkpoint.safetensors"


class TrainSAE(Stage):
    """See the module docstring."""

    name = "train_sae"
    version = 2
    sequential = True
    keep_shards = False

    def __init__(self, processes: Processes = ALONE, shared: SharedEncoder | None = None) -> None:
        """``processes`` divide the training and this one leads it; ``shared`` is the tower of several trainings."""
        self._processes = processes
        self._shared = shared
        self._run: TrainingRun | None = None
        self._run_key: tuple[Path, int] | None = None

    def science(self, recipe: Recipe) -> dict[str, Any]:
        if recipe.sae.path is not None:
            return sae_science(recipe)
        sae = section_science(recipe.sae)
        del sae["checkpoint_every_steps"]  # how often to save changes no number
        return {
            "subject": subject_science(recipe),
            "sae": sae,
            "images": open_image_set(recipe, Split.TRAIN).fingerprint,
            "held_out": [HELD_OUT_FRACTION, HELD_OUT_LIMIT],
        }

    def shards(self, context: StageContext) -> Sequence[str]:
        if context.recipe.sae.path is not None:
            return ()
        total, every = n_steps(context.recipe), context.recipe.sae.checkpoint_every_steps
        return [f"step-{min(stop, total):08d}" for stop in range(every, total + every, every)]

    def run_shard(self, context: StageContext, key: str) -> None:
        earlier = [shard for shard in context.shard_keys if shard < key]
        for shard in earlier[:-1]:  # the last one stays until this checkpoint is complete
            if context.writer.shard_state(shard, verify=False) == "done":
                context.writer.retire_shard(shard)
        with fixed_threads(context.runtime.workers):
            run = self._resume(context, earlier)
            lead_training(self._processes, int(key.removeprefix("step-")))
            run.train_until(int(key.removeprefix("step-")))
        step = run.trainer.step_index
        loss = run.trainer.mean_loss()
        context.writer.write_with(CHECKPOINT_NAME, lambda path: write_checkpoint(path, run.state), shard=key)
        losses = self._losses(context, earlier)
        losses.append({"step": step, "loss": loss})
        schema = pa.schema([("step", pa.int64()), ("loss", pa.float64())])
        context.writer.write_table("losses", pa.Table.from_pylist(losses, schema=schema), shard=key)
        self._run_key = (context.out_dir, step)
        context.log.write("trained", step=step, loss=loss)

    def _losses(self, context: StageContext, earlier: Sequence[str]) -> list[dict[str, Any]]:
        there = earlier and context.writer.has("losses.parquet", earlier[-1])
        return context.writer.read_table("losses", earlier[-1]).to_pylist() if there else []

    def _resume(self, context: StageContext, earlier: Sequence[str]) -> TrainingRun:
        """The run in memory if it stands exactly at the last checkpoint, else one rebuilt from that checkpoint.

        A checkpoint that is gone (retired before its successor was damaged) means to train again from the start.
        """
        step = int(earlier[-1].removeprefix("step-")) if earlier else 0
        if self._run is None or self._run_key != (context.out_dir, step):
            checkpoint = context.writer.path(CHECKPOINT_NAME, earlier[-1]) if earlier else None
            state = read_checkpoint(checkpoint) if checkpoint is not None and checkpoint.is_file() else None
            lead_start(self._processes, state)
            self._run = TrainingRun(
                context.recipe, context.runtime, context.progress, state, self._processes, self._shared
            )
            self._run_key = (context.out_dir, step)
        return self._run

    def finish(self, context: StageContext) -> Mapping[str, Any]:
        if context.recipe.sae.path is not None:
            return take_sae(context)
        with fixed_threads(context.runtime.workers):
            run = self._resume(context, context.shard_keys)
            sae = self._sae(context, run.trainer, run.subject)
            meter = measure(sae, run.held_out())
        quality = meter.quality()
        writer = context.writer
        writer.write_tree("sae", sae.save)
        firing = meter.firing_fractions()
        features = np.arange(firing.size, dtype=np.int32)
        writer.write_table("firing", pa.table({"feature": features, "firing_fraction": firing}))
        writer.write_table("losses", writer.read_table("losses", context.shard_keys[-1]))
        writer.write_json(
            "quality", {**quality.as_dict(), "scale": run.trainer.scale, "n_train_images": len(run.train_ids)}
        )
        failures = {UNREADABLE: len(run.unreadable)} if run.unreadable else {}
        self._run = None
        context.progress.note(
            f"SAE: explained variance {quality.explained_variance:.3f}, L0 {quality.l0:.1f}, "
            f"dead {quality.dead_fraction:.1%} of {firing.size} features"
        )
        return {"failures": failures, "notes": quality.as_dict()}

    def _sae(self, context: StageContext, trainer: SAETrainer, subject: VisionTower) -> TopKSAE:
        config = trainer.config
        return TopKSAE(
            SAEConfig(
                d_model=config.d_model,
                d_sae=config.d_sae,
                k=config.k,
                hook_point=hook_point_of(context.recipe),
                subject=subject.card.name,
                metadata={"activation_scale": trainer.scale, "n_tokens": config.n_steps * config.batch_tokens},
            ),
            **trainer.weights(),
        )


STAGE = TrainSAE()
