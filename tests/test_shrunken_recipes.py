"""The recipes with shrunken models go through all five stages with the paper's judges, and the explorer serves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from backend.artifacts import Artifact
from backend.types import ARMS
from precompute.progress import SilentProgress
from precompute.recipe import Recipe, Runtime, load_recipe
from precompute.runner import run_recipe
from precompute.stage import STAGE_NAMES
from tests.builders_atlas import BagEncoder

RUNTIME = Runtime(device="cpu", workers=1)


def smaller(name: str) -> Recipe:
    """The shipped recipe with less of everything, so that a test may run it."""
    recipe = load_recipe(name)
    explain = replace(recipe.explain, n_selection_features=2, n_images=2, strengths=(1.0,), informed_strengths=(0.5,))
    return replace(
        recipe,
        data=replace(recipe.data, n_train_images=60, n_explain_images=40, n_select_images=20, n_score_images=30),
        sae=replace(recipe.sae, d_sae=8, k=2, n_tokens=2048, batch_tokens=256, buffer_tokens=1000),
        explain=explain,
        score=replace(recipe.score, n_images=2, n_synthetic=1, n_bootstrap=50),
    )


@pytest.fixture(scope="module", params=["shrunken-gemma3", "shrunken-internvl3"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Artifact]:
    recipe = smaller(request.param)
    return run_recipe(recipe, tmp_path_factory.mktemp(request.param), RUNTIME, SilentProgress())


@pytest.mark.slow
def test_all_five_stages_finish(run: Mapping[str, Artifact]) -> None:
    assert tuple(run) == STAGE_NAMES
    assert set(run["explain"].table("explanations")["arm"].to_pylist()) == {arm.key for arm in ARMS}
    assert run["harvest"].table("images").num_rows == 40 + 20 + 30
    measured = [row for row in run["score"].table("scores").to_pylist() if row["value"] is not None]
    assert {"iou", "clip_score", "auroc_per_feature"} <= {row["metric"] for row in measured}


@pytest.mark.slow
def test_the_explorer_serves_what_came_out(run: Mapping[str, Artifact]) -> None:
    from gradio_client import Client

    from app.launching import start

    running = start([run["atlas"].folder], "127.0.0.1", None, block=False, warm=False, encoder=BagEncoder())
    try:
        feature = int(running.services.store.feature_ids[0])
        document = Client(running.url, verbose=False).predict(feature=feature, api_name="/get_feature")
    finally:
        running.close()
    assert document["feature"] == feature


def test_the_judges_are_the_papers() -> None:
    recipe = load_recipe("gemma3-4b-mid").judges
    for name in ("shrunken-gemma3", "shrunken-internvl3"):
        shrunken = load_recipe(name).judges
        assert (shrunken.kind, shrunken.segmenter, shrunken.generator) == (
            recipe.kind,
            recipe.segmenter,
            recipe.generator,
        )
