"""Stage 1, train_sae: a TopK SAE on the residual stream of the subject model at the hook point.

Shards are checkpoints: each trains on from the one before, saves parameters, optimiser and data cursor, and retires
its predecessor. Held-out images (the last of the training split, never trained on) give the quality figures.

Output: sae/{sae_weights.safetensors, cfg.json}, firing.parquet (feature, firing_fraction on held-out tokens),
losses.parquet (step, loss), quality.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from backend.errors import ArtifactDamaged, DataError
from backend.models.base import VisionTower
from backend.sae import SAEConfig, TopKSAE
from backend.types import Split
from precompute.datasets import ImageSet, open_image_set
from precompute.encoding import UNREADABLE, encode_images, fixed_threads
from precompute.given_sae import sae_science, take_sae
from precompute.recipe import Recipe, section_science
from precompute.sae_evaluation import measure
from precompute.sae_trainer import SAETrainer, TrainerConfig
from precompute.stage import Stage, StageContext
from precompute.subject import device_of, hook_point_of, open_tower, subject_science
from precompute.token_stream import Cursor, TokenStream

CHECKPOINT_NAME = "checkpoint.safetensors"
HELD_OUT_FRACTION = 0.05
HELD_OUT_LIMIT = 512
_MEDIAN_TOKENS = 8192


def held_out_count(n_images: int) -> int:
    """Images at the end of the training split that only measure quality. Raises DataError if none would be left."""
    if n_images < 2:
        raise DataError("Training needs at least two images: one to train on and one held out.")
    return max(1, min(HELD_OUT_LIMIT, round(n_images * HELD_OUT_FRACTION)))


def trainer_config(recipe: Recipe, d_model: int) -> TrainerConfig:
    """The recipe's [sae] section in steps of whole batches."""
    sae = recipe.sae
    return TrainerConfig(
        d_model=d_model,
        d_sae=sae.d_sae,
        k=sae.k,
        n_steps=n_steps(recipe),
        batch_tokens=sae.batch_tokens,
        learning_rate=sae.learning_rate,
        warmup_steps=sae.warmup_steps,
        decay_fraction=sae.decay_fraction,
        auxk_coefficient=sae.auxk_coefficient,
        dead_after_tokens=sae.dead_after_tokens,
        grad_clip=sae.grad_clip,
        seed=sae.seed,
    )


def n_steps(recipe: Recipe) -> int:
    """Whole batches in the recipe's number of tokens, at least one."""
    return max(1, recipe.sae.n_tokens // recipe.sae.batch_tokens)


class TrainingRun:
    """One training run in memory: subject, images, stream and trainer, all rebuilt from a checkpoint after a kill."""

    def __init__(self, context: StageContext, checkpoint: Path | None) -> None:
        recipe = context.recipe
        self._context = context
        self.unreadable: set[str] = set()
        self.subject = open_tower(recipe, context.runtime)
        self.images: ImageSet = open_image_set(recipe, Split.TRAIN)
        n_held_out = held_out_count(len(self.images.ids))
        self.train_ids = tuple(self.images.ids[:-n_held_out])
        self.held_out_ids = tuple(self.images.ids[-n_held_out:])
        self.trainer = SAETrainer(trainer_config(recipe, self.subject.d_model), device_of(context.runtime))
        cursor = Cursor()
        if checkpoint is not None:
            tensors, cursor, self.unreadable = read_checkpoint(checkpoint)
            self.trainer.load_state(tensors)
        self.stream = TokenStream(
            self._encode,
            n_images=len(self.train_ids),
            patches_per_image=self.subject.grid.n_patches,
            buffer_tokens=recipe.sae.buffer_tokens,
            batch_tokens=recipe.sae.batch_tokens,
            seed=recipe.sae.seed,
            cursor=cursor,
        )
        self._batches = self.stream.batches()

    def _encode(self, indices: Sequence[int]) -> Float[Tensor, "token d_model"]:
        """Residual tokens of training images, kept as bfloat16 on the CPU (half the memory, ample precision)."""
        ids = [self.train_ids[index] for index in indices]
        parts: list[Tensor] = []
        with self._context.progress.track("activations (images)", len(ids)) as advance:
            for residuals in self._residuals(ids):
                parts.append(residuals.flatten(0, 1).to(torch.bfloat16).cpu())
                advance(len(residuals))
        if not parts:
            raise DataError(f"None of {len(ids)} training images can be read.")
        return torch.cat(parts)

    def train_until(self, step: int) -> None:
        """Optimise until ``step`` steps are done in all."""
        with self._context.progress.track("SAE steps", step - self.trainer.step_index) as advance:
            while self.trainer.step_index < step:
                batch = next(self._batches)
                if self.trainer.step_index == 0:
                    self.trainer.initialise(batch[:_MEDIAN_TOKENS])
                self.trainer.step(batch)
                advance(1)

    def held_out(self) -> Iterator[Float[Tensor, "image patch d_model"]]:
        """Residuals of the held-out images, chunk by chunk."""
        return self._residuals(self.held_out_ids)

    def _residuals(self, ids: Sequence[str]) -> Iterator[Float[Tensor, "image patch d_model"]]:
        batch = self._context.runtime.images_per_batch
        read: set[str] = set()
        for chunk in encode_images(self.subject, self.images, ids, images_per_batch=batch):
            read.update(chunk.image_ids)
            yield chunk.residuals
        self.unreadable |= set(ids) - read


def write_checkpoint(path: Path, trainer: SAETrainer, cursor: Cursor, unreadable: set[str]) -> None:
    """Parameters, optimiser state and cursor in one safetensors file; small facts as JSON in its header."""
    facts = {"cursor": [cursor.epoch, cursor.block, cursor.batch], "unreadable": sorted(unreadable)}
    save_file(trainer.state(), path, metadata={"iconoscope": json.dumps(facts, sort_keys=True)})


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Cursor, set[str]]:
    """What ``write_checkpoint`` stored."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {}).get("iconoscope", "null"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if facts is None:
        raise ArtifactDamaged(f"{path} is not a training checkpoint. Remove the folder and run again.")
    epoch, block, batch = facts["cursor"]
    return tensors, Cursor(epoch=epoch, block=block, batch=batch), set(facts["unreadable"])


class TrainSAE(Stage):
    """See the module docstring."""

    name = "train_sae"
    version = 1
    sequential = True
    keep_shards = False

    def __init__(self) -> None:
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
            run.train_until(int(key.removeprefix("step-")))
        step = run.trainer.step_index
        loss = run.trainer.mean_loss()
        context.writer.write_with(
            CHECKPOINT_NAME,
            lambda path: write_checkpoint(path, run.trainer, run.stream.cursor, run.unreadable),
            shard=key,
        )
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
            there = checkpoint is not None and checkpoint.is_file()
            self._run = TrainingRun(context, checkpoint if there else None)
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
