"""Memory that runs out: batches halve, say so, and give the same; answers end the same however seldom one looks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from backend.batching import fitting_rows, in_batches, is_out_of_memory, rows_in
from backend.errors import NotEnoughMemory
from backend.explainers import explainer_for
from backend.explainers.base import ExemplarInput, ExplainerContext, ExplanationRequest
from backend.memory_limits import MemoryLimits, memory_limits
from backend.models import load_subject
from backend.models._decoding import decode_tokens
from backend.models._memory import answer_bytes
from backend.models.base import SubjectModel
from backend.sae import SAEConfig, TopKSAE
from backend.steering import SteeringSession
from backend.types import Arm, Explanation, HookPoint, Intervention, Method, Split, Variant
from precompute.encoding import encode_images
from tests.builders_pipeline import PlantedImages, planted_subject

CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"


@pytest.fixture(scope="module")
def subject() -> SubjectModel:
    return load_subject(planted_subject(), HookPoint(layer=1))


@pytest.fixture(scope="module")
def sae(subject: SubjectModel) -> TopKSAE:
    directions = torch.randn(12, subject.d_model, generator=torch.Generator().manual_seed(0))
    directions /= directions.norm(dim=1, keepdim=True)
    zeros = {"b_enc": torch.zeros(12), "b_dec": torch.zeros(subject.d_model)}
    return TopKSAE(SAEConfig(d_model=subject.d_model, d_sae=12, k=3), W_enc=directions.T, W_dec=directions, **zeros)


@pytest.fixture
def limits() -> Iterator[MemoryLimits]:
    with memory_limits(MemoryLimits()) as found:
        yield found


def small(monkeypatch: pytest.MonkeyPatch, subject: SubjectModel, name: str, n_rows: int) -> None:
    """Let a method of the subject run out of memory above ``n_rows`` rows, as a GPU does."""
    whole: Callable[..., Any] = getattr(subject, name)

    def bounded(rows: Tensor, *given: Any, **named: Any) -> Any:
        if rows.shape[0] > n_rows:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {rows.shape[0]} rows.")
        return whole(rows, *given, **named)

    monkeypatch.setattr(subject, name, bounded)


def test_rows_come_once_and_in_order_whatever_fits() -> None:
    said: list[str] = []
    tried: list[int] = []

    def compute(part: slice) -> list[int]:
        tried.append(part.stop - part.start)
        if part.stop - part.start > 3:
            raise RuntimeError(CPU_MESSAGE)
        return list(range(part.start, part.stop))

    with memory_limits(MemoryLimits(say=said.append)) as limits:
        rows = [row for part in in_batches("images", 20, 16, compute) for row in part]
        again = [row for part in in_batches("images", 4, 16, compute) for row in part]
    assert rows == list(range(20)) and again == list(range(4))
    assert tried == [16, 8, 4, *[2] * 12], "what did not fit is not tried again, not even by the next call"
    assert limits.n_halved == Counter(images=3) and len(said) == 3
    assert said[0].startswith("memory ran out with 16 images at once; going on with 8") and CPU_MESSAGE in said[0]


def test_one_row_that_does_not_fit_is_a_clear_error_and_other_errors_pass() -> None:
    def full(part: slice) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def broken(part: slice) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(NotEnoughMemory, match=r"batch of 1 does not fit.*prompts: CUDA out of memory.*bfloat16"):
        list(in_batches("prompts", 4, 4, full))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(in_batches("prompts", 4, 4, broken))
    assert not is_out_of_memory(ValueError(CPU_MESSAGE))


def test_an_inner_batch_that_cannot_shrink_lets_the_outer_one_halve() -> None:
    def outer(part: slice) -> int:
        held = part.stop - part.start

        def inner(_: slice) -> int:
            if held > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return held

        return sum(in_batches("images", 1, 1, inner))

    assert list(in_batches("prompts", 4, 4, outer)) == [2, 2]


def encoded(subject: SubjectModel) -> dict[tuple[str, ...], Tensor]:
    images = PlantedImages(Split.EXPLAIN)
    found: Counter[str] = Counter()
    chunks = list(encode_images(subject, images, images.ids, images_per_batch=8, failures=found))
    assert sum(found.values()) == 1
    return {chunk.image_ids: chunk.residuals for chunk in chunks}


def test_encoding_with_little_memory_gives_the_same_chunks(
    subject: SubjectModel, limits: MemoryLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    untroubled = encoded(subject)
    small(monkeypatch, subject, "state_at_hook", 3)
    troubled = encoded(subject)
    assert troubled.keys() == untroubled.keys(), "chunks hold the same images"
    for ids, residuals in untroubled.items():
        torch.testing.assert_close(troubled[ids], residuals, atol=1e-5, rtol=1e-5)
    assert limits.n_halved["images"] == 1 and limits.rows["images"] == 3, "7 of 8 images can be read"


@pytest.mark.parametrize("method", [Method.STEERING, Method.TOP_K, Method.STEERING_INFORMED_TOP_K])
def test_explaining_with_little_memory_says_the_same(
    subject: SubjectModel, sae: TopKSAE, limits: MemoryLimits, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    arm = Arm(method=method, variant=None if method is Method.STEERING else Variant.MASKS)
    rng = np.random.default_rng(0)
    side = (subject.image_px, subject.image_px, 3)
    images = [Image.fromarray(rng.integers(0, 256, side, dtype=np.uint8)) for _ in range(2)]
    grid = rng.random((subject.grid.rows, subject.grid.cols))
    shown = tuple(ExemplarInput(image_id=str(at), image=image, grid=grid) for at, image in enumerate(images))
    requests = [ExplanationRequest(feature=at, strength=20.0, exemplars=shown) for at in range(7)]

    def explained() -> list[str]:
        context = ExplainerContext(subject=subject, sae=sae, max_new_tokens=4, answer_prefixes=())
        results = explainer_for(arm).explain(requests, context)
        return [one.text if isinstance(one, Explanation) else one.reason for one in results]

    untroubled = explained()
    small(monkeypatch, subject, "generate", 2)
    small(monkeypatch, subject, "from_hook", 3)
    assert explained() == untroubled
    assert limits.n_halved["prompts"] >= 1 and limits.n_halved["images"] >= 1


def test_steered_answers_with_little_memory_are_the_same(
    subject: SubjectModel, sae: TopKSAE, limits: MemoryLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[Intervention(feature=feature, strength=20.0)] for feature in range(5)]
    session = SteeringSession(subject, sae)
    untroubled = session.answers(rows, "what ?", max_new_tokens=4)
    small(monkeypatch, subject, "generate", 2)
    assert session.answers(rows, "what ?", max_new_tokens=4) == untroubled
    assert limits.n_halved["prompts"] == 1


def test_memory_that_runs_out_as_ended_rows_leave_halves_the_batch(
    subject: SubjectModel, sae: TopKSAE, limits: MemoryLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caches of the rows that stay are copied: that, too, may be too much."""
    rows = [[Intervention(feature=feature, strength=200.0)] for feature in range(6)]
    session = SteeringSession(subject, sae)
    *_, free = subject.stream_ids(session.embeddings(rows)[:, None], "what ?", max_new_tokens=8)
    monkeypatch.setattr(subject, "_stop_ids", frozenset({free[0][2]}))
    untroubled = session.answers(rows, "what ?", max_new_tokens=8)
    assert len({len(answer.text) for answer in untroubled}) > 1
    select = DynamicCache.batch_select_indices

    def bounded(cache: DynamicCache, stay: Tensor) -> None:
        if len(stay) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        select(cache, stay)

    monkeypatch.setattr(DynamicCache, "batch_select_indices", bounded)
    assert session.answers(rows, "what ?", max_new_tokens=8) == untroubled
    assert limits.n_halved["prompts"] == 1


