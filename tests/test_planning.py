"""Plans: sizes agree with published figures, counts follow the recipe, and what is missing is said at once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from backend.errors import RecipeError, SubjectError
from backend.model_shapes import KNOWN, shape_of
from backend.models import load_subject, locate
from precompute.cli import main
from precompute.planning import make_plan, missing_parts
from precompute.planning.estimate import stage_costs
from precompute.planning.roofline import DEVICES, unit_costs
from precompute.planning.unit_costs import UnitCosts
from precompute.planning.workload import SplitSizes, Workload, workload
from precompute.recipe import Recipe, Runtime, load_recipe, recipe_names
from precompute.shrunken import qwen2_5_vl
from precompute.stage import STAGE_NAMES
from tests.builders_families import MIDDLE

GEMMA = KNOWN["google/gemma-3-27b-it"]
ONE_OF_EACH = UnitCosts(**{field.name: 1.0 for field in dataclasses.fields(UnitCosts)})
SIZES = SplitSizes(train=5000, explain=1500, select=400, score=1000)


def world() -> Recipe:
    return load_recipe("world")


def work_of(recipe: Recipe, n_concepts: int | None = 100, sizes: SplitSizes = SIZES) -> Workload:
    return workload(recipe, sizes, patches_per_image=256, n_concepts=n_concepts, held_out=250)


def test_the_tower_of_gemma_3_takes_the_published_operations() -> None:
    tower = GEMMA.tower
    assert tower.flop(27) == pytest.approx(5.46e12, rel=0.01)
    assert tower.flop(17) == pytest.approx(3.44e12, rel=0.01)
    assert KNOWN["OpenGVLab/InternVL3-14B-hf"].tower.flop(24) == pytest.approx(0.72e12, rel=0.02)


@pytest.mark.parametrize(
    ("name", "n_weights", "cache_bytes"),
    [
        ("google/gemma-3-4b-it", 3.9e9, 139e3),
        ("google/gemma-3-12b-it", 11.8e9, 393e3),
        ("google/gemma-3-27b-it", 27.0e9, 508e3),
        ("OpenGVLab/InternVL3-14B-hf", 14.0e9, 197e3),
    ],
)
def test_language_models_have_their_published_sizes(name: str, n_weights: float, cache_bytes: float) -> None:
    language = KNOWN[name].language
    assert language is not None
    assert language.n_weights == pytest.approx(n_weights, rel=0.03)
    assert language.cache_bytes_per_token == pytest.approx(cache_bytes, rel=0.01)


def test_a_shape_is_read_from_the_models_own_description() -> None:
    folder = Path("assets/world/subject")
    shape = shape_of("mine", folder)
    assert (shape.n_patches, shape.image_tokens, shape.tower.width, shape.tower.n_blocks) == (256, 16, 128, 6)
    assert shape.language is not None
    assert (shape.language.n_layers, shape.language.head_width, shape.language.vocabulary) == (4, 32, 285)


def test_what_a_description_leaves_out_is_what_its_class_takes(tmp_path: Path) -> None:
    """The released config.json of Gemma 3 4B does not name its heads, nor its vocabulary."""
    text = {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34}
    vision = {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "num_hidden_layers": 27}
    vision |= {"model_type": "siglip_vision_model", "num_attention_heads": 16, "patch_size": 14}
    described = {"model_type": "gemma3", "mm_tokens_per_image": 256, "text_config": text, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    assert shape_of("mine", tmp_path) == KNOWN["google/gemma-3-4b-it"]


QWEN_7B = {
    "model_type": "qwen2_5_vl",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
        "spatial_merge_size": 2,
    },
}


def test_a_model_that_reads_any_size_has_that_of_the_square_its_adapter_makes(tmp_path: Path) -> None:
    """The released config.json of Qwen2.5-VL names no image size."""
    (tmp_path / "config.json").write_text(json.dumps(QWEN_7B), encoding="utf-8")
    shape = shape_of("mine", tmp_path)
    assert (shape.n_patches, shape.tower.n_tokens, shape.image_tokens) == (1024, 1024, 256)
    with torch.device("meta"):
        made: Any = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(tmp_path))
    assert shape.tower.n_weights == pytest.approx(n_weights(made.model.visual.blocks), rel=0.005)
    assert shape.language is not None
    known = shape.language.n_layer_weights + shape.language.n_table_weights
    assert known == pytest.approx(n_weights(made.model.language_model) + n_weights(made.lm_head), rel=0.001)


def n_weights(part: torch.nn.Module) -> int:
    return sum(one.numel() for one in part.parameters())


@pytest.mark.parametrize("patch_px", [4, 8])
def test_the_processors_range_of_pixels_decides_how_large_that_square_is(patch_px: int, tmp_path: Path) -> None:
    shape, subject = shape_of("mine", qwen2_5_vl.build(tmp_path, patch_px=patch_px)), load_subject(tmp_path, MIDDLE)
    assert shape.n_patches == subject.grid.n_patches
    assert shape.image_tokens == subject.n_image_tokens
    assert shape.tower.width == subject.d_model


def test_an_unknown_model_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match=r"hf download some/model config.json"):
        shape_of("some/model", None)
    (tmp_path / "config.json").write_text('{"vision_config": {"hidden_size": 8}}', encoding="utf-8")
    with pytest.raises(SubjectError, match="does not tell its sizes"):
        shape_of("mine", tmp_path)


def test_counts_follow_the_recipe() -> None:
    work = work_of(world())
    assert work.train_images == 4750  # all fit into the buffer, so each is encoded once
    assert work.train_steps == 5_000_000 // 4096
    assert work.harvest_images == 2900
    assert work.selection_rows_blank == 100 * 4
    assert work.selection_rows_shown == 100 * 2 * 3
    assert work.blank_rows == work.n_alive * (4 + 2)
    assert work.shown_rows == work.n_alive * 4
    assert (work.truth_images, work.truth_features) == (1000, 1024)


def test_a_buffer_too_small_for_all_images_means_to_encode_every_token() -> None:
    recipe = world()
    small = dataclasses.replace(recipe, sae=dataclasses.replace(recipe.sae, buffer_tokens=100_000))
    assert work_of(small).train_images == -(-5_000_000 // 256)


def test_a_buffer_that_is_filled_ahead_takes_its_memory_twice() -> None:
    def host_bytes(buffer_tokens: int, *, prefetch: bool) -> float:
        recipe = dataclasses.replace(world(), sae=dataclasses.replace(world().sae, buffer_tokens=buffer_tokens))
        return stage_costs(recipe, work_of(recipe), ONE_OF_EACH, GEMMA, GEMMA, 64, prefetch=prefetch)[0].host_bytes

    one_buffer = 2 * 100_000 * GEMMA.tower.width
    assert host_bytes(100_000, prefetch=True) - host_bytes(100_000, prefetch=False) == one_buffer
    # What holds all tokens is filled once.
    assert host_bytes(10**9, prefetch=True) == host_bytes(10**9, prefetch=False)


def test_free_text_means_texts_of_their_own_and_no_truth() -> None:
    work = work_of(world(), n_concepts=None)
    assert work.n_texts > 6 * work.n_alive
    assert (work.truth_images, work.truth_features) == (0, 0)


@given(factor=st.integers(1, 50))
def test_more_images_never_cost_less(factor: int) -> None:
    more = SplitSizes(train=5000 * factor, explain=1500 * factor, select=400, score=1000)
    recipe = world()
    few, many = (
        stage_costs(recipe, work_of(recipe, sizes=sizes), ONE_OF_EACH, GEMMA, GEMMA, 64) for sizes in (SIZES, more)
    )
    assert [one.stage for one in few] == list(STAGE_NAMES)
    for less, grown in zip(few, many, strict=True):
        assert grown.seconds >= less.seconds
        assert grown.disk_bytes >= less.disk_bytes


def test_files_are_planned_as_large_as_a_run_of_the_world_left_them() -> None:
    """1.05 MB of SAE, 15.6 MB of exemplars and 5.9 MB of pooled activations, of 1,024 features that fire."""
    shape = shape_of("world", Path("assets/world/subject"))
    stages = stage_costs(world(), work_of(world()), ONE_OF_EACH, shape, shape, 64)
    disk = {one.stage: one.disk_bytes for one in stages}
    assert disk["train_sae"] == pytest.approx(1.05e6, rel=0.02)
    assert disk["harvest"] == pytest.approx(15.6e6 + 5.9e6, rel=0.1)


def test_judges_of_the_paper_need_their_weights_and_t5_can_be_left_out() -> None:
    recipe = load_recipe("gemma3-4b-mid")
    without = dataclasses.replace(recipe, judges=dataclasses.replace(recipe.judges, generator_t5=False))
    needed = [
        stage_costs(one, work_of(one), ONE_OF_EACH, GEMMA, GEMMA, 64)[3].accelerator_bytes
        for one in (recipe, without, world())
    ]
    assert recipe.judges.generator_t5 and needed[0] - needed[1] == pytest.approx(9.5e9)
    assert 10e9 < needed[1] - needed[2] < 11e9


def test_a_faster_device_takes_less_of_everything() -> None:
    recipe = world()
    costs = {
        name: dataclasses.astuple(unit_costs(recipe, device, GEMMA, GEMMA, layer=16, rows=64))
        for name, device in DEVICES.items()
    }
    assert all(fast <= slow for fast, slow in zip(costs["h100"], costs["rtx4090"], strict=True))
    assert costs["h200"] <= costs["h100"]


def test_a_plan_for_another_machine_needs_no_model() -> None:
    recipe = world()
    elsewhere = dataclasses.replace(
        recipe, subject=dataclasses.replace(recipe.subject, path=None, repository="google/gemma-3-4b-it")
    )
    plan = make_plan(elsewhere, "auto", Runtime())
    assert (plan.device, plan.measured) == ("h100", False)
    assert any("google/gemma-3-4b-it" in one and "licence" in one for one in plan.missing)
    assert 600 < plan.seconds < 6 * 3600
    with pytest.raises(RecipeError, match="cannot be measured here"):
        make_plan(elsewhere, "here", Runtime())
    with pytest.raises(RecipeError, match="no device 'abacus'"):
        make_plan(elsewhere, "abacus", Runtime())


def test_shrunken_models_are_built_before_they_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its folder the rehearsal of InternVL would be planned at the true size of the repository it names."""
    monkeypatch.setenv("ICONOSCOPE_CACHE", str(tmp_path))
    recipe = load_recipe("shrunken-internvl3")
    judges = dataclasses.replace(recipe.judges, **dict.fromkeys(("boxes", "masks", "generator_model"), "nowhere"))
    plan = make_plan(dataclasses.replace(recipe, judges=judges), "h100", Runtime())
    assert (tmp_path / "shrunken" / "internvl" / "config.json").is_file()
    assert plan.accelerator_bytes < KNOWN["OpenGVLab/InternVL3-14B-hf"].weight_bytes


