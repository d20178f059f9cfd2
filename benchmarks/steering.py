"""Batched steering on a cached prefix against one intervention at a time through transformers' own ``generate``.

Both ways answer the same prompt about the blank image with the same features added at the same strength, greedily. The
plain way runs the whole model for each feature, with a forward hook at the hook point. How many answers are word for
word the same is printed beside the speed: a fast way that answers something else would be worth nothing.

A second table is about answers of different lengths in one batch: rows that have ended leave it, or are fed to the end.
The lengths are made up (log-normal), because neither a small model nor random weights answer at length.

    python -m benchmarks.steering --n-features 32
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor

from backend.hooks import edit_hook_point
from backend.models import _answering, _decoding
from backend.models.base import SubjectModel
from backend.sae import TopKSAE
from backend.steering import SteeringSession
from backend.types import Intervention
from benchmarks.measuring import in_turn, print_table
from benchmarks.subjects import describe, open_benchmark_pair
from benchmarks.true_shapes import SHAPES, floor_line

PROMPT = "What is shown in the image?"
NEVER = 2.0
"""A share of ended rows that no batch has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    n_features: int = 32
    """Interventions, one feature each."""
    strength: float = 0.0
    """Residual-stream L2 units; 0 takes twice the mean residual norm of the blank image."""
    max_new_tokens: int = 16
    """Longest answer."""
    typical_tokens: int = 30
    """Median of the made-up lengths; half of the answers lie within a factor of 1.4."""
    longest_tokens: int = 100
    """Where made-up answers are cut off."""
    n_rounds: int = 3
    """How often each way is run."""
    device: str = "cpu"
    """Torch device."""
    layer: int | None = None
    """Block of the hook point; by default the shipped atlas's."""
    true_shapes: str | None = None
    """Name in benchmarks/true_shapes.py: random weights of true shapes, built on the device, instead of the subject."""


def one_at_a_time(
    subject: SubjectModel, sae: TopKSAE, features: list[int], strength: float, max_new_tokens: int
) -> list[str]:
    """The plain way: a forward hook on the untouched model, which runs whole for every feature."""
    reference: Any = subject
    content = [{"type": "image", "image": subject.blank_image()}, {"type": "text", "text": PROMPT}]
    inputs = reference.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    ).to(subject.device)
    answers: list[str] = []
    for feature in features:
        addition = strength * sae.direction(feature)
        hook = edit_hook_point(
            subject.hook_module,
            lambda residual, add=addition: residual + add,
            n_prefix_tokens=subject.grid.n_prefix_tokens,
        )
        with torch.no_grad(), hook:
            ids = reference.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        answers.append(reference.processor.tokenizer.decode(new, skip_special_tokens=True).strip())
    return answers


def cached_prefix(
    subject: SubjectModel, sae: TopKSAE, features: list[int], strength: float, max_new_tokens: int
) -> list[str]:
    """Our way, from nothing: the blank image's prefix is computed here too, once."""
    session = SteeringSession(subject, sae)
    rows = [[Intervention(feature=feature, strength=strength)] for feature in features]
    return [answer.text for answer in session.answers(rows, PROMPT, max_new_tokens=max_new_tokens)]


def made_up_lengths(n: int, settings: Settings) -> Tensor:
    """Tokens of each answer, the one that ends it included."""
    drawn = settings.typical_tokens * np.exp(0.5 * np.random.default_rng(0).standard_normal(n))
    return torch.from_numpy(drawn.clip(2, settings.longest_tokens).astype(np.int64))


