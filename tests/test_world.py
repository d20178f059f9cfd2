"""The world: every pixel has an owner, every caption can be read back, and one factor can be changed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import UnparsableExplanation
from backend.types import Split, TruthOutcome
from precompute.world.captions import NOTHING, caption, visible_concepts
from precompute.world.concepts import CONCEPT_INDEX, CONCEPTS, N_OWNERS, OBJECTS, OUTSIDE
from precompute.world.corpus import CORPUS_SIZES, spec_of
from precompute.world.judges import WorldImageGenerator, WorldTruth
from precompute.world.parser import parse
from precompute.world.render import GRID, PATCH_PX, render
from precompute.world.scenes import (
    CONTEXT_BIAS,
    OBJECT_IDS,
    PAPER,
    Area,
    Placed,
    SceneSpec,
    draw_scene,
    scene,
    studio,
    swapped_object,
    with_background,
    without_object,
)

SEEDS = st.integers(min_value=0, max_value=10_000)


def test_world_has_64_objects_in_eight_families_of_eight() -> None:
    families = [concept.family for concept in OBJECTS]
    assert len(OBJECTS) == 64
    assert {families.count(family) for family in families} == {8}
    assert len({concept.id for concept in CONCEPTS}) == len(CONCEPTS)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_scene_spec_survives_json_and_renders_the_same_pixels(seed: int) -> None:
    spec = draw_scene(np.random.default_rng(seed))
    again = SceneSpec.from_json(spec.to_json())
    assert again == spec
    assert np.array_equal(render(again).pixels, render(spec).pixels)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_every_patch_has_at_most_one_owner_and_masks_agree_with_owners(seed: int) -> None:
    rendered = render(draw_scene(np.random.default_rng(seed)))
    masks, owners = rendered.patch_masks(), rendered.patch_owners()
    assert masks.shape == (len(CONCEPTS), GRID, GRID)
    assert np.array_equal(masks[:N_OWNERS].any(0), owners != OUTSIDE)
    assert masks[:N_OWNERS].sum(0).max() <= 1
    assert np.array_equal(masks[:N_OWNERS].argmax(0)[owners != OUTSIDE], owners[owners != OUTSIDE])


def test_planted_object_owns_its_patches() -> None:
    placed = Placed(object="red_car", top=4 * PATCH_PX, left=6 * PATCH_PX, size=6 * PATCH_PX)
    mask = render(SceneSpec(seed=1, areas=(Area(fill="grass"),), objects=(placed,))).patch_masks()
    car = mask[CONCEPT_INDEX["red_car"]]
    assert car[6:8, 8:10].all()
    assert not car[:4].any() and not car[10:].any() and not car[:, :6].any() and not car[:, 12:].any()
    assert mask[CONCEPT_INDEX["grass"]].sum() + car.sum() == GRID * GRID


def test_one_factor_changes_alone() -> None:
    spec = SceneSpec(seed=5, areas=(Area(fill="sand"),), objects=(Placed(object="crab", top=30, left=30, size=60),))
    base = render(spec)
    outside = np.s_[:30]
    swapped = render(swapped_object(spec, "crab", "cat"))
    assert np.array_equal(base.pixels[outside], swapped.pixels[outside])
    assert (base.pixels != swapped.pixels).any()
    assert not render(without_object(spec, "crab")).patch_masks()[CONCEPT_INDEX["crab"]].any()
    moved = render(with_background(spec, "snow")).patch_masks()
    assert np.array_equal(moved[CONCEPT_INDEX["crab"]], base.patch_masks()[CONCEPT_INDEX["crab"]])
    assert moved[CONCEPT_INDEX["snow"]].any() and not moved[CONCEPT_INDEX["sand"]].any()


@pytest.mark.parametrize(("name", "fill"), CONTEXT_BIAS.items())
def test_contextual_bias_is_planted(name: str, fill: str) -> None:
    rng = np.random.default_rng(0)
    fills = [spec.areas[0].fill for spec in (scene(rng) for _ in range(12000)) if spec.objects[0].object == name]
    assert len(fills) > 100
    assert 0.8 < fills.count(fill) / len(fills) < 0.98


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_captions_are_read_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rendered = render(draw_scene(rng, {"scene": 0.6, "panel": 0.3, "studio": 0.1}))
    text, shown = caption(rng, rendered), set(visible_concepts(rendered))
    if not shown:
        assert text == NOTHING
        return
    read = parse(text)
    assert set(read.concepts) <= shown
    assert len(shown - set(read.concepts)) <= len(read.groups)


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.id)
def test_every_wording_names_its_concept(concept) -> None:
    for wording in concept.phrases:
        assert parse(wording).concepts == (concept.id,)


@pytest.mark.parametrize("text", ["", "nothing", "${7*7}", "<b>lorem</b>", "\u202eabc"])
def test_text_without_a_concept_is_refused(text: str) -> None:
    with pytest.raises(UnparsableExplanation):
        parse(text)


def test_hypernyms_are_partly_right() -> None:
    truth = WorldTruth()
    assert truth.judge("penguin", "a penguin") is TruthOutcome.RIGHT
    assert truth.judge("penguin", "a kind of bird") is TruthOutcome.PARTLY
    assert truth.judge("penguin", "an owl") is TruthOutcome.PARTLY
    assert truth.judge("penguin", "a castle") is TruthOutcome.WRONG
    assert truth.judge("penguin", "gibberish") is TruthOutcome.WRONG
    assert truth.judge("penguin", "a penguin and a cat and a bus") is TruthOutcome.PARTLY


def test_generator_draws_what_is_named_and_nothing_by_default() -> None:
    generator = WorldImageGenerator()
    first = generator.generate("a penguin on snow", 2, seed=0)
    again = generator.generate("a penguin on snow", 2, seed=0)
    assert [np.asarray(a).tobytes() for a in first] == [np.asarray(b).tobytes() for b in again]
    assert np.asarray(first[0]).tobytes() != np.asarray(first[1]).tobytes()
    with pytest.raises(UnparsableExplanation):
        generator.generate("an undecipherable whatsit", 1, seed=0)


def test_splits_are_disjoint() -> None:
    drawn = {spec_of(split, index).to_json() for split in CORPUS_SIZES for index in range(200)}
    assert len(drawn) == 200 * len(CORPUS_SIZES)
    assert Split.TRAIN not in CORPUS_SIZES


def test_studio_shows_only_its_object() -> None:
    rendered = render(studio(np.random.default_rng(3), "castle"))
    assert rendered.spec.areas[0].fill == PAPER
    assert set(np.unique(rendered.owners)) <= {OBJECT_IDS.index("castle"), OUTSIDE}
