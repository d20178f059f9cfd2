"""Bringing SAEs in on the command line: recognition, hook points, the check against a subject, exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend import sae_formats
from backend.errors import SAEError, SubjectMismatch
from backend.sae import SAEConfig, TopKSAE
from backend.sae_formats import format_names, hook_point_from, import_sae, load_format, recognise
from backend.types import HookPoint
from precompute.cli import main
from precompute.sae_fit import check_fit, check_scale, with_scaled_biases
from tests.builders_atlas import BagEncoder, build_atlas
from tests.builders_foreign_sae import random_weights, write_dictionary_learning, write_saelens, write_saev
from tests.builders_subject import load_tiny_subject, noise_images, random_sae

WRITERS = {
    "dictionary_learning": lambda folder: write_dictionary_learning(folder, random_weights()),
    "saelens": lambda folder: write_saelens(folder, random_weights()),
    "saev": lambda folder: write_saev(folder / "sae.pt", random_weights()).parent,
}


def weights_of(sae: TopKSAE) -> dict[str, torch.Tensor]:
    return {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


# --------------------------------------------------------------------------------------------------------- formats


def test_every_format_is_named_like_its_module():
    assert format_names() == sorted(WRITERS)
    assert [load_format(name).name for name in format_names()] == format_names()


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_format_recognises_its_own_files_and_no_others(tmp_path, name):
    folder = WRITERS[name](tmp_path / name)
    assert [one for one in format_names() if load_format(one).recognises(folder)] == [name]
    assert recognise(folder).name == name
    assert not any(load_format(one).recognises(tmp_path) for one in format_names())


def test_a_file_alone_is_recognised(tmp_path):
    assert recognise(write_saev(tmp_path / "x.pt", random_weights())).name == "saev"
    assert recognise(write_dictionary_learning(tmp_path, random_weights()) / "ae.pt").name == "dictionary_learning"


def test_what_is_of_no_format_or_of_two_is_refused(tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    for place in (tmp_path, tmp_path / "notes.json"):
        with pytest.raises(SAEError, match=r"in no known SAE format.*dictionary_learning is a folder with ae.pt"):
            import_sae(place)
    with pytest.raises(SAEError, match="there is nothing at"):
        import_sae(tmp_path / "absent")
    WRITERS["saelens"](tmp_path)
    WRITERS["dictionary_learning"](tmp_path)
    with pytest.raises(SAEError, match="--format dictionary_learning or --format saelens"):
        import_sae(tmp_path)
    assert import_sae(tmp_path, format_name="saelens").d_sae == 40
    with pytest.raises(SAEError, match="no SAE format 'npz': choose --format from dictionary_learning, saelens, saev"):
        import_sae(tmp_path, format_name="npz")
    with pytest.raises(SAEError, match=r"there is no cfg\.json"):
        import_sae(tmp_path / "notes.json", format_name="saelens")


def test_a_new_format_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "shouted.py").write_text(
        "from backend.sae_formats.saelens import SAELens\n"
        "class Shouted(SAELens):\n"
        "    name = 'shouted'\n"
        "    looks_like = 'a folder with LOUD'\n"
        "    def recognises(self, source):\n"
        "        return (source / 'LOUD').exists()\n"
        "FORMAT = Shouted()\n"
    )
    monkeypatch.setattr(sae_formats, "__path__", [*sae_formats.__path__, str(tmp_path)])
    assert "shouted" in format_names()
    folder = WRITERS["saelens"](tmp_path / "sae")
    assert recognise(folder).name == "saelens"
    (folder / "cfg.json").rename(folder / "LOUD")
    assert recognise(folder).name == "shouted"


# ----------------------------------------------------------------------------------------------------- hook points


def test_another_hook_point_than_the_files_is_refused(tmp_path):
    named = write_dictionary_learning(tmp_path / "a", random_weights())
    for wrong in (HookPoint(layer=6), HookPoint(tower="language", layer=16)):
        with pytest.raises(SubjectMismatch, match=r"which is vision\.16\.residual and not .*--hook-point vision\.16"):
            import_sae(named, hook_point=wrong)
    layer_only = write_dictionary_learning(tmp_path / "b", random_weights(), trainer={"submodule_name": "resid_post"})
    with pytest.raises(SubjectMismatch, match=r"--hook-point vision\.16\.residual, or another SAE"):
        import_sae(layer_only, hook_point=HookPoint(layer=17))
    assert import_sae(layer_only, hook_point=HookPoint(layer=16)).config.hook_point == HookPoint(layer=16)


def test_a_hook_point_is_written_in_one_way():
    assert hook_point_from("vision.16.residual") == HookPoint(layer=16)
    for wrong in ("16", "vision.16", "vision.x.residual", "vision.16.mlp", ""):
        with pytest.raises(SAEError, match=r"write it like vision\.16\.residual"):
            hook_point_from(wrong)


# ------------------------------------------------------------------------------------------- the fit to a subject


def planted(scale: float, *, seed: int = 0) -> tuple[TopKSAE, torch.Tensor]:
    """An SAE that reconstructs its residuals exactly: a mean far from 0 plus two of 16 orthogonal features a patch."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    mean = 3 * torch.randn(16, generator=generator)
    codes = torch.zeros(400, 16)
    chosen = torch.rand(400, 16, generator=generator).topk(2).indices
    codes.scatter_(1, chosen, 1 + torch.rand(400, 2, generator=generator))
    config = SAEConfig(d_model=16, d_sae=16, k=2, hook_point=HookPoint(layer=1))
    sae = TopKSAE(config, W_enc=basis.T, b_enc=torch.zeros(16), W_dec=basis, b_dec=mean * scale)
    return sae, ((codes @ basis + mean) * scale).reshape(8, 50, 16)


