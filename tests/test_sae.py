"""TopK SAE inference: exact codes, exact files, clear refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from backend import sae as sae_module
from backend.errors import ActivationsNotFinite, SAEError, SAEShapeMismatch, UnknownFeature
from backend.sae import CONFIG_NAME, WEIGHTS_NAME, SAEConfig, TopKSAE
from backend.types import HookPoint
from tests.builders_subject import random_sae

SAE = random_sae()


def residual(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, SAE.d_model, generator=torch.Generator().manual_seed(seed))


def dense_reference(sae: TopKSAE, x: torch.Tensor) -> torch.Tensor:
    """The definition, computed densely in float64."""
    pre = (x.double() - sae.b_dec.double()) @ sae.W_enc.double() + sae.b_enc.double()
    threshold = pre.sort(dim=-1, descending=True).values[..., sae.k - 1 : sae.k]
    return torch.where(pre >= threshold, pre.clamp(min=0), 0.0)


def test_encode_is_the_dense_definition():
    x = residual(3, 7)
    activations = SAE.encode(x)
    assert activations.values.shape == activations.indices.shape == (3, 7, SAE.k)
    torch.testing.assert_close(activations.dense().double(), dense_reference(SAE, x), atol=1e-5, rtol=1e-5)
    assert (activations.values.diff(dim=-1) <= 0).all()
    assert (activations.values >= 0).all()


def test_decode_is_the_dense_definition():
    x = residual(3, 7)
    expected = dense_reference(SAE, x) @ SAE.W_dec.double() + SAE.b_dec.double()
    torch.testing.assert_close(SAE.decode(SAE.encode(x)).double(), expected, atol=1e-5, rtol=1e-5)


def test_activations_below_zero_are_not_active():
    muted = TopKSAE(SAE.config, W_enc=SAE.W_enc, b_enc=SAE.b_enc - 100, W_dec=SAE.W_dec, b_dec=SAE.b_dec)
    activations = muted.encode(residual(5))
    assert (activations.values == 0).all()
    torch.testing.assert_close(muted.decode(activations), muted.b_dec.expand(5, -1))


@pytest.mark.parametrize("elements", [1, 64 * 3, 1 << 24])
def test_chunks_do_not_change_the_code(monkeypatch, elements):
    expected = SAE.encode(residual(11))
    monkeypatch.setattr(sae_module, "CHUNK_ELEMENTS", elements)
    torch.testing.assert_close(SAE.encode(residual(11)).dense(), expected.dense(), atol=1e-6, rtol=1e-5)


@settings(max_examples=30)
@given(features=st.lists(st.integers(0, SAE.d_sae - 1), max_size=8), seed=st.integers(0, 1000))
def test_activations_of_features_honour_the_top_k(features, seed):
    x = residual(2, 5, seed=seed)
    activations = SAE.encode(x)
    columns = SAE.activations_of(x, features)
    assert columns.shape == (2, 5, len(features))
    for at, feature in enumerate(features):
        assert torch.equal(columns[..., at], activations.of(feature))
        assert torch.equal(columns[..., at], activations.dense()[..., feature])


def test_no_patches_give_no_activations():
    assert SAE.encode(residual(0)).values.shape == (0, SAE.k)
    assert SAE.activations_of(residual(0), [1, 2]).shape == (0, 2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused(bad):
    x = residual(4)
    x[2, 3] = bad
    with pytest.raises(ActivationsNotFinite):
        SAE.encode(x)
    with pytest.raises(ActivationsNotFinite):
        SAE.activations_of(x, [0])


def test_another_width_is_refused():
    with pytest.raises(SAEShapeMismatch, match=r"width 32.*width 31"):
        SAE.encode(torch.zeros(2, 31))


@pytest.mark.parametrize("feature", [-1, SAE.d_sae])
def test_an_unknown_feature_is_refused(feature):
    with pytest.raises(UnknownFeature, match="features 0 to 63"):
        SAE.direction(feature)
    with pytest.raises(UnknownFeature):
        SAE.activations_of(residual(1), [0, feature])


def test_directions_are_unit_decoder_rows():
    assert torch.equal(SAE.direction(5), SAE.W_dec[5])
    assert SAE.direction(5).norm() == pytest.approx(1, abs=1e-5)


def test_saving_and_loading_is_the_identity(tmp_path):
    config = replace(SAE.config, hook_point=HookPoint(layer=4), subject="tiny", metadata={"n_tokens": 12})
    original = TopKSAE(config, W_enc=SAE.W_enc, b_enc=SAE.b_enc, W_dec=SAE.W_dec, b_dec=SAE.b_dec)
    original.save(tmp_path / "sae")
    loaded = TopKSAE.load(tmp_path / "sae")
    assert loaded.config == config
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(loaded, name), getattr(original, name))
    assert sorted(path.name for path in (tmp_path / "sae").iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]


def test_files_carry_the_names_saelens_uses(tmp_path):
    SAE.save(tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert {"architecture": "topk", "d_in": 32, "d_sae": 64, "k": 6}.items() <= cfg.items()
    shapes = {name: tuple(weight.shape) for name, weight in load_file(tmp_path / "sae_weights.safetensors").items()}
    assert shapes == {"W_enc": (32, 64), "b_enc": (64,), "W_dec": (64, 32), "b_dec": (32,)}


def rewrite_cfg(folder, **changes):
    cfg = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps({**cfg, **changes}))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"d_in": 48}, SAEShapeMismatch, "d_model=48"),
        ({"d_sae": 65}, SAEShapeMismatch, "d_sae=65"),
        ({"k": 0}, SAEShapeMismatch, "positive"),
        ({"k": 100}, SAEShapeMismatch, "k=100 is larger"),
        ({"k": "six"}, SAEError, "whole numbers"),
        ({"architecture": "standard"}, SAEError, "only TopK"),
        ({"normalize_activations": "expected_average_only_in"}, SAEError, "fold"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, changes, error, message):
    SAE.save(tmp_path)
    rewrite_cfg(tmp_path, **changes)
    with pytest.raises(error, match=message):
        TopKSAE.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "spoil", "error", "message"),
    [
        ("W_enc", lambda w: w * float("nan"), SAEError, "W_enc holds NaN"),
        ("b_dec", lambda w: w[:-1], SAEShapeMismatch, r"b_dec has the shape \(31,\)"),
        ("W_dec", lambda w: w * 2, SAEShapeMismatch, "64 of 64 decoder rows are not unit-norm"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, name, spoil, error, message):
    SAE.save(tmp_path)
    weights = load_file(tmp_path / WEIGHTS_NAME)
    save_file({**weights, name: spoil(weights[name]).contiguous()}, tmp_path / WEIGHTS_NAME)
    with pytest.raises(error, match=message):
        TopKSAE.load(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(SAEError, match="no SAE in"):
        TopKSAE.load(tmp_path)
    SAE.save(tmp_path)
    save_file({"W_enc": SAE.W_enc}, tmp_path / WEIGHTS_NAME)
    with pytest.raises(SAEError, match="lacks W_dec, b_dec, b_enc"):
        TopKSAE.load(tmp_path)
    (tmp_path / WEIGHTS_NAME).write_bytes(b"\x00" * 20)
    with pytest.raises(SAEError, match="cannot read"):
        TopKSAE.load(tmp_path)
    (tmp_path / CONFIG_NAME).write_text("{")
    with pytest.raises(SAEError, match="cannot read"):
        TopKSAE.load(tmp_path)


def test_config_checks_its_sizes():
    with pytest.raises(SAEShapeMismatch):
        SAEConfig(d_model=0, d_sae=4, k=1)