@contextmanager
def ending_after(lengths: Tensor) -> Iterator[list[int]]:
    """Each row's answer ends after so many tokens, whatever the model says; collects how many rows each step feeds."""
    fed: list[int] = []

    def decode(
        first_logits: Tensor, next_logits: Callable[[Tensor], Tensor], *, stop_ids: Any, keep_rows: Any, **settings: Any
    ) -> Iterator[Tensor]:
        left = lengths.to(first_logits.device)
        stops = torch.tensor(sorted(stop_ids), device=left.device)

        def planted(logits: Tensor) -> Tensor:
            nonlocal left
            left = left - 1
            ends = torch.where(left == 0, torch.inf, -torch.inf).to(logits.dtype)
            return logits.index_copy(1, stops, ends[:, None].expand(-1, len(stops)))

        def following(tokens: Tensor) -> Tensor:
            fed.append(len(tokens))
            return planted(next_logits(tokens))

        def keep(stay: Tensor) -> None:
            nonlocal left
            left = left[stay]
            keep_rows(stay)

        yield from _decoding.decode_tokens(
            planted(first_logits), following, stop_ids=stop_ids, keep_rows=keep, **settings
        )

    with patch.object(_answering, "decode_tokens", decode):
        yield fed


def answer_at_length(
    subject: Any, embeddings: Tensor, lengths: Tensor, longest: int, *, ended_share: float
) -> tuple[Tensor, int]:
    """Token ids of one batch whose rows end after ``lengths``, and the rows fed by all steps together."""
    with patch.object(_decoding, "ENDED_SHARE", ended_share), ending_after(lengths) as fed:
        return subject.generate_ids(embeddings, PROMPT, max_new_tokens=longest), sum(fed)


def compare_lengths(subject: SubjectModel, sae: TopKSAE, rows: list[list[Intervention]], settings: Settings) -> None:
    """One batch of answers of different lengths, whose rows leave when they have ended, or never."""
    embeddings = SteeringSession(subject, sae).embeddings(rows)[:, None]
    lengths = made_up_lengths(len(rows), settings)
    longest = settings.longest_tokens
    ways = {"fed to the end": NEVER, "rows leave": _decoding.ENDED_SHARE}
    run = {
        name: lambda share=share: answer_at_length(subject, embeddings, lengths, longest, ended_share=share)
        for name, share in ways.items()
    }
    (plain, n_plain), (shorter, n_fed) = (one() for one in run.values())
    measured = in_turn(run, n_rounds=settings.n_rounds, warm_up=False)
    n_needed, mean = int((lengths - 1).sum()), float(lengths.float().mean())
    Console().print(
        f"{len(rows)} answers of {int(lengths.min())} to {int(lengths.max())} tokens (mean {mean:.1f}); "
        f"steps of rows that have ended: {1 - n_needed / n_plain:.0%} of {n_plain}, "
        f"or {1 - n_needed / n_fed:.0%} of {n_fed} where rows leave; same ids: {torch.equal(plain, shorter)}"
    )
    print_table("Mixed lengths", measured, baseline="fed to the end", n_units=len(rows), unit="answers")


def main(settings: Settings) -> None:
    """Measure and print."""
    subject, sae = open_benchmark_pair(settings.device, settings.layer, settings.true_shapes)
    features = list(range(min(settings.n_features, sae.d_sae)))
    norm = float(SteeringSession(subject, sae).residual().norm(dim=-1).mean())
    arguments = (subject, sae, features, settings.strength or 2 * norm, settings.max_new_tokens)

    plain, batched = one_at_a_time(*arguments), cached_prefix(*arguments)
    measured = in_turn(
        {"one at a time": lambda: one_at_a_time(*arguments), "cached prefix": lambda: cached_prefix(*arguments)},
        n_rounds=settings.n_rounds,
        warm_up=False,  # both ran once above
    )
    console = Console()
    console.print(describe(subject, sae))
    n_same = sum(a == b for a, b in zip(plain, batched, strict=True))
    console.print(f"same answer: {n_same} of {len(features)}")
    print_table("Steering", measured, baseline="one at a time", n_units=len(features), unit="answers")
    if settings.true_shapes:
        floor = SHAPES[settings.true_shapes].floor_answer_ms
        console.print(floor_line(settings.true_shapes, "steered answer", floor, measured[1].median_s, len(features)))
    interventions = [[Intervention(feature=feature, strength=arguments[3])] for feature in features]
    compare_lengths(subject, sae, interventions, settings)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
