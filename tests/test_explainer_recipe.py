"""Recipes with an [explainer]: which arms they can have, and a whole run of an image encoder that cannot speak itself.

The subject is a shrunken DINOv2; a shrunken Gemma 3 with another tower, whose patches are smaller, is shown pictures.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from app.ablation import answers_without
from app.catalogue import Catalogue
from app.feature_page import page
from app.hub import Hub
from app.inspecting import Inspection, inspect
from app.services import Services, open_services
from app.steer_answers import answers
from app.steer_setup import SteerRow, SteerSetup
from app.tabs import TABS, about, steer
from app.tabs.compare import tables
from app.ui import layout
from backend.artifacts import Artifact
from backend.errors import SubjectError, SubjectMismatch
from backend.types import ARMS, Method
from precompute.arms import absent_arms, possible_arms
from precompute.cli.atlas_report import atlas_report
from precompute.exemplars import alive_features
from precompute.progress import SilentProgress
from precompute.recipe import Recipe
from precompute.runner import run_recipe
from precompute.shrunken import dinov2
from precompute.stage import load_stages, plan
from precompute.stages import atlas as atlas_stage
from precompute.subject import open_explainer
from tests.builders_atlas import BagEncoder
from tests.builders_pipeline import RUNTIME, install, planted_recipe, planted_run, planted_subject
from tests.builders_sizes import change_weight, save_other_size
from tests.builders_subject import save_tiny_subject

PICTURES_ONLY = ["top_k_masks", "top_k_heatmaps", "no_steering"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return dinov2.build(tmp_path_factory.mktemp("encoder") / "dinov2")


def encoder_recipe(encoder: Path, **explainer: object) -> Recipe:
    return planted_recipe(encoder, explainer={"path": str(planted_subject()), "steers": False, **explainer})


# ---------------------------------------------------------------------------------------------------- before any run


def test_possible_arms_follow_from_the_recipe(encoder):
    own = planted_recipe(planted_subject())
    assert possible_arms(own) == ARMS and absent_arms(own) == {}
    shared = planted_recipe(planted_subject(), explainer={"path": "elsewhere"})
    assert possible_arms(shared) == ARMS and absent_arms(shared) == {}
    shown = encoder_recipe(encoder)
    assert [arm.key for arm in possible_arms(shown)] == PICTURES_ONLY
    assert set(absent_arms(shown)) == {arm.key for arm in ARMS} - set(PICTURES_ONLY)
    assert all("another vision tower" in reason for reason in absent_arms(shown).values())


def test_an_encoder_without_an_explainer_is_refused_before_training(encoder):
    install()
    recipe = planted_recipe(encoder)
    with pytest.raises(SubjectError, match=r"recipe planted: .*without a language model.*\[explainer\]"):
        plan(recipe)
    assert len(plan(recipe, load_stages()[:2])) == 2, "it can be trained on and harvested"
    with pytest.raises(SubjectError, match=r"dinov2 is an image encoder without a language model"):
        open_explainer(recipe, RUNTIME)
    with pytest.raises(SubjectError, match=r"dinov2 is an image encoder without a language model"):
        plan(encoder_recipe(encoder, path=str(encoder)))


def test_the_explainer_changes_the_fingerprint_of_explain_and_later_stages_only(tmp_path):
    install()
    recipes = [planted_recipe(planted_subject())]
    sibling = save_other_size(tmp_path / "sibling", planted_subject())
    recipes += [
        planted_recipe(planted_subject(), explainer={"path": str(sibling), "steers": one}) for one in (True, False)
    ]
    planned = [[item.fingerprint for item in plan(recipe)] for recipe in recipes]
    assert len({tuple(one[:2]) for one in planned}) == 1
    assert all(len({one[at] for one in planned}) == 3 for at in (2, 3, 4))
    assert "explainer" not in plan(recipes[0])[2].inputs["config"]
    assert str(sibling) not in str(plan(recipes[1])[2].inputs)


def test_an_explainer_that_is_to_steer_needs_the_subjects_tower(encoder, tmp_path):
    install()
    with pytest.raises(SubjectMismatch, match=r"subject does not have the vision tower of \S*dinov2: .*steers = false"):
        plan(encoder_recipe(encoder, steers=True))
    other = save_other_size(tmp_path / "other", planted_subject())
    change_weight(other, "encoder.layers.0.mlp.fc2.weight")
    recipe = planted_recipe(planted_subject(), explainer={"path": str(other)})
    plan(recipe)
    with pytest.raises(SubjectMismatch, match=r"tensor encoder\.layers\.0\.mlp\.fc2\.weight differs"):
        open_explainer(recipe, RUNTIME)


# ------------------------------------------------------------------------------------------------ the pipeline, whole


@pytest.fixture(scope="module")
def run(encoder, tmp_path_factory) -> Mapping[str, Artifact]:
    install()
    finer = save_tiny_subject(tmp_path_factory.mktemp("finer") / "finer", patch_px=4)
    recipe = encoder_recipe(encoder, path=str(finer))
    with pytest.MonkeyPatch.context() as patch:
        # The map's own layout compiles for many seconds, and nothing here depends on it.
        patch.setattr(atlas_stage, "coordinates", lambda rows, section: np.ascontiguousarray(rows[:, :2]))
        return run_recipe(recipe, tmp_path_factory.mktemp("out"), RUNTIME, SilentProgress())


@pytest.mark.slow
def test_absent_arms_leave_no_row_and_no_failure(run):
    rows = run["explain"].table("explanations").to_pylist()
    alive = alive_features(run["harvest"])
    assert len(alive) > 5
    assert sorted((row["feature"], row["arm"]) for row in rows) == sorted(
        (f, arm) for f in alive for arm in PICTURES_ONLY
    )
    assert all(row["strength"] is None for row in rows)
    assert len({row["text"] for row in rows if row["arm"] == "top_k_masks"}) > 1, "the explainer sees the pictures"
    told = run["explain"].manifest
    assert not any(failure.split(":")[0] not in PICTURES_ONLY for failure in told.failures)
    assert set(told.notes["absent_arms"]) == {arm.key for arm in ARMS} - set(PICTURES_ONLY)
    assert run["explain"].json("strengths") == {} and not len(run["explain"].table("selection"))
    summary = run["score"].json("summary")
    assert sorted(summary["arms"]) == sorted(PICTURES_ONLY)
    assert {row["best_arm"] for row in run["score"].table("votes").to_pylist()} <= {
        "top_k_masks",
        "top_k_heatmaps",
        None,
    }
    assert {test[side] for test in summary["tests"] for side in "ab"} <= set(PICTURES_ONLY)


@pytest.fixture(scope="module")
def services(run) -> Services:
    return open_services(run["atlas"].folder, encoder=BagEncoder())


@pytest.mark.slow
def test_the_atlas_says_who_explained_and_what_could_not_be_had(run, services):
    store = services.store
    assert [arm.key for arm in store.arms] == PICTURES_ONLY
    assert store.meta["subject"]["answers"] is False and "centre crop" in store.meta["subject"]["note"]
    assert store.meta["explainer"]["steers"] is False and store.meta["explainer"]["name"] == "finer"
    assert set(store.features["recommended_strength"].to_pylist()) == {None}
    shown = str(page(services, int(store.feature_ids[0])))
    assert "Not possible here: Steering, Steering-informed Top-k (masks), " in shown
    assert "Not possible here: Steering" in str(tables.page(services))
    assert "Explained by" in str(about.page(services)) and "shown pictures only" in str(about.page(services))
    report: dict[str, Any] = atlas_report(store)
    assert report["explainer"]["name"] == "finer" and Method.STEERING.value in report["absent_arms"]


@pytest.mark.slow
def test_the_steer_tab_says_why_and_inspecting_works(services):
    catalogue = Catalogue([services])
    with gr.Blocks(analytics_enabled=False):
        hub = Hub(catalogue, layout(catalogue), TABS)
    tab = hub.page.parts["steer"]
    assert "without a language model" in tab.answers.value and tab.start.interactive is False
    updates = steer.steerable(hub, services, tab)
    assert updates[tab.start].interactive is False and "cannot answer" in updates[tab.answers]
    feature = int(services.store.feature_ids[0])
    setup = SteerSetup(rows=(SteerRow(feature=feature, strength=3.0),), prompt="what?")
    for asked in (lambda: answers(services, "me", setup), lambda: answers_without(services, "me", "", feature)):
        with pytest.raises(SubjectError, match="without a language model"):
            asked()
    image_id = services.store.exemplars(feature)[0].image_id
    found = [one for one in inspect(services, "me", image_id) if isinstance(one, Inspection)]
    assert found[0].live and found[0].n_firing > 0
    services.worker.warm().join()
    assert services.worker.ready and services.worker.failure is None


@pytest.mark.slow
def test_a_larger_model_around_the_same_tower_explains_by_every_arm(tmp_path):
    """Training and harvest are those of the small model; only explain and what follows is computed anew."""
    first = planted_run(n_stages=3)
    out = tmp_path / "out"  # a copy: other tests compare all that lies in the shared one
    shutil.copytree(first["explain"].folder.parents[1], out)
    sibling = save_other_size(tmp_path / "sibling", planted_subject())
    recipe = planted_recipe(planted_subject(), explainer={"path": str(sibling)})
    second = run_recipe(recipe, out, RUNTIME, SilentProgress(), load_stages()[:3])
    assert second["harvest"].fingerprint == first["harvest"].fingerprint
    tables = [one["explain"].table("explanations").to_pylist() for one in (first, second)]
    keys = [[(row["feature"], row["arm"]) for row in table] for table in tables]
    assert keys[0] == keys[1] and {arm for _, arm in keys[1]} == {arm.key for arm in ARMS}
    assert [row["raw_text"] for row in tables[0]] != [row["raw_text"] for row in tables[1]]
    assert "absent_arms" not in second["explain"].manifest.notes