def scale_asked_for(message: str) -> float:
    return float(message.split("Import it again with --scale ")[1].split(",")[0])


@pytest.mark.parametrize("family", ["dictionary_learning", "saelens"])
def test_a_forgotten_and_a_doubled_scale_are_found(family):
    right, residuals = planted(20.0)
    norm = float(residuals.square().sum(-1).mean().sqrt())
    factor = norm if family == "dictionary_learning" else norm / 16**0.5
    assert check_scale(right, residuals).nmse < 1e-6
    for applied in (1 / factor, factor):
        with pytest.raises(SAEError, match="does not read residuals at this scale") as caught:
            check_scale(with_scaled_biases(right, applied), residuals)
        assert scale_asked_for(str(caught.value)) == pytest.approx(1 / applied, rel=1e-3)
    half = with_scaled_biases(right, 1 / factor)
    half = TopKSAE(replace(half.config, metadata={"imported": {"scale": 5.0}}), **weights_of(half))
    with pytest.raises(SAEError) as caught:
        check_scale(half, residuals)
    assert scale_asked_for(str(caught.value)) == pytest.approx(5 * factor, rel=1e-3)  # on top of what is folded


def test_an_sae_of_another_model_is_found():
    _, residuals = planted(20.0)
    stranger = random_sae(d_model=16, d_sae=64, k=6)
    with pytest.raises(SAEError, match=r"worse than their mean.*another model or layer"):
        check_scale(stranger, residuals)


def test_width_and_hook_point_are_compared_with_the_subject(tmp_path):
    subject = load_tiny_subject(tmp_path, layer=1)
    images = noise_images(3)
    with pytest.raises(SubjectMismatch, match=r"width 31, but .* has width \d+ at vision.1"):
        check_fit(random_sae(d_model=31, layer=1), subject, images)
    with pytest.raises(SubjectMismatch, match=r"trained at vision.2.residual, but the recipe cuts .* at vision.1"):
        check_fit(random_sae(d_model=subject.d_model, layer=2), subject, images)
    opposite = random_sae(d_model=subject.d_model, layer=1)
    opposite.W_dec.neg_()
    with pytest.raises(SAEError, match=r"worse than their mean|does not read residuals at this scale"):
        check_fit(opposite, subject, images)


# ------------------------------------------------------------------------------------------------- the command line


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail; its one line on standard error."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("iconoscope: ") and captured.err.count("\n") == 1
    return captured.err


