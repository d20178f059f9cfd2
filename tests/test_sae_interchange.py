"""SAEs made elsewhere: what comes in computes exactly what it did, what goes out comes back, the rest is refused."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import SAEError, SAEShapeMismatch
from backend.sae import SAEConfig, TopKSAE
from backend.sae_formats import import_sae
from backend.sae_formats._folding import fold_norms
from backend.sae_formats.base import Weights
from backend.sae_formats.saelens import export_saelens
from backend.types import HookPoint
from tests.builders_foreign_sae import (
    D_MODEL,
    D_SAE,
    K,
    dictionary_learning_forward,
    random_weights,
    residuals,
    saelens_forward,
    saev_forward,
    write_dictionary_learning,
    write_hostile,
    write_saelens,
    write_saev,
)
from tests.builders_subject import random_sae

HOOK = HookPoint(layer=16)
X = residuals()


def assert_same(sae: TopKSAE, x: torch.Tensor, features: torch.Tensor, reconstruction: torch.Tensor) -> None:
    """Features (as their contribution's length), which of them are active, and the reconstruction are those given."""
    activations, rounding = sae.encode(x), 1e-5 * float(features.max())  # ours is float32, the reference float64
    torch.testing.assert_close(activations.dense().double(), features, atol=rounding, rtol=1e-5)
    assert torch.equal(activations.dense() > 0, features > 0)
    torch.testing.assert_close(sae.decode(activations).double(), reconstruction, atol=rounding, rtol=1e-5)
    assert (features > 0).sum() > len(x)  # otherwise the comparison would say nothing


def weights_of(sae: TopKSAE) -> dict[str, torch.Tensor]:
    return {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


# ------------------------------------------------------------------------------------------------ dictionary_learning


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("at", ["", "ae.pt", ".."])
def test_ae_pt_computes_what_its_library_does(tmp_path, dtype, at):
    wide = 192  # at a width of 12, rounding to bfloat16 takes rows further from unit norm than we accept
    weights = {name: weight.to(dtype) for name, weight in random_weights(d_model=wide).items()}
    folder = write_dictionary_learning(tmp_path / "trainer_0", weights)
    sae, x = import_sae(folder / at), residuals(d_model=wide)
    assert_same(sae, x, *dictionary_learning_forward(folder, x))
    assert (sae.config.hook_point, sae.config.subject, sae.k) == (HOOK, "google/gemma-3-4b-it", K)
    assert sae.config.metadata["threshold"] == 1.25
    assert sae.W_enc.dtype == torch.float32


def test_ae_pt_without_folding_keeps_its_bits(tmp_path):
    weights = random_weights()
    sae = import_sae(write_dictionary_learning(tmp_path, weights))
    assert all(torch.equal(kept, weights[name]) for name, kept in weights_of(sae).items())
    record = sae.config.metadata["imported"]
    assert isinstance(record, dict) and record["folded"] == [] and record["format"] == "dictionary_learning"
    assert record["sha256"] == hashlib.sha256((tmp_path / "ae.pt").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"trainer": {"dict_class": "BatchTopKSAE"}}, SAEError, "above a threshold.*AutoEncoderTopK"),
        ({"trainer": {"dict_class": "GatedAutoEncoder"}}, SAEError, "only AutoEncoderTopK"),
        ({"trainer": {"activation_dim": 13}}, SAEShapeMismatch, r"W_enc in .*ae.pt does not fit.*\(13, 40\)"),
        ({"trainer": {"k": 7}}, SAEShapeMismatch, "k=5, but .* k=7"),
        ({"trainer": {"layer": 15}}, SAEShapeMismatch, "contradicts itself: layer 15"),
        ({"trainer": {"submodule_name": "mlp_out_layer_16"}}, SAEError, "inside a block"),
        ({"trainer": {"submodule_name": None}}, SAEError, "add --hook-point vision.16.residual"),
        ({"drop": "b_dec"}, SAEError, "lacks b_dec"),
        ({"state": {"gate_bias": torch.zeros(3)}}, SAEError, "also holds gate_bias"),
        ({"state": {"encoder.bias": torch.zeros(D_SAE, dtype=torch.int8)}}, SAEError, "encoder.bias .* is torch.int8"),
        ({"state": {"encoder.bias": torch.zeros(D_SAE).to(torch.float8_e4m3fn)}}, SAEError, r"is torch\.float8_e4m3fn"),
        (
            {"state": {"encoder.bias": torch.full((D_SAE,), torch.nan)}},
            SAEError,
            "b_enc .* holds 40 values that are NaN",
        ),
        ({"state": {"k": torch.tensor(4.5)}}, SAEError, "whole number k, not 4.5"),
        (
            {"state": {"encoder.weight": random_weights()["W_enc"]}},
            SAEShapeMismatch,
            r"W_enc in .* is transposed: .* \(40, 12\)",
        ),
        (
            {"state": {"decoder.weight": random_weights()["W_dec"]}},
            SAEShapeMismatch,
            r"W_dec in .* is transposed: .* \(12, 40\)",
        ),
    ],
)
def test_ae_pt_that_cannot_be_read_exactly_is_refused(tmp_path, changes, error, message):
    folder = write_dictionary_learning(tmp_path, random_weights(), **changes)
    with pytest.raises(error, match=message):
        import_sae(folder)


