"""Batched steering on a cached prefix against one intervention at a time through transformers' own ``generate``.

Both ways answer the same prompt about the blank image with the same features added at the same strength, greedily. The
plain way runs the whole model for each feature, with a forward hook at the hook point. How many answers are word for
word the same is printed beside the speed: a fast way that answers something else would be worth nothing.

    python -m benchmarks.steering --n-features 32
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import tyro
from rich.console import Console

from backend.hooks import edit_hook_point
from backend.models.base import SubjectModel
from backend.sae import TopKSAE
from backend.steering import SteeringSession
from backend.types import Intervention
from benchmarks.measuring import in_turn, print_table
from benchmarks.subjects import describe, open_benchmark_pair
from benchmarks.true_shapes import SHAPES, floor_line

PROMPT = "What is shown in the image?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure."""

    n_features: int = 32
    """Interventions, one feature each."""
    strength: float = 0.0
    """Residual-stream L2 units; 0 takes twice the mean residual norm of the blank image."""
    max_new_tokens: int = 16
    """Longest answer."""
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


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
