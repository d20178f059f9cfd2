"""A folder of somebody's own pictures through the pipeline, with an SAE that is there already."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest

from backend.artifacts import Artifact
from backend.atlas import FeatureAtlas
from backend.errors import (
    DatasetMissing,
    MasksUnknown,
    SAEError,
    SAEShapeMismatch,
    SubjectMismatch,
    UnparsableExplanation,
)
from backend.listening import free_port
from backend.sae import TopKSAE
from backend.types import Split
from backend.voting import UNPARSABLE
from precompute.cli import main
from precompute.cli import run as run_command
from precompute.cli.run import chosen_recipe
from precompute.data.folder import open_folder
from precompute.datasets import open_image_set
from precompute.given_sae import with_sae
from precompute.judges import open_judges
from precompute.metrics import mask_overlap
from precompute.own_images import with_images
from precompute.progress import SilentProgress
from precompute.recipe import Recipe, load_recipe, parse_recipe
from precompute.runner import run_recipe
from precompute.scoring import NO_TEXT
from precompute.stage import load_stages, plan
from precompute.stages import atlas as atlas_stage
from precompute.strengths import Trial, common_strength
from tests.builders_atlas import BagEncoder
from tests.builders_pictures import picture_bytes, save_folder
from tests.builders_pipeline import BAG, RUNTIME, SECTIONS, planted_recipe, planted_run, planted_subject
from tests.builders_subject import random_sae
from tests.source_tree import ROOT
from tests.toy_pipeline import toml_text


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICONOSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        open_folder.cache_clear()
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures in nested folders, a copy of one, and three files that are none."""
    place = save_folder(tmp_path_factory.mktemp("own") / "my pictures", range(60), side_px=32)
    (place / "copy.png").write_bytes(picture_bytes(7, side_px=32))
    (place / "cut.png").write_bytes(picture_bytes(8, side_px=32)[:200])
    (place / "empty.jpg").write_bytes(b"")
    (place / "holiday" / "words.webp").write_text("not a picture")
    return place


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    """The planted recipe's sizes over these pictures, with the world's judges and the planted run's SAE."""
    trained = planted_run(1)["train_sae"].folder / "sae"
    planted = planted_recipe(planted_subject(), judges={"clip": "assets/world/clip", "text_encoder": BAG})
    object.__setattr__(planted.judges, "kind", "world")
    return with_images(with_sae(planted, trained), folder)


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Artifact]:
    with pytest.MonkeyPatch.context() as patch:
        # Laying out the map takes seconds of compiling, and is no matter of whose the pictures are.
        patch.setattr(atlas_stage, "coordinates", lambda rows, section: np.ascontiguousarray(rows[:, :2]))
        return run_recipe(recipe, tmp_path_factory.mktemp("out"), RUNTIME, SilentProgress())


# -------------------------------------------------------------------------------------------------- the whole way


@pytest.mark.slow
def test_pictures_reach_the_explorer_and_corrupt_ones_are_counted(run: Mapping[str, Artifact], recipe: Recipe) -> None:
    images = run["harvest"].table("images")["image_id"].to_pylist()
    assert len(images) == len(set(images)) == 60
    assert run["harvest"].manifest.failures == {"image unreadable": 3}
    atlas = FeatureAtlas.open(run["atlas"].folder, encoder=BagEncoder())
    assert len(atlas.store) > 0 and atlas.store.meta["recipe"] == "planted-images"
    name = atlas.store.image_ids[0]
    assert name in images and (atlas.store.image_bytes(name) or b"")[8:12] == b"WEBP"
    assert recipe.data.kind == "folder"