def test_a_square_transposed_decoder_is_found_by_its_norms(tmp_path):
    weights = random_weights(d_model=16, d_sae=16)
    upright = write_dictionary_learning(tmp_path / "a", weights)
    assert torch.equal(import_sae(upright).W_dec, weights["W_dec"])
    turned = write_dictionary_learning(tmp_path / "b", weights, state={"decoder.weight": weights["W_dec"].contiguous()})
    with pytest.raises(SAEShapeMismatch, match="is transposed: its columns have unit norm"):
        import_sae(turned)


def test_ae_pt_needs_its_config(tmp_path):
    (write_dictionary_learning(tmp_path, random_weights()) / "config.json").unlink()
    with pytest.raises(SAEError, match="cannot be told from a BatchTopK SAE"):
        import_sae(tmp_path)


def test_a_hostile_pickle_is_refused_and_never_run(tmp_path):
    touched = tmp_path / "touched"
    folder = write_hostile(tmp_path / "sae", touched)
    pickled = (folder / "ae.pt").read_bytes()
    assert b"pathlib" in pickled and b"getattr" in pickled and b"touched" in pickled  # it would touch the file
    with pytest.raises(SAEError, match=r"ae\.pt as plain tensors.*state_dict\(\)"):
        import_sae(folder)
    assert not touched.exists()


# --------------------------------------------------------------------------------------------------------------- saev


def test_saev_computes_what_its_library_does(tmp_path):
    weights = random_weights()
    sae = import_sae(write_saev(tmp_path / "sae.pt", weights), hook_point=HOOK, scale=1)
    features, reconstruction = saev_forward(weights, X)
    assert (features >= 0).all()  # at least k pre-activations are positive on every patch
    assert_same(sae, X, features, reconstruction)
    uncentred = TopKSAE(sae.config, **{**weights_of(sae), "b_enc": weights["b_enc"]})
    assert not torch.allclose(uncentred.encode(X).dense(), sae.encode(X).dense(), atol=0.1)


def test_saev_below_zero_differs_only_there(tmp_path):
    weights = random_weights()
    weights["b_enc"] = weights["b_enc"] - 5
    sae = import_sae(write_saev(tmp_path / "sae.pt", weights), hook_point=HOOK, scale=1)
    features, _ = saev_forward(weights, X)
    assert (features < 0).any() and (features > 0).any()
    torch.testing.assert_close(sae.encode(X).dense().double(), features.clamp(min=0), atol=2e-4, rtol=1e-5)


def test_saev_of_older_schemas_names_its_sizes_otherwise(tmp_path):
    weights = random_weights(d_sae=36)
    cfg = {"d_model": None, "d_sae": None, "d_vit": D_MODEL, "exp_factor": 3}
    path = write_saev(tmp_path / "any name.pt", weights, schema=2, cfg={**cfg})
    header, _, rest = path.read_bytes().partition(b"\n")
    plain = json.loads(header)
    plain["cfg"] = {name: value for name, value in plain["cfg"].items() if value is not None}
    path.write_bytes(json.dumps(plain).encode() + b"\n" + rest)
    sae = import_sae(path, hook_point=HOOK, scale=1, subject="clip")
    assert_same(sae, X, *saev_forward(weights, X))
    assert (sae.d_sae, sae.config.subject) == (36, "clip")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 1}, "schema 1.*subtract b_dec"),
        ({"schema": 6}, "schema 6; 2, 3, 4, 5 are known"),
        ({"activation": {"cls": "Relu", "params": {}}}, "'Relu', which keeps a different number"),
        ({"activation": {"cls": "BatchTopK", "params": {"top_k": 5}}}, "'BatchTopK', which keeps a different number"),
        ({"activation": {"cls": "TopK", "params": {}}}, "top_k, not None"),
        ({"cfg": {"d_model": "wide"}}, "whole number d_model, not 'wide'"),
        ({"state": {"activation.threshold": torch.tensor(0.1)}}, "also holds activation.threshold"),
    ],
)
def test_saev_that_cannot_be_read_exactly_is_refused(tmp_path, changes, message):
    with pytest.raises(SAEError, match=message):
        import_sae(write_saev(tmp_path / "sae.pt", random_weights(), **changes), hook_point=HOOK, scale=1)


