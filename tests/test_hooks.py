"""Hooks on the untouched model: they fire as often as announced, or the result is withheld."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backend.errors import InterventionNotApplied
from backend.hooks import capture_hook_point, edit_hook_point
from tests.builders_subject import load_tiny_subject, noise_images


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return load_tiny_subject(tmp_path_factory.mktemp("subject"), layer=1)


def test_the_hook_sees_the_residual_of_the_cut_tower(subject):
    pixels = subject.preprocess(noise_images(3))
    with torch.no_grad(), capture_hook_point(subject.hook_module) as record:
        subject.model.get_image_features(pixels)
    assert record.n_firings == 1
    torch.testing.assert_close(record.captured[0], subject.to_hook(pixels))


def test_an_edit_reaches_the_image_embeddings(subject):
    pixels = subject.preprocess(noise_images(2))
    shift = torch.randn(subject.d_model, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), edit_hook_point(subject.hook_module, lambda residual: residual + shift):
        edited = subject.model.get_image_features(pixels).pooler_output
    expected = subject.from_hook(subject.to_hook(pixels) + shift)
    torch.testing.assert_close(edited, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(edited, subject.model.get_image_features(pixels).pooler_output, atol=1e-2)


@pytest.mark.parametrize("n_runs", [0, 2])
def test_a_hook_that_fired_another_number_of_times_raises(n_runs):
    module = nn.Linear(4, 4)
    with (
        pytest.raises(InterventionNotApplied, match=f"{n_runs} times instead of 1"),
        edit_hook_point(module, lambda residual: residual + 1),
    ):
        for _ in range(n_runs):
            module(torch.zeros(1, 4))
    with (
        pytest.raises(InterventionNotApplied, match=f"{n_runs} times instead of 3"),
        capture_hook_point(module, expected_firings=3),
    ):
        for _ in range(n_runs):
            module(torch.zeros(1, 4))


def test_an_edit_may_not_change_the_shape():
    module = nn.Linear(4, 4)
    with (
        pytest.raises(InterventionNotApplied, match="shape"),
        edit_hook_point(module, lambda residual: residual[:1]),
    ):
        module(torch.zeros(2, 4))


def test_the_hook_is_removed_even_after_an_error():
    module = nn.Linear(4, 4)
    with pytest.raises(RuntimeError, match="unrelated"), edit_hook_point(module, lambda residual: residual * 0):
        raise RuntimeError("unrelated")
    with edit_hook_point(module, lambda residual: residual * 0):
        assert (module(torch.ones(1, 4)) == 0).all()
    assert (module(torch.ones(1, 4)) != 0).any()


def test_blocks_that_return_tuples_keep_the_rest():
    class Block(nn.Module):
        def forward(self, x):
            return x, "attention"

    block = Block()
    with edit_hook_point(block, lambda residual: residual + 1):
        edited, rest = block(torch.zeros(2, 3))
    assert (edited == 1).all()
    assert rest == "attention"