@pytest.mark.slow
def test_one_command_leads_to_an_explorer_that_answers_until_ctrl_c(
    run: Mapping[str, Artifact],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run has been done already: the command finds nothing to do, and the process it turns into serves it."""
    judges = {**SECTIONS["judges"], "clip": "assets/world/clip"}
    subject = {**SECTIONS["subject"], "path": str(planted_subject())}
    recipe = tmp_path / "planted.toml"
    recipe.write_text(toml_text({**SECTIONS, "judges": judges, "subject": subject}))
    sae, out = planted_run(1)["train_sae"].folder / "sae", run["atlas"].folder.parent.parent
    port, programs = free_port("127.0.0.1"), []
    monkeypatch.setattr("os.execv", lambda _, program: programs.append(program))
    arguments = ["--images", str(folder), "--sae", str(sae), "--out", str(out), "--serve", "--port", str(port)]
    assert main(["run", str(recipe), *arguments, "--workers", "1"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(run["atlas"].folder) and "nothing to do" in told.err
    with subprocess.Popen(programs[0], cwd=ROOT, stderr=PIPE, stdout=PIPE, text=True) as child:
        assert child.stderr is not None and child.stdout is not None
        try:
            assert any("Ctrl-C stops it" in line for line in child.stderr)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                assert answer.status == 200 and b"Iconoscope" in answer.read()
        finally:
            child.send_signal(signal.SIGINT)
        assert child.wait(60) == 0 and child.stdout.read() == ""


@pytest.mark.slow
def test_what_nobody_can_know_is_absent_with_the_reason(run: Mapping[str, Artifact]) -> None:
    rows = [row for row in run["score"].table("scores").to_pylist() if row["metric"] == mask_overlap.NAME]
    reasons = {row["reason"] for row in rows}
    assert rows and all(row["value"] is None for row in rows)
    unknown = "no masks are known for these images"
    assert reasons <= {unknown, NO_TEXT, UNPARSABLE, mask_overlap.NO_IMAGES} and unknown in reasons
    summary = run["score"].json("summary")
    assert summary["concept_coverage"] is None
    assert all(entry["truth"] is None and entry["iou"]["value"] is None for entry in summary["arms"].values())
    assert any(entry["clip_score"]["n"] > 0 for entry in summary["arms"].values())


@pytest.mark.slow
def test_the_given_sae_is_the_one_that_is_used(run: Mapping[str, Artifact]) -> None:
    given, used = planted_run(1)["train_sae"], run["train_sae"]
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        first, second = (getattr(TopKSAE.load(one.folder / "sae"), name) for one in (given, used))
        assert first.equal(second)
    quality = used.json("quality")
    assert quality["n_train_images"] is None and quality["n_images"] > 20
    assert run["atlas"].json("meta")["sae"]["n_tokens"] == given_tokens(given)


def given_tokens(given: Artifact) -> int:
    return json.loads((given.folder / "sae" / "cfg.json").read_text())["metadata"]["n_tokens"]


@pytest.mark.slow
def test_inspect_shows_what_is_missing_without_falling_over(
    run: Mapping[str, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(run["atlas"].folder)]) == 0
    assert "the concepts in these images are not known" in " ".join(capsys.readouterr().out.split())
    assert main(["inspect", str(run["atlas"].folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["concept_coverage"] is None


@pytest.mark.slow
def test_an_atlas_of_ids_alone_holds_no_pixel(
    run: Mapping[str, Artifact], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = replace(recipe, data=replace(recipe.data, share="ids"))
    thumbnails, ids = (plan(one) for one in (recipe, bare))
    assert [item.fingerprint for item in thumbnails[:4]] == [item.fingerprint for item in ids[:4]]
    assert thumbnails[4].fingerprint != ids[4].fingerprint
    out = run["atlas"].folder.parent.parent
    monkeypatch.setattr(atlas_stage, "coordinates", lambda rows, section: np.ascontiguousarray(rows[:, :2]))
    made = run_recipe(bare, out, RUNTIME, SilentProgress())["atlas"]
    table = made.table("images")
    assert table["webp"].null_count == len(table) > 0
    assert made.json("meta")["share"] == "ids"


# ---------------------------------------------------------------------------------------------- the documented line


def documented() -> list[str]:
    """The README's command for one's own pictures, as arguments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^iconoscope (run \S+ --images .*?)(?: +#.*)?$", text, re.MULTILINE)
    assert found, "README.md shows no command with --images"
    return shlex.split(found[1])


def test_the_documented_command_asks_for_what_it_says(
    folder: Path,
    tmp_path: Path,
    shipped_atlas: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = documented()
    arguments[arguments.index("--images") + 1] = str(folder)
    arguments[arguments.index("--out") + 1] = str(tmp_path / "out")
    asked: dict[str, object] = {}

    def note(recipe: Recipe, out: Path, *_: object, command: str, **__: object) -> Mapping[str, Artifact]:
        asked.update(recipe=recipe, out=out, command=command)
        raise SAEError("far enough")

    monkeypatch.setattr(run_command, "run_recipe", note)
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2 and "far enough" in capsys.readouterr().err
    recipe = asked["recipe"]
    assert isinstance(recipe, Recipe) and recipe.data.kind == "folder" and recipe.data.path == str(folder)
    assert recipe.sae.path is not None and Path(recipe.sae.path).resolve() == (shipped_atlas / "sae").resolve()
    assert arguments[-1] == "--serve"
    assert shlex.split(str(asked["command"]))[1:] == arguments[:-1]
    splits = [open_image_set(recipe, split).ids for split in (Split.EXPLAIN, Split.SELECT, Split.SCORE)]
    assert sum(len(ids) for ids in splits) == 63


def test_without_an_sae_the_pictures_train_one(folder: Path) -> None:
    recipe = chosen_recipe("world", folder, None)
    assert recipe.sae.path is None and len(open_image_set(recipe, Split.TRAIN).ids) > 15
    assert recipe.name == "world-images" and recipe.title.startswith("my pictures")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"There is no folder .*--images"):
        chosen_recipe("world", tmp_path / "nowhere", None)


def test_no_option_changes_nothing() -> None:
    assert chosen_recipe("world", None, None) == load_recipe("world")


# ----------------------------------------------------------------------------------------------------- no masks


def test_the_worlds_judges_know_no_masks_of_other_images(recipe: Recipe) -> None:
    judges = open_judges(recipe)
    assert judges.truth is None
    with pytest.raises(MasksUnknown):
        judges.segmenter.segment([], [], "a crab")
    with pytest.raises(UnparsableExplanation):
        judges.segmenter.segment([], [], "xyzzy")
    assert open_judges(load_recipe("world")).truth is not None


def test_without_any_overlap_the_middle_strength_is_taken() -> None:
    def trial(strength: float, iou: float | None) -> Trial:
        return Trial(feature=0, arm="steering", strength=strength, text="a crab", iou=iou, n_images=1)

    assert common_strength([trial(one, None) for one in (8.0, 1.0, 2.0, 4.0)]) == 2.0
    assert common_strength([trial(1.0, None), trial(2.0, None), trial(4.0, 0.1)]) == 4.0


# ----------------------------------------------------------------------------------------------------- a given SAE


def test_a_recipe_with_an_sae_needs_no_training_fields() -> None:
    recipe = parse_recipe(
        {**SECTIONS, "subject": {"path": "x", "layer": 1}, "sae": {"path": "somewhere", "d_sae": 24, "k": 3}}, "given"
    )
    assert recipe.sae.path == "somewhere" and recipe.sae.d_sae == 24


def sae_at(path: Path, *, d_model: int = 32, layer: int = 1) -> Path:
    random_sae(d_model=d_model, d_sae=24, k=3, layer=layer).save(path)
    return path


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        ({"d_model": 48}, SubjectMismatch, "reads width 48"),
        ({"layer": 2}, SubjectMismatch, r"trained at vision\.2\.residual, but the recipe cuts"),
    ],
)
def test_an_sae_of_another_place_is_refused(
    recipe: Recipe, tmp_path: Path, made: dict[str, int], error: type[Exception], message: str
) -> None:
    wrong = with_sae(recipe, sae_at(tmp_path / "sae", **made))
    with pytest.raises(error, match=message):
        run_recipe(wrong, tmp_path / "out", RUNTIME, SilentProgress(), load_stages()[:1])


