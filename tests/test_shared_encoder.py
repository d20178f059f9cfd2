"""Several SAEs in one pass of the tower: every image is encoded once, and every result is what it is alone."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.errors import RecipeError
from backend.types import HookPoint
from precompute import encoding, shared_encoder
from precompute.progress import SilentProgress
from precompute.recipe import Recipe
from precompute.runner import run_recipe
from precompute.sae_trainer import SAETrainer
from precompute.shared_encoder import SharedEncoder
from precompute.stages.train_sae import TrainSAE
from tests.builders_pipeline import RUNTIME, install, planted_recipe, planted_subject
from tests.test_pipeline import contents

PATIENCE = 3000
"""Looks, a hundredth of a second apart, for a signal that was sent."""


def recipes() -> list[Recipe]:
    """Two hook points, two widths, two lengths; three of the four can share blocks, the last has another seed."""
    install()
    made = [
        planted_recipe(planted_subject(), sae={"n_tokens": 2000}),
        planted_recipe(planted_subject(), sae={"n_tokens": 2000}),
        planted_recipe(planted_subject(), sae={"n_tokens": 1400, "d_sae": 16, "k": 2}),
        planted_recipe(planted_subject(), sae={"n_tokens": 700, "seed": 9}),
    ]
    made[1] = replace(made[1], subject=replace(made[1].subject, layer=0))
    for number, recipe in enumerate(made):
        object.__setattr__(recipe, "name", f"planted-{number}")
    return made


def train(recipe: Recipe, out: Path, shared: SharedEncoder | None = None) -> Path:
    run_recipe(recipe, out, RUNTIME, SilentProgress(), [TrainSAE(shared=shared)], command="train")
    return out


@pytest.mark.slow
def test_every_training_ends_with_the_bytes_it_has_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recipes()
    alone = [contents(train(recipe, tmp_path / "alone" / recipe.name)) for recipe in wanted]
    passes: list[tuple[HookPoint, ...]] = []
    encode_once = SharedEncoder._encode_once

    def noted(self: SharedEncoder, points: list[HookPoint], ids: tuple[str, ...]) -> None:
        passes.append(tuple(points))
        encode_once(self, points, ids)

    monkeypatch.setattr(shared_encoder.SharedEncoder, "_encode_once", noted)
    shared = SharedEncoder(wanted, RUNTIME, SilentProgress())
    outs = shared.run([partial(train, recipe, tmp_path / "shared" / recipe.name, shared) for recipe in wanted])
    assert [contents(out) for out in outs] == alone
    assert (HookPoint(layer=0), HookPoint(layer=1)) in passes
    n_shared = sum(len(points) == 2 for points in passes)
    assert len(passes) - n_shared <= 4  # the short one with another seed, and nobody else, had passes of its own


def test_an_error_in_one_training_ends_the_others(tmp_path: Path) -> None:
    wanted = recipes()[:2]
    shared = SharedEncoder(wanted, RUNTIME, SilentProgress())

    def failing() -> Path:
        raise RecipeError("out of luck")

    with pytest.raises(RecipeError, match="out of luck"):
        shared.run([failing, partial(train, wanted[1], tmp_path, shared)])


@pytest.mark.parametrize("stopped_in", ["encoding", "training"])
def test_ctrl_c_ends_all_trainings_after_the_batch_at_hand(
    stopped_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for the end of the block; a new start goes on and ends with the bytes of an undisturbed run."""
    wanted = recipes()[:2]
    alone = [contents(train(recipe, tmp_path / "alone" / recipe.name)) for recipe in wanted]
    shared = SharedEncoder(wanted, RUNTIME, SilentProgress())
    after: list[str] = []

    def interrupting(original: Any, name: str, first: int) -> Any:
        calls = itertools.count()

        def call(*arguments: Any, **more: Any) -> Any:
            if shared._failure is not None:
                after.append(name)
            elif name == stopped_in and next(calls) == first:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                for _ in range(PATIENCE):
                    if shared._failure is not None:
                        break
                    time.sleep(0.01)
            return original(*arguments, **more)

        return call

    monkeypatch.setattr(encoding, "finite_residuals", interrupting(encoding.finite_residuals, "encoding", 1))
    monkeypatch.setattr(SAETrainer, "step", interrupting(SAETrainer.step, "training", 3))
    works = [partial(train, recipe, tmp_path / "shared" / recipe.name, shared) for recipe in wanted]
    with pytest.raises(KeyboardInterrupt):
        shared.run(works)
    assert after == []
    again = SharedEncoder(wanted, RUNTIME, SilentProgress())
    works = [partial(train, recipe, tmp_path / "shared" / recipe.name, again) for recipe in wanted]
    assert [contents(out) for out in again.run(works)] == alone


def test_other_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recipes()[:2]
    monkeypatch.setattr(
        shared_encoder, "open_image_set", lambda recipe, _split: SimpleNamespace(fingerprint=recipe.name)
    )
    with pytest.raises(RecipeError, match="different images"):
        SharedEncoder(wanted, RUNTIME, SilentProgress())