def test_import_writes_an_sae_that_loads(tmp_path, capsys):
    source = write_saev(tmp_path / "sae.pt", random_weights())
    np.save(tmp_path / "mean.npy", np.ones(12))
    options = ["--hook-point", "vision.16.residual", "--scale", "2", "--mean", str(tmp_path / "mean.npy")]
    assert main(["sae", "import", str(source), "--out", str(tmp_path / "out"), *options, "--subject", "clip"]) == 0
    said = capsys.readouterr().out
    assert "d_model 12, d_sae 40, k 5, vision.16.residual" in said
    assert "b_dec @ W_enc added to b_enc; scale 2 and a mean" in said and "not checked on images" in said
    sae = TopKSAE.load(tmp_path / "out")
    expected = import_sae(source, hook_point=HookPoint(layer=16), scale=2, mean=torch.ones(12).double(), subject="clip")
    assert sae.config == expected.config
    assert all(torch.equal(weight, weights_of(expected)[name]) for name, weight in weights_of(sae).items())


def test_import_says_in_one_line_what_is_wrong(tmp_path, capsys):
    source, out = write_saev(tmp_path / "sae.pt", random_weights()), tmp_path / "out"
    arguments = ["sae", "import", str(source), "--out", str(out)]
    assert "add --hook-point" in failing(capsys, *arguments, "--scale", "1")
    assert "add --scale S" in failing(capsys, *arguments, "--hook-point", "vision.3.residual")
    assert "write it like" in failing(capsys, *arguments, "--hook-point", "3")
    (tmp_path / "mean.npy").write_bytes(b"no numbers")
    assert "numpy.save" in failing(capsys, *arguments, "--mean", str(tmp_path / "mean.npy"))
    assert not out.exists()
    out.mkdir()
    (out / "mine").touch()
    assert "not an empty folder" in failing(capsys, *arguments)


def test_export_takes_an_atlas_a_run_and_an_sae(tmp_path, capsys):
    atlas = build_atlas(tmp_path / "run" / "atlas" / "0123", encoder=BagEncoder())
    (tmp_path / "run" / "latest.json").write_text(json.dumps({"atlas": "atlas/0123"}))
    original = TopKSAE.load(atlas / "sae")
    for number, source in enumerate((atlas, tmp_path / "run", atlas / "sae")):
        assert main(["sae", "export", str(source), "--out", str(tmp_path / f"out{number}")]) == 0
        back = import_sae(tmp_path / f"out{number}", hook_point=original.config.hook_point or HookPoint(layer=4))
        assert all(torch.equal(weight, weights_of(original)[name]) for name, weight in weights_of(back).items())
    assert f"d_sae {original.d_sae}" in capsys.readouterr().out
    assert "There is no SAE at" in failing(capsys, "sae", "export", str(tmp_path), "--out", str(tmp_path / "no"))
    damaged = atlas / "sae" / "sae_weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    assert "damaged" in failing(capsys, "sae", "export", str(atlas), "--out", str(tmp_path / "no")).lower()


def test_the_shipped_sae_survives_the_authors_format(tmp_path, capsys, shipped_atlas: Path, shipped_subject: Path):
    shipped = TopKSAE.load(shipped_atlas / "sae")
    scale = float(str(shipped.config.metadata["activation_scale"]))
    trainer = {"layer": 4, "submodule_name": "enc_res_out_layer_4", "lm_name": "subject"}
    forgotten = {**weights_of(shipped), "b_enc": shipped.b_enc / scale, "b_dec": shipped.b_dec / scale}
    for name, weights in (("raw", weights_of(shipped)), ("forgotten", forgotten)):
        write_dictionary_learning(tmp_path / name, weights, k=shipped.k, trainer=trainer)
    arguments = ["--out", str(tmp_path / "out"), "--recipe", "world"]
    assert main(["sae", "import", str(tmp_path / "forgotten"), *arguments]) == 2
    message = capsys.readouterr().err.splitlines()[-1]  # after the progress of loading the model
    assert "does not read residuals at this scale" in message
    assert scale_asked_for(message) == pytest.approx(scale, rel=0.2)
    assert main(["sae", "import", str(tmp_path / "raw"), *arguments]) == 0
    assert "explained variance 0." in capsys.readouterr().out
    assert torch.equal(TopKSAE.load(tmp_path / "out").W_enc, shipped.W_enc)
