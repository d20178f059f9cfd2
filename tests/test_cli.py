"""The command line: results on standard output, one line on standard error when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import precompute.cli.run as run
import precompute.cli.serve as serve
import precompute.cli.steer as steer
import precompute.stage
from backend.artifact_writer import ArtifactWriter
from backend.artifacts import Artifact
from backend.directions import Random
from backend.settings import QUIET, quiet_libraries, worker_environment
from backend.types import ARMS, Operation, PatchScope
from precompute.cli import main
from precompute.cli.atlas_report import METRICS, score_text
from precompute.progress import SilentProgress
from precompute.recipe import Runtime
from precompute.runner import RunStopped, run_recipe
from tests.builders_atlas import BagEncoder, build_atlas
from tests.source_tree import ROOT
from tests.toy_pipeline import RECIPE, Ranges, Total, Train, toml_text, toy_recipe, toy_stages


class ToyAtlas(Total):
    """The toy's last stage under the name of the real one."""

    name = "atlas"


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_atlas(tmp_path_factory.mktemp("cli") / "atlas", encoder=BagEncoder())


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe file whose stages are the toy's."""
    monkeypatch.setattr(precompute.stage, "load_stages", lambda: (Train(), Ranges(), ToyAtlas()))
    path = tmp_path / "toy.toml"
    path.write_text(toml_text(RECIPE))
    return path


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail; its one line on standard error."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("iconoscope: ") and captured.err.count("\n") == 1
    return captured.err


# --------------------------------------------------------------------------------------------------------- help


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for command in ("demo", "run", "status", "inspect", "serve", "search", "steer", "copy"):
        assert f"• {command} " in text


def test_wrong_usage_exits_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["inspekt"])
    assert stopped.value.code == 2 and "inspect" in capsys.readouterr().err


