"""Several processes train one SAE: same batches, same losses, same checkpoints; and blocks encoded ahead of time."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.artifacts import Artifact
from backend.batching import in_batches
from backend.errors import DataError, NotEnoughMemory
from backend.memory_limits import MemoryLimits, memory_limits
from precompute.background import Background
from precompute.processes import ALONE, Processes
from precompute.runner import RunStopped
from precompute.sae_trainer import SAETrainer, TrainerConfig
from precompute.stage import StageContext
from precompute.stages.train_sae import TrainSAE
from precompute.token_stream import Batch, TokenStream
from tests.builders_pipeline import planted_subject
from tests.train_together import in_threads, train

N_IMAGES, N_PATCHES, BATCH = 11, 6, 8
UNREADABLE = frozenset({4, 7})


def encode(indices: Sequence[int]) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Two images a chunk; a token's number says image and patch."""
    for start in range(0, len(indices), 2):
        places = [place for place in range(start, min(start + 2, len(indices))) if indices[place] not in UNREADABLE]
        if places:
            yield places, torch.tensor([[[100.0 * indices[place] + patch] for patch in range(6)] for place in places])


def stream(**changes: Any) -> TokenStream:
    defaults = {"n_images": N_IMAGES, "patches_per_image": N_PATCHES, "buffer_tokens": 24, "seed": 3}
    return TokenStream(encode, **{**defaults, "batch_tokens": BATCH, **changes})


def first(source: TokenStream, n: int) -> list[Batch]:
    batches = source.batches()
    return [next(batches) for _ in range(n)]


@pytest.mark.parametrize("buffer_tokens", [24, 200])
def test_processes_together_deliver_what_one_would(buffer_tokens: int) -> None:
    n = 12
    alone = first(stream(buffer_tokens=buffer_tokens), n)
    parts = in_threads(3, lambda group: first(stream(buffer_tokens=buffer_tokens, processes=group), n))
    for number, whole in enumerate(alone):
        joined = torch.full((BATCH, 1), torch.nan)
        for part in parts:
            if part[number].tokens.numel():
                joined[part[number].places] = part[number].tokens
            assert part[number].n_tokens == BATCH
        assert torch.equal(joined, whole.tokens)


def test_a_prefetched_stream_is_the_same_stream() -> None:
    plain, ahead = stream(), stream(prefetch=True)
    for one, other in zip(first(plain, 40), first(ahead, 40), strict=True):
        assert torch.equal(one.tokens, other.tokens)
    ahead.close()
    assert plain.cursor == ahead.cursor


def test_blocks_are_prefetched_while_batches_are_taken_and_never_beyond_the_last() -> None:
    encoded: list[tuple[str, int]] = []

    def noted(indices: Sequence[int]) -> Iterator[tuple[Sequence[int], Tensor]]:
        encoded.append((threading.current_thread().name, len(indices)))
        yield from encode(indices)

    source = TokenStream(
        noted, n_images=N_IMAGES, patches_per_image=6, buffer_tokens=24, batch_tokens=6, seed=3, prefetch=True
    )
    source.n_wanted = 6
    batches = source.batches()
    next(batches)
    source.settle()
    assert len(encoded) == 2 and encoded[0][0] == "MainThread" != encoded[1][0]
    for _ in range(5):
        next(batches)
    source.settle()
    assert len(encoded) == 2  # two blocks hold six batches: a third would be for nobody


def test_an_error_while_prefetching_comes_when_its_block_is_due() -> None:
    def failing(indices: Sequence[int]) -> Iterator[tuple[Sequence[int], Tensor]]:
        if threading.current_thread() is not threading.main_thread():
            raise DataError("the disk is gone")
        yield from encode(indices)

    source = TokenStream(
        failing, n_images=N_IMAGES, patches_per_image=6, buffer_tokens=24, batch_tokens=24, seed=9, prefetch=True
    )
    with pytest.raises(DataError, match="the disk is gone"):
        first(source, 3)


def test_work_in_the_background_stops_when_asked() -> None:
    started = threading.Event()

    def work(stopped: Any) -> int:
        started.set()
        steps = 0
        while not stopped():
            steps += 1
        return steps

    background = Background(work)
    assert started.wait(10)
    background.stop()
    assert background.result() > 0


def test_work_in_the_background_knows_the_limits_of_its_caller() -> None:
    said: list[str] = []

    def compute(part: slice) -> int:
        if part.stop - part.start > 2:
            raise NotEnoughMemory("too many")
        return part.stop - part.start

    with memory_limits(MemoryLimits(say=said.append)) as limits:
        background = Background(lambda _: list(in_batches("images", 8, 8, compute)))
        assert background.result() == [2, 2, 2, 2]
    assert limits.rows == {"images": 2} and len(said) == 2


def test_unreadable_images_are_told_by_index() -> None:
    told: list[int] = []
    first(stream(buffer_tokens=200, report_unreadable=told.extend), 1)
    assert set(told) == UNREADABLE


def tokens(step: int) -> Tensor:
    """Sums of two of twelve directions around an offset."""
    atoms = torch.randn(12, 16, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(step)
    chosen = torch.rand(64, 12, generator=generator).topk(2, dim=1).indices
    return atoms[chosen].sum(dim=1) + 3.0


def losses(processes: Processes) -> list[float]:
    """A short training in which AuxK is at work from step 50 on; each process has other numbers of tokens."""
    config = TrainerConfig(
        d_model=16,
        d_sae=48,
        k=2,
        n_steps=80,
        batch_tokens=64,
        learning_rate=3e-3,
        warmup_steps=5,
        dead_after_tokens=1000,
        auxk_coefficient=0.5,
    )
    trainer = SAETrainer(config, processes=processes)
    for step in range(80):
        batch = tokens(step)
        if step == 0:
            trainer.initialise(batch if processes.rank == 0 else batch + 1)  # the first process's sample counts
        mine = batch[torch.arange(64) % 7 % processes.size == processes.rank]
        trainer.step(mine if step != 20 else batch[: 64 * (processes.rank == 0)], 64)  # once, others have none
    assert trainer.state()["dead"].numel() > 3
    return [float(loss) for loss in trainer.losses]


def test_a_batch_divided_among_processes_gives_the_same_losses() -> None:
    alone = losses(ALONE)
    for one in in_threads(3, losses):
        assert one == pytest.approx(alone, rel=1e-4)


def torchrun(n_processes: int, *arguments: str) -> None:
    """Run tests/train_together.py under torchrun and wait for it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(n_processes), "--master-port", str(port)]
    command = [sys.executable, *launch, "-m", "tests.train_together", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_go_on_from_the_checkpoint_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun with gloo, the true stage on the shrunken subject."""
    subject = planted_subject()
    alone = train(tmp_path / "one", subject)
    run_shard = TrainSAE.run_shard

    def once(stage: TrainSAE, context: StageContext, key: str) -> None:
        if key != context.shard_keys[0]:
            raise RunStopped
        run_shard(stage, context, key)

    monkeypatch.setattr(TrainSAE, "run_shard", once)
    with pytest.raises(RunStopped):
        train(tmp_path / "two", subject)
    torchrun(2, str(tmp_path / "two"), str(subject))
    assert alone is not None
    expected = alone["train_sae"]
    found = Artifact.open(tmp_path / "two" / "train_sae" / expected.folder.name)
    np.testing.assert_allclose(found.table("losses")["loss"], expected.table("losses")["loss"], rtol=1e-4)
    assert dict(found.manifest.failures) == dict(expected.manifest.failures) == {"image unreadable": 1}