def test_saev_must_be_told_scale_and_hook_point(tmp_path):
    path = write_saev(tmp_path / "sae.pt", random_weights())
    with pytest.raises(SAEError, match=r"does not record whether.*add --scale S.*or --scale 1"):
        import_sae(path, hook_point=HOOK)
    with pytest.raises(SAEError, match=r"does not say where it was trained.*--hook-point vision\.LAYER\.residual"):
        import_sae(path, scale=1)


# ------------------------------------------------------------------------------------------------------------ SAELens


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_saelens_computes_what_its_library_does(tmp_path, centred, rescale):
    norms = torch.linspace(0.2, 3, D_SAE) if rescale else 1.0
    weights = random_weights(norms=norms)
    write_saelens(tmp_path, weights, rescale_acts_by_decoder_norm=rescale, apply_b_dec_to_input=centred)
    sae = import_sae(tmp_path)
    assert_same(sae, X, *saelens_forward(weights, X, rescale=rescale, centred=centred))
    assert (sae.config.hook_point, sae.config.subject) == (HOOK, "google/gemma-3-4b-it")


def test_saelens_factor_is_folded_when_given(tmp_path):
    weights, scale, mean = random_weights(), 7.5, residuals(1)[0]
    write_saelens(tmp_path, weights, normalize_activations="expected_average_only_in")
    with pytest.raises(SAEError, match=r"does not hold the factor.*add --scale S"):
        import_sae(tmp_path)
    features, reconstruction = saelens_forward(weights, X)
    sae = import_sae(tmp_path, scale=scale, mean=mean)
    assert_same(sae, X * scale + mean, features * scale, reconstruction * scale + mean)


def test_saelens_of_before_version_6_is_read(tmp_path):
    weights = random_weights()
    flat = {"metadata": None, "k": None, "hook_name": None, "rescale_acts_by_decoder_norm": None}
    flat |= {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    flat |= {"hook_point": "blocks.17.hook_resid_pre", "model_name": "clip"}
    write_saelens(tmp_path, weights, **flat)
    with pytest.raises(SAEError, match=r"'blocks\.17\.hook_resid_pre'.*--hook-point vision\.16\.residual"):
        import_sae(tmp_path)
    sae = import_sae(tmp_path, hook_point=HOOK)
    assert_same(sae, X, *saelens_forward(weights, X))
    assert (sae.config.hook_point, sae.config.subject) == (HOOK, "clip")


@pytest.mark.parametrize(
    ("cfg", "error", "message"),
    [
        ({"architecture": "jumprelu"}, SAEError, "architecture='jumprelu'"),
        ({"architecture": "standard", "k": None}, SAEError, "architecture='standard'"),
        ({"normalize_activations": "layer_norm"}, SAEError, "every patch is scaled by a factor of its own"),
        ({"normalize_activations": "constant_norm_rescale"}, SAEError, "every patch is scaled"),
        ({"reshape_activations": "hook_z"}, SAEError, "attention heads"),
        ({"metadata": {"hook_name": "blocks.4.hook_mlp_out"}}, SAEError, "inside a block"),
        ({"metadata": {"hook_name": "blocks.0.hook_resid_pre"}}, SAEError, "before the first block"),
        ({"metadata": {"hook_name": "somewhere"}}, SAEError, r"'somewhere'.*--hook-point vision\.LAYER\.residual"),
        ({"metadata": {"model_name": "clip"}}, SAEError, "does not say where"),
        ({"d_in": 13}, SAEShapeMismatch, "d_model=13"),
        ({"k": 41}, SAEShapeMismatch, "k=41 is larger"),
        ({"k": True}, SAEError, "whole number k, not True"),
    ],
)
def test_saelens_that_cannot_be_read_exactly_is_refused(tmp_path, cfg, error, message):
    with pytest.raises(error, match=message):
        import_sae(write_saelens(tmp_path, random_weights(), **cfg))


def test_export_and_import_is_the_identity(tmp_path):
    original = random_sae(layer=4)
    config = SAEConfig(d_model=32, d_sae=64, k=6, hook_point=HookPoint(layer=4), subject="s", metadata={"n_tokens": 9})
    original = TopKSAE(config, **weights_of(original))
    export_saelens(original, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]["sae_lens_version"] == "6.0.0"
    back = import_sae(tmp_path / "out")
    assert all(torch.equal(weight, weights_of(original)[name]) for name, weight in weights_of(back).items())
    kept = {name: value for name, value in back.config.metadata.items() if name != "imported"}
    assert (back.config.hook_point, back.config.subject, back.k, kept) == (HookPoint(layer=4), "s", 6, {"n_tokens": 9})
    assert torch.equal(TopKSAE.load(tmp_path / "out").W_enc, original.W_enc)
    with pytest.raises(SAEError, match="not an empty folder"):
        export_saelens(original, tmp_path / "out")


# ------------------------------------------------------------------------------------------------------------ folding


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), low=st.floats(0.05, 1), ratio=st.floats(1.01, 40), centred=st.booleans())
def test_folding_norms_kept_by_contribution_changes_nothing(tmp_path_factory, seed, low, ratio, centred):
    norms = low * ratio ** torch.rand(D_SAE, generator=torch.Generator().manual_seed(seed))
    weights = random_weights(seed, norms=norms)
    folder = tmp_path_factory.mktemp("folded")
    write_saelens(folder, weights, rescale_acts_by_decoder_norm=True, apply_b_dec_to_input=centred)
    sae, x = import_sae(folder), residuals(seed=seed + 1)
    assert_same(sae, x, *saelens_forward(weights, x, rescale=True, centred=centred))
    cosines = torch.nn.functional.cosine_similarity(sae.W_dec, weights["W_dec"], dim=1)
    torch.testing.assert_close(cosines, torch.ones(D_SAE))


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), norm=st.floats(0.05, 20), scale=st.floats(0.01, 500))
def test_equal_norms_and_any_scale_fold_exactly(tmp_path_factory, seed, norm, scale):
    weights = random_weights(seed, norms=norm)
    folder = write_dictionary_learning(tmp_path_factory.mktemp("even"), weights)
    features, reconstruction = dictionary_learning_forward(folder, X)
    assert_same(import_sae(folder, scale=scale), X * scale, features * norm * scale, reconstruction * scale)