def test_the_command_line_opens_without_heavy_imports() -> None:
    program = (
        "import sys, precompute.cli\n"
        "print(*sorted({'torch', 'transformers', 'faiss', 'gradio', 'scipy', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "precompute", "inspect", "no/such/place"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("iconoscope: There is no artifact at ")
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------------- inspect


def test_inspect_json_holds_all_that_is_promised(atlas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(atlas), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["subject"]["name"] == "Planted Gemma 3"
    assert report["hook_point"] == {"tower": "vision", "layer": 4, "stream": "residual"}
    assert {"d_model", "d_sae", "k", "nmse", "l0", "explained_variance", "alive", "dead"} <= report["sae"].keys()
    assert _is_interval(report["concept_coverage"]["all"])
    assert list(report["arms"]) == [arm.key for arm in ARMS]
    for key, arm in report["arms"].items():
        assert arm["n"] == 60 and isinstance(arm["failures"], dict)
        assert arm["control"] == (key in {"no_steering", "random_direction", "permuted_direction"})
        assert all(_is_interval(arm[metric]) for metric in METRICS), key
        assert all(_is_interval(arm["truth"][outcome]) for outcome in ("right", "partly", "wrong")), key
        assert arm["truth"]["undecidable"]["count"] == 4
    assert report["arms"]["top_k_heatmaps"]["failures"] == {"empty answer": 5}


def _is_interval(score: dict[str, Any]) -> bool:
    return score["low"] <= score["value"] <= score["high"] and score["n"] > 0


@pytest.mark.parametrize("columns", ["80", "220"])
def test_inspect_prints_every_arm_at_any_width(
    atlas: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["inspect", str(atlas)]) == 0
    text = capsys.readouterr().out
    for words in ("Planted Gemma 3", "explained_variance", "concept coverage", *(arm.label for arm in ARMS), *METRICS):
        assert words in text, words


def test_a_score_that_was_not_made_is_no_number() -> None:
    assert score_text({"value": None, "low": None, "high": None, "n": 0}) == "–"
    assert score_text({"value": 0.5, "low": 0.4, "high": 0.6, "n": 7}) == "0.500 [0.400, 0.600] n 7"


def test_inspect_a_stage_and_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifacts = run_recipe(toy_recipe(), tmp_path, Runtime(), SilentProgress(), stages=toy_stages())
    assert main(["inspect", str(artifacts["ranges"].folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "ranges" and report["failures"] == {"negative": 2}
    squares = report["tables"]["squares"]
    assert squares["rows"] == 600 and squares["columns"] == {"item": "int64", "value": "double"}
    assert [row["item"] for row in squares["first_rows"]] == [0, 1, 2]
    assert main(["inspect", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("train version 1", "ranges version 1", "squares: 600 rows"))


def test_inspect_the_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = {"value": 0.97, "low": 0.95, "high": 0.98, "n": 960}
    (tmp_path / "evaluation.json").write_text(json.dumps({"subject": {"masked_accuracy": accuracy, "steps": 4000}}))
    (tmp_path / "subject").mkdir()
    (tmp_path / "subject" / "config.json").write_text('{"model_type": "gemma3"}')
    (tmp_path / "subject" / "model.safetensors").write_bytes(b"123")
    (tmp_path / "corpus").mkdir()
    ArtifactWriter(tmp_path / "corpus", "x", 1, {}, {}).write_table("score", pa.table({"image_id": ["a", "b"]}))
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["evaluation"]["subject"]["masked_accuracy"] == accuracy
    assert report["models"]["subject"]["model_type"] == "gemma3" and report["corpora"]["score"]["images"] == 2
    assert main(["inspect", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "subject.masked_accuracy" in text and "0.970 [0.950, 0.980] n 960" in text
    (tmp_path / "evaluation.json").write_text("{")
    assert "evaluation.json is not readable JSON" in failing(capsys, "inspect", str(tmp_path))


def test_inspect_says_what_is_wrong(atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no artifact at" in failing(capsys, "inspect", str(tmp_path))
    assert main(["copy", str(atlas), str(tmp_path / "copy")]) == 0
    capsys.readouterr()
    (tmp_path / "copy" / "scores.parquet").write_bytes(b"short")
    message = failing(capsys, "inspect", str(tmp_path / "copy"))
    assert "scores.parquet is damaged" in message and "iconoscope run" in message


# -------------------------------------------------------------------------------------------- run, status, copy


def test_run_status_and_run_again(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["status", str(toy), "--out", out, "--json"]) == 0
    assert [item["state"] for item in json.loads(capsys.readouterr().out)] == ["missing"] * 3
    assert main(["run", str(toy), "--out", out, "--device", "cpu"]) == 0
    first = capsys.readouterr()
    assert Path(first.out.strip()).is_dir() and "3 of 3 stages computed" in first.err
    assert main(["run", str(toy), "--out", out, "--workers", "1"]) == 0
    second = capsys.readouterr()
    assert second.out == first.out and "nothing to do" in second.err
    assert main(["status", str(toy), "--out", out]) == 0
    assert capsys.readouterr().out.count("done") == 3
    changed = tmp_path / "changed.toml"
    changed.write_text(toy.read_text().replace("k = 4\n", "k = 8\n"))
    assert main(["status", str(changed), "--out", out]) == 0
    assert "sae.k: 4 -> 8" in " ".join(capsys.readouterr().out.split())


def test_ctrl_c_says_how_to_go_on(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Any, context: Any, key: str) -> None:
        raise RunStopped("SIGINT")

    monkeypatch.setattr(Ranges, "run_shard", stop)
    out = tmp_path / "out"
    assert main(["run", str(toy), "--out", str(out)]) == 130
    assert f"Go on with: iconoscope run {toy} --out {out}" in capsys.readouterr().err


def test_with_serve_ctrl_c_says_so_too_and_the_end_opens_the_explorer(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, served = tmp_path / "out", []
    monkeypatch.setattr(run, "serve_afresh", lambda *asked: served.append(asked))

    def stop(self: Any, context: Any, key: str) -> None:
        raise RunStopped("SIGINT")

    arguments = ["run", str(toy), "--out", str(out), "--serve", "--port", "7999"]
    with monkeypatch.context() as patch:
        patch.setattr(Ranges, "run_shard", stop)
        assert main(arguments) == 130 and not served
    assert f"Go on with: iconoscope run {toy} --out {out} --serve --port 7999" in capsys.readouterr().err
    for _ in range(2):  # the second finds nothing to do
        assert main(arguments) == 0
    atlas = Path(capsys.readouterr().out.splitlines()[0])
    assert served == [(atlas, "127.0.0.1", 7999)] * 2


def test_wrong_recipes_are_one_line(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no recipe 'nothing'" in failing(capsys, "run", "nothing", "--out", str(tmp_path))
    toy.write_text(toy.read_text().replace("k = 4\n", 'k = "four"\n'))
    assert "sae.k is 'four'" in failing(capsys, "status", str(toy), "--out", str(tmp_path))


def test_an_unwritable_folder_is_one_line(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in failing(capsys, "run", str(toy), "--out", str(tmp_path / "file" / "out"))


def test_copy_takes_what_the_manifest_lists_and_nothing_else(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", str(toy), "--out", str(tmp_path / "out")])
    target = tmp_path / "copy"
    assert main(["copy", str(tmp_path / "out"), str(target)]) == 0
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "total.parquet"]
    assert Artifact.open(target, "atlas").table("total").num_rows == 1
    capsys.readouterr()
    assert "not an empty folder" in failing(capsys, "copy", str(tmp_path / "out"), str(target))


# ------------------------------------------------------------------------------------------------------ search


def test_search_json(atlas: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.text_vectors.load_text_encoder", lambda name: BagEncoder())
    assert main(["search", str(atlas), "receding", "road", "-n", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["query"] == "receding road" and len(found["hits"]) == 3
    assert {hit["truth_concept"] for hit in found["hits"]} == {"road"} and all(hit["why"] for hit in found["hits"])
    assert main(["search", str(atlas), "road"]) == 0
    assert "receding road" in capsys.readouterr().out


def test_search_says_what_is_wrong(atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no words" in failing(capsys, "search", str(atlas), "??")
    assert "holds no words" in failing(capsys, "search", str(atlas))
    assert "There is no atlas at" in failing(capsys, "search", str(tmp_path), "road")


def test_libraries_are_told_to_be_quiet_unless_somebody_wants_to_hear_them(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DIFFUSERS_VERBOSITY", "debug")
    main(["status", str(toy), "--out", str(tmp_path)])
    assert {name: os.environ[name] for name in QUIET} == {**QUIET, "DIFFUSERS_VERBOSITY": "debug"}
    assert worker_environment().items() >= {**QUIET, "DIFFUSERS_VERBOSITY": "debug"}.items()


def test_warnings_of_libraries_are_for_their_own_programmers() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quiet_libraries()
        for module in ("torch.jit._script", "precompute.cli.run"):
            warnings.warn_explicit(module, FutureWarning, "somewhere.py", 1, module=module)
    assert [str(one.message) for one in seen] == ["precompute.cli.run"]


# ------------------------------------------------------------------------------------------------ demo and serve


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str, int]]:
    """What would have been served."""
    calls: list[tuple[Path, str, int]] = []
    monkeypatch.setattr(serve, "open_explorer", lambda atlas, host, port, **_: calls.append((atlas, host, port)))
    return calls


def test_serve_opens_an_atlas_or_a_runs_newest(atlas: Path, tmp_path: Path, opened: list[Any]) -> None:
    assert main(["serve", str(atlas), "--port", "7999"]) == 0
    (tmp_path / "latest.json").write_text(json.dumps({"atlas": "atlas/abc"}))
    assert main(["serve", str(tmp_path), "--host", "0.0.0.0"]) == 0
    newest = tmp_path / "atlas" / "abc"
    assert main(["serve", str(atlas), str(tmp_path)]) == 0
    expected = [([atlas], "127.0.0.1", 7999), ([newest], "0.0.0.0", 7860), ([atlas, newest], "127.0.0.1", 7860)]
    assert opened == expected


def test_demo_checks_fingerprints_then_serves(
    toy: Path, tmp_path: Path, opened: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICONOSCOPE_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setattr(serve, "DEMO_RECIPE", str(toy))
    assert "The demo atlas is not at" in failing(capsys, "demo")
    main(["run", str(toy), "--out", str(tmp_path / "out")])
    main(["copy", str(tmp_path / "out"), str(tmp_path / "assets" / "atlas")])
    capsys.readouterr()
    assert main(["demo", "--port", "7999"]) == 0
    assert "fingerprints match, nothing to recompute" in capsys.readouterr().err
    assert opened == [([tmp_path / "assets" / "atlas"], "127.0.0.1", 7999)]
    toy.write_text(toy.read_text().replace("k = 4\n", "k = 8\n"))
    message = failing(capsys, "demo")
    assert "train.sae.k: 4 -> 8" in message and "iconoscope run toy" in message and len(opened) == 1


def test_an_absent_explorer_is_named(
    atlas: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "app", None)
    assert "The explorer cannot be imported" in failing(capsys, "serve", str(atlas))


# --------------------------------------------------------------------------------------------------------- steer


class FakeSession:
    """Answers with what it was asked, as SteeringSession would."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, str, Any]] = []

    def answers(self, interventions: Any, prompt: str, image: Any = None, **options: Any) -> list[Any]:
        self.calls.append((interventions, prompt, options.get("directions")))
        names = ["nothing" if not row else "a cat" for row in interventions]
        if options.get("directions") is not None:
            names = ["a blur"]
        return [SimpleNamespace(text=name, n_patches_edited=256 * (name != "nothing")) for name in names]


def test_steer_prints_the_answer_beside_two_controls(
    atlas: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = FakeSession()
    monkeypatch.setattr(steer, "open_session", lambda atlas: session)
    assert main(["steer", str(atlas), "0", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert {name: answer["text"] for name, answer in answers.items()} == {
        "no_steering": "nothing",
        "steered": "a cat",
        "random_direction": "a blur",
    }
    (rows, prompt, directions), (_, _, control) = session.calls
    assert rows[0] == [] and prompt == "What is in this image?" and directions is None and control == Random(0)
    assert rows[1][0].strength == pytest.approx(
        Artifact.open(atlas).table("features")["recommended_strength"][0].as_py()
    )
    options = ["--strength", "5", "--operation", "set", "--patches", "3", "4", "--prompt", "Why?"]
    assert main(["steer", str(atlas), "0", *options]) == 0
    intervention = session.calls[2][0][1][0]
    assert (intervention.strength, intervention.operation, intervention.patches) == (5.0, Operation.SET, (3, 4))
    assert intervention.scope is PatchScope.GIVEN and session.calls[2][1] == "Why?"
    assert "a cat" in capsys.readouterr().out


def test_steer_refuses_an_unknown_feature(atlas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no feature 999" in failing(capsys, "steer", str(atlas), "999")