# ------------------------------------------------------------------------------------------ sizes and looks


def test_rows_are_sized_from_memory_on_a_gpu_only() -> None:
    assert fitting_rows(torch.device("cpu"), 10, 128) == 128
    assert rows_in(1000, 100, 128) == 8 and rows_in(1000, 10_000, 128) == 1 and rows_in(10**6, 1, 128) == 128


def test_answer_bytes_at_the_shapes_of_gemma_3_27b() -> None:
    """508 KB of keys and values a token in bfloat16 (62 layers, 16 key heads of 128), the cache alone."""

    class Config:
        hidden_size, intermediate_size, num_hidden_layers = 5376, 21504, 62
        num_attention_heads, num_key_value_heads, head_dim, vocab_size = 32, 16, 128, 262_208

    per_token = answer_bytes(Config, 0, 2, 2) - answer_bytes(Config, 0, 1, 2)
    assert per_token == 2 * 62 * 16 * 128 * 2 == 507_904
    assert answer_bytes(Config, 390, 40, 2) > 430 * per_token


def test_the_subject_tells_what_a_row_takes(subject: SubjectModel) -> None:
    one, two = (subject.answer_bytes("what ?", n_images, 4) for n_images in (1, 2))
    assert 0 < one < two < subject.answer_bytes("what ?", 2, 400)


def decoded(lengths: list[int], n_steps: int, every: int) -> tuple[Int[Tensor, "prompt step"], int]:
    """Greedy decoding of rows that say 5 until they stop (1) after so many tokens; and how often logits were asked."""
    step = 0

    def logits() -> Tensor:
        says = [1 if step + 1 >= length else 5 for length in lengths]
        return torch.nn.functional.one_hot(torch.tensor(says), 8).float()

    def following(tokens: Tensor) -> Tensor:
        nonlocal step
        step += 1
        return logits()

    steps = decode_tokens(logits(), following, stop_ids=frozenset({1}), pad_id=0, max_new_tokens=n_steps, every=every)
    return list(steps)[-1], step


@pytest.mark.parametrize("lengths", [[3, 1, 6], [1, 1], [99, 2], [8, 8, 7], [9]])
@pytest.mark.parametrize("n_steps", [1, 7, 8, 20])
def test_looking_seldom_ends_with_the_same_tokens(lengths: list[int], n_steps: int) -> None:
    every_step, n_asked = decoded(lengths, n_steps, 1)
    assert n_asked == every_step.shape[1] - 1, "no step is taken after the last token"
    for every in (2, 8, 50):
        seldom, _ = decoded(lengths, n_steps, every)
        assert torch.equal(seldom, every_step)


def test_a_run_notes_and_logs_that_memory_ran_out(tmp_path: Path) -> None:
    from precompute.recipe import Runtime
    from precompute.runner import run_recipe
    from tests.test_ray_engine import Notes
    from tests.toy_pipeline import Ranges, Total, Train, toy_recipe

    class Hungry(Ranges):
        def run_shard(self, context: Any, key: str) -> None:
            list(in_batches("images", 4, 4, self._bounded))
            super().run_shard(context, key)

        def _bounded(self, part: slice) -> None:
            if part.stop - part.start > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")

    notes = Notes()
    run_recipe(toy_recipe(), tmp_path, Runtime(), notes, (Train(), Hungry(), Total()))
    said = [line for line in notes.lines if "memory ran out with 4 images at once; going on with 2" in line]
    log = next((tmp_path / "ranges").iterdir()) / "log.jsonl"
    logged = [json.loads(line)["event"] for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(said) == 1 and logged.count("memory ran out") == 1, "once for the run, not once a shard"