def test_nothing_is_missing_for_the_world() -> None:
    assert missing_parts(world()) == ()


def test_the_command_prints_what_was_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "world", "--on", "rtx4090", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in printed["stages"]] == list(STAGE_NAMES)
    assert printed["seconds"] == pytest.approx(sum(stage["seconds"] for stage in printed["stages"]))
    assert main(["plan", "world", "--on", "rtx4090"]) == 0
    assert "calculated from its data sheet" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
def test_a_plan_measured_here_accounts_for_every_unit_of_work() -> None:
    recipe = world()
    small = dataclasses.replace(
        recipe,
        sae=dataclasses.replace(recipe.sae, batch_tokens=512, d_sae=64),
        explain=dataclasses.replace(recipe.explain, features_per_shard=4, max_new_tokens=4),
        score=dataclasses.replace(recipe.score, n_bootstrap=20),
    )
    plan = make_plan(small, "here", Runtime(workers=1, images_per_batch=16))
    assert plan.measured
    assert all(stage.seconds > 0 for stage in plan.stages)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_can_be_planned(name: str) -> None:
    plan = make_plan(load_recipe(name), "h100", Runtime())
    assert [stage.stage for stage in plan.stages] == list(STAGE_NAMES)
    assert all(stage.seconds > 0 and stage.accelerator_bytes > 0 for stage in plan.stages)
    told = " ".join(plan.missing)
    section = load_recipe(name)
    for one in (section.subject, section.explainer):
        if one is not None and one.repository and not one.path:
            assert one.repository in told or locate(one.repository).is_dir()
    if section.judges.kind == "world" or name.startswith("shrunken"):
        assert plan.missing == ()
