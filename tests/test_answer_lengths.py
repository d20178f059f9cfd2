"""Rows of a batch whose answers have ended are fed no longer, and no answer changes by it."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.models import _decoding, load_subject
from backend.models._decoding import decode_tokens, trimmed
from backend.models.base import Sampling
from tests.builders_families import BUILDERS, MIDDLE, PROMPT
from tests.builders_subject import load_tiny_subject

N_ROWS, N_STEPS = 8, 12
HOT = Sampling(temperature=3.0, top_p=1.0, top_k=60, seed=5)
NEVER = 2.0
"""A share of ended rows that no batch has: all rows are fed to the end."""


@pytest.fixture(scope="module", params=[*sorted(BUILDERS), "gemma3, window of 8"])
def subject(request, tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("subject")
    if request.param not in BUILDERS:
        return load_tiny_subject(folder, sliding_window=8)
    return load_subject(BUILDERS[request.param](folder), MIDDLE)


def embeddings_for(subject: Any) -> Tensor:
    """Made-up image embeddings, so different that the answers differ from their first words on."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N_ROWS, 2, subject.n_image_tokens, subject.d_text, generator=generator)


def plant_an_end(subject: Any, monkeypatch: pytest.MonkeyPatch, sampling: Sampling | None) -> list[int]:
    """Make two words end the turn, those by which rows end at most different steps; the answers' lengths with them."""
    monkeypatch.setattr(subject, "_stop_ids", frozenset({-1}))
    free = subject.generate_ids(embeddings_for(subject), PROMPT, max_new_tokens=N_STEPS, sampling=sampling).tolist()

    def lengths(endings: tuple[int, ...]) -> list[int]:
        return [min(len(trimmed(row, frozenset(endings))) + 1, N_STEPS) for row in free]

    pairs = combinations(sorted({token for row in free for token in row}), 2)
    endings = max(pairs, key=lambda pair: len(set(lengths(pair))))
    monkeypatch.setattr(subject, "_stop_ids", frozenset(endings))
    found = lengths(endings)
    assert len(set(found)) >= 4, "rows must end at different steps for this test to mean anything"
    return found


def rows_fed(subject: Any, sampling: Sampling | None) -> tuple[list[list[list[int]]], list[int]]:
    """What a stream reports after every step, and how many rows each step fed."""
    fed: list[int] = []
    listener = subject.model.register_forward_pre_hook(
        lambda _module, _inputs, named: fed.append(len(named["input_ids"])) if "input_ids" in named else None,
        with_kwargs=True,
    )
    steps = list(subject.stream_ids(embeddings_for(subject), PROMPT, max_new_tokens=N_STEPS, sampling=sampling))
    listener.remove()
    return steps, fed


@pytest.mark.parametrize("sampling", [None, HOT], ids=["greedy", "sampled"])
def test_every_step_reports_the_same_tokens_and_feeds_only_rows_that_go_on(subject, sampling, monkeypatch):
    lengths = plant_an_end(subject, monkeypatch, sampling)
    monkeypatch.setattr(_decoding, "ENDED_SHARE", NEVER)
    plain, fed_to_the_end = rows_fed(subject, sampling)
    assert set(fed_to_the_end) == {N_ROWS}
    monkeypatch.setattr(_decoding, "ENDED_SHARE", 0.0)
    steps, fed = rows_fed(subject, sampling)
    assert steps == plain
    assert fed == [sum(length > step for length in lengths) for step in range(1, max(lengths))]


def test_seldom_looks_end_with_the_same_ids(subject, monkeypatch):
    plant_an_end(subject, monkeypatch, None)
    embeddings = embeddings_for(subject)
    whole = subject.generate_ids(embeddings, PROMPT, max_new_tokens=N_STEPS)
    for every in (3, 8):
        *_, last = subject._token_steps(embeddings, PROMPT, N_STEPS, None, None, every)
        assert torch.equal(last, whole)


def scripted(lengths: list[int], every: int) -> tuple[Tensor, list[int]]:
    """Rows that say their own number until they stop (0) after so many tokens; and how many each step fed."""
    places = torch.arange(len(lengths))
    fed: list[int] = []

    def keep(stay: Tensor) -> None:
        nonlocal places
        places = places[stay]

    def logits(step: int) -> Tensor:
        says = [0 if step >= lengths[at] else at + 1 for at in places.tolist()]
        return torch.nn.functional.one_hot(torch.tensor(says), len(lengths) + 1).float()

    def following(tokens: Tensor) -> Tensor:
        fed.append(len(tokens))
        assert all(token in (0, at + 1) for token, at in zip(tokens.tolist(), places.tolist(), strict=True))
        return logits(len(fed) + 1)

    stops = frozenset({0})
    steps = decode_tokens(
        logits(1), following, stop_ids=stops, pad_id=0, max_new_tokens=20, every=every, keep_rows=keep
    )
    return list(steps)[-1], fed


@pytest.mark.parametrize("every", [1, 8])
def test_rows_leave_at_a_look_once_a_quarter_of_those_fed_has_ended(every):
    lengths = [3, 3, 5, 9, 9, 12, 16, 16]
    tokens, fed = scripted(lengths, every)
    assert tokens.tolist() == [[at + 1] * (n - 1) + [0] * (17 - n) for at, n in enumerate(lengths)]
    if every == 1:
        assert fed == [8] * 2 + [6] * 6 + [3] * 3 + [2] * 4, "one of six is no quarter; three of six are"
    else:
        assert fed == [8] * 7 + [5] * 8, "looks after 8 and 16 tokens"
