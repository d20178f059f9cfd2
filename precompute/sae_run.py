"""One SAE training in memory: subject, images, token stream and trainer, put together from a recipe.

``TrainingState`` is what a checkpoint holds: with it a run goes on as if never interrupted, in this process or another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from backend.errors import ArtifactDamaged, DataError
from backend.types import Split
from precompute.datasets import ImageSet, open_image_set
from precompute.encoding import encode_images
from precompute.processes import ALONE, Processes
from precompute.recipe import Recipe, Runtime
from precompute.sae_trainer import SAETrainer, TrainerConfig
from precompute.shared_encoder import SharedEncoder
from precompute.stage import Progress
from precompute.subject import device_of, open_tower
from precompute.token_stream import Batch, Cursor, TokenStream

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Where a training stands."""

    tensors: dict[str, Tensor]
    """``SAETrainer.state()``; empty before the first step."""
    cursor: Cursor = field(default_factory=Cursor)
    unreadable: frozenset[str] = frozenset()
    """Ids of training images that could not be read."""

    @property
    def facts(self) -> dict[str, Any]:
        """All but the tensors, JSON-like."""
        cursor = [self.cursor.epoch, self.cursor.block, self.cursor.batch]
        return {"cursor": cursor, "unreadable": sorted(self.unreadable)}

    @staticmethod
    def of(tensors: dict[str, Tensor], facts: dict[str, Any]) -> TrainingState:
        """The inverse of ``facts``."""
        epoch, block, batch = facts["cursor"]
        cursor = Cursor(epoch=epoch, block=block, batch=batch)
        return TrainingState(tensors=tensors, cursor=cursor, unreadable=frozenset(facts["unreadable"]))


def write_checkpoint(path: Path, state: TrainingState) -> None:
    """Parameters, optimiser state and cursor in one safetensors file; small facts as JSON in its header."""
    save_file(state.tensors, path, metadata={"iconoscope": json.dumps(state.facts, sort_keys=True)})


def read_checkpoint(path: Path) -> TrainingState:
    """What ``write_checkpoint`` stored. Raises ArtifactDamaged."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {}).get("iconoscope", "null"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if facts is None:
        raise ArtifactDamaged(f"{path} is not a training checkpoint. Remove the folder and run again.")
    return TrainingState.of(tensors, facts)


class TrainingRun:
    """One training run in memory, rebuilt from a state after a kill. Raises DataError and the errors of its parts."""

    def __init__(
        self,
        recipe: Recipe,
        runtime: Runtime,
        progress: Progress,
        state: TrainingState | None = None,
        processes: Processes = ALONE,
        shared: SharedEncoder | None = None,
    ) -> None:
        """``processes`` divide one training, ``shared`` is the tower of several trainings."""
        self._shared = shared
        self._runtime, self._progress, self._processes = runtime, progress, processes
        self.unreadable: set[str] = set() if state is None else set(state.unreadable)
        self.subject = open_tower(recipe, runtime) if shared is None else shared.tower(recipe)
        self.images: ImageSet = open_image_set(recipe, Split.TRAIN)
        n_held_out = held_out_count(len(self.images.ids))
        self.train_ids = tuple(self.images.ids[:-n_held_out])
        self.held_out_ids = tuple(self.images.ids[-n_held_out:])
        device = device_of(runtime)
        self.trainer = SAETrainer(
            trainer_config(recipe, self.subject.d_model),
            device,
            compute_dtype=getattr(torch, runtime.sae_dtype),
            processes=processes,
        )
        if state is not None and state.tensors:
            self.trainer.load_state(state.tensors)
        self.stream = TokenStream(
            self._encode,
            n_images=len(self.train_ids),
            patches_per_image=self.subject.grid.n_patches,
            buffer_tokens=recipe.sae.buffer_tokens,
            batch_tokens=recipe.sae.batch_tokens,
            seed=recipe.sae.seed,
            cursor=None if state is None else state.cursor,
            # On the CPU both would compute on the same cores; a shared tower waits for all its trainings.
            prefetch=runtime.prefetch and device != "cpu" and shared is None,
            processes=processes,
            report_unreadable=lambda indices: self.unreadable.update(self.train_ids[index] for index in indices),
        )
        self._batches = self.stream.batches()

    @property
    def state(self) -> TrainingState:
        """Where the training stands."""
        return TrainingState(
            tensors=self.trainer.state(), cursor=self.stream.cursor, unreadable=frozenset(self.unreadable)
        )

    def _encode(self, indices: Sequence[int]) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Residuals of training images, kept as bfloat16 on the CPU (half the memory, ample precision)."""
        ids = [self.train_ids[index] for index in indices]
        if self._shared is not None:
            yield from self._shared.encode(self.subject.hook_point, ids)
            return
        with self._progress.track("activations (images)", len(ids)) as advance:
            batch = self._runtime.images_per_batch
            for chunk in encode_images(self.subject, self.images, ids, images_per_batch=batch):
                yield chunk.positions, chunk.residuals.to(torch.bfloat16).cpu()
                advance(len(chunk.positions))

    def train_until(self, step: int) -> None:
        """Optimise until ``step`` steps are done in all."""
        trainer = self.trainer
        self.stream.n_wanted = trainer.config.n_steps - trainer.step_index
        try:
            with self._progress.track("SAE steps", step - trainer.step_index) as advance:
                while trainer.step_index < step:
                    batch = next(self._batches)
                    if trainer.step_index == 0:
                        trainer.initialise(self._first_tokens(batch))
                    tokens = batch.tokens.reshape(-1, trainer.config.d_model)
                    # From pinned memory the copy to the GPU does not hold up the next batch.
                    trainer.step(tokens.pin_memory() if trainer.device.type == "cuda" else tokens, batch.n_tokens)
                    advance(1)
                    if self._shared is not None:
                        self._shared.check()
            self.stream.settle()
        except BaseException:
            self.stream.close()
            raise

    def _first_tokens(self, batch: Batch) -> Float[Tensor, "token d_model"]:
        """The first tokens of the first batch, on every process."""
        n_sample, d_model = min(batch.n_tokens, _MEDIAN_TOKENS), self.trainer.config.d_model
        sample = torch.zeros(n_sample, d_model)
        here = batch.places < n_sample
        sample[batch.places[here]] = batch.tokens.reshape(-1, d_model)[here].float()
        self._processes.sum(sample)
        return sample

    def held_out(self) -> Iterator[Float[Tensor, "image patch d_model"]]:
        """Residuals of the held-out images, chunk by chunk."""
        read: set[str] = set()
        batch = self._runtime.images_per_batch
        for chunk in encode_images(self.subject, self.images, self.held_out_ids, images_per_batch=batch):
            read.update(chunk.image_ids)
            yield chunk.residuals
        self.unreadable |= set(self.held_out_ids) - read