def test_norms_kept_by_activation_are_refused_because_the_order_would_change(tmp_path):
    weights = random_weights(norms=torch.linspace(0.5, 2, D_SAE))
    folder = write_dictionary_learning(tmp_path, weights)
    with pytest.raises(SAEError, match=r"norms from 0\.5 to 2, and .* k=5 features.*other features would be kept"):
        import_sae(folder)
    folded = fold_norms(Weights(**weights), weights["W_dec"].double().norm(dim=1))
    config = SAEConfig(d_model=D_MODEL, d_sae=D_SAE, k=K)
    wrong = TopKSAE(config, W_enc=folded.W_enc, b_enc=folded.b_enc, W_dec=folded.W_dec, b_dec=folded.b_dec)
    features, _ = dictionary_learning_forward(folder, X)
    assert not torch.equal(wrong.encode(X).dense() > 0, features > 0)  # the refusal has a reason


def test_norms_fold_where_every_feature_is_kept(tmp_path):
    norms = torch.linspace(0.5, 2, D_SAE)
    folder = write_dictionary_learning(tmp_path, random_weights(norms=norms), k=D_SAE)
    features, reconstruction = dictionary_learning_forward(folder, X, D_SAE)
    assert_same(import_sae(folder), X, features * norms, reconstruction)


def test_a_feature_without_a_direction_is_refused(tmp_path):
    norms = torch.ones(D_SAE)
    norms[7] = 0
    write_saelens(tmp_path, random_weights(norms=norms), rescale_acts_by_decoder_norm=True)
    with pytest.raises(SAEError, match=r"1 decoder rows .* are 0 .the first is feature 7"):
        import_sae(tmp_path)


@pytest.mark.parametrize("scale", [0.0, -2.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(tmp_path, scale):
    with pytest.raises(SAEError, match="--scale must be a positive number"):
        import_sae(write_dictionary_learning(tmp_path, random_weights()), scale=scale)


def test_a_mean_that_does_not_fit_is_refused(tmp_path):
    folder = write_dictionary_learning(tmp_path, random_weights())
    with pytest.raises(SAEShapeMismatch, match=r"shape \(3,\); the SAE reads width 12"):
        import_sae(folder, mean=torch.zeros(3))
    with pytest.raises(SAEError, match="mean holds NaN"):
        import_sae(folder, mean=torch.full((D_MODEL,), torch.nan))
