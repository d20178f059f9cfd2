"""The five stages end to end on the planted corpus: reruns do nothing, kills change no byte, failures are counted."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backend.artifact_writer import UNLISTED_NAMES
from backend.artifacts import Artifact, file_fingerprint
from precompute.progress import SilentProgress
from precompute.runner import run_recipe
from precompute.stage import load_stages, plan
from tests.builders_pipeline import (
    RUNTIME,
    install,
    planted_recipe,
    planted_run,
    planted_subject,
    run,
)

STAGES = ("train_sae", "harvest", "explain", "score", "atlas")


def contents(out: Path) -> dict[str, str]:
    """Checksum of every file of the finished stages, without what says when a run took place."""
    files = sorted(path for path in out.glob("*/*/**/*") if path.is_file() and path.name not in UNLISTED_NAMES)
    return {path.relative_to(out).as_posix(): file_fingerprint(path) for path in files}


def test_stages_name_only_earlier_ones_and_hash_no_runtime() -> None:
    install()
    recipe = planted_recipe(planted_subject())
    planned = plan(recipe)
    assert tuple(item.stage.name for item in planned) == STAGES
    for place, item in enumerate(planned):
        assert set(item.stage.upstream) <= set(STAGES[:place])
        assert str(planted_subject()) not in str(item.inputs)


def test_a_changed_field_makes_that_stage_and_the_later_ones_stale() -> None:
    install()
    before = [item.fingerprint for item in plan(planted_recipe(planted_subject()))]
    changed = planted_recipe(planted_subject(), explain={"max_new_tokens": 5})
    after = [item.fingerprint for item in plan(changed)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False, False, False]
    saved_more_often = planted_recipe(planted_subject(), sae={"checkpoint_every_steps": 7})
    assert [item.fingerprint for item in plan(saved_more_often)] == before


@pytest.mark.slow
def test_a_second_run_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = planted_run()
    stages = load_stages()[:4]
    for stage in stages:
        monkeypatch.setattr(type(stage), "run_shard", lambda *args: pytest.fail("a finished shard was computed again"))
    out = first["score"].folder.parents[1]
    again = run_recipe(planted_recipe(planted_subject()), out, RUNTIME, SilentProgress(), stages)
    assert {name: artifact.fingerprint for name, artifact in again.items()} == {
        name: artifact.fingerprint for name, artifact in first.items()
    }


@pytest.mark.slow
def test_batch_sizes_do_not_change_the_science(tmp_path: Path) -> None:
    """Other chunks give the same exemplars and texts; only float rounding may differ."""
    install()
    from precompute.recipe import Runtime

    other = Runtime(device="cpu", images_per_batch=7, prompts_per_batch=3, workers=1)
    stages = load_stages()[:3]
    again = run_recipe(planted_recipe(planted_subject()), tmp_path, other, SilentProgress(), stages)
    first = planted_run()
    for name in ("feature", "split", "pooling", "rank", "image_id"):
        assert again["harvest"].table("exemplars")[name].equals(first["harvest"].table("exemplars")[name])
    assert again["explain"].table("explanations")["text"].equals(first["explain"].table("explanations")["text"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_runs_end_with_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL after 3, then 5, then 6 more finished shards (training, harvest, explain); then to the end."""
    install()
    whole = planted_run(n_stages=5)["atlas"].folder.parents[1]
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.builders_pipeline", str(out), str(planted_subject())]
    for n_shards in (3, 5, 6):
        done = subprocess.run(
            [*command, str(n_shards)], cwd=Path(__file__).parents[1], capture_output=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    run(out, planted_subject())
    assert contents(out) == contents(whole)
    for stage in STAGES:
        Artifact.open(next((out / stage).iterdir()), stage, verify=True)