def test_sizes_that_contradict_the_file_and_a_folder_without_an_sae_are_said(recipe: Recipe, tmp_path: Path) -> None:
    given = with_sae(recipe, sae_at(tmp_path / "sae"))
    wrong = replace(given, sae=replace(given.sae, k=4))
    with pytest.raises(SAEShapeMismatch, match=r"has d_sae 24 and k 3, but the recipe's .* says 24 and 4"):
        run_recipe(wrong, tmp_path / "out", RUNTIME, SilentProgress(), load_stages()[:1])
    with pytest.raises(SAEError, match="no SAE to be taken"):
        with_sae(recipe, tmp_path)


def test_the_fingerprint_is_that_of_the_contents(recipe: Recipe, tmp_path: Path) -> None:
    stage = load_stages()[:1]
    first, copy = (plan(with_sae(recipe, sae_at(tmp_path / name)), stage)[0].fingerprint for name in ("a", "b"))
    random_sae(d_model=32, d_sae=24, k=3, layer=1, seed=5).save(tmp_path / "b")
    assert first == copy != plan(with_sae(recipe, tmp_path / "b"), stage)[0].fingerprint


def test_a_plan_with_a_given_sae_trains_nothing(folder: Path, shipped_atlas: Path) -> None:
    from precompute.planning import make_plan

    made = make_plan(chosen_recipe("world", folder, shipped_atlas), "h100", RUNTIME)
    assert made.missing == ()
    assert made.stages[0].stage == "train_sae" and " 0 steps" in made.stages[0].work
