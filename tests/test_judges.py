"""Judges: encoders and generators are held to their protocols, settings and weights to their fingerprints."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend.errors import RecipeError, UnparsableExplanation
from backend.memory_limits import MemoryLimits, memory_limits
from precompute import judges as judges_package
from precompute.judges import Judges, open_judges
from precompute.judges.base import CutsTexts
from precompute.judges.open_clip_encoder import OpenClipEncoder, centre, whole
from precompute.judges.paper import judge_kinds
from precompute.judges.stable_diffusion_3 import StableDiffusion3
from precompute.recipe import load_recipe
from tests.builders_judges import RUNTIME, TEXT, folder_of, judges_recipe, open_paper, pictures
from tests.source_tree import ROOT

IDS = ("one", "two", "three")


@pytest.fixture(scope="module")
def world() -> Judges:
    if not (ROOT / "assets" / "world" / "clip" / "open_clip_model.safetensors").is_file():
        pytest.skip("assets/world is not in this tree")
    return open_judges(load_recipe("world"))


@pytest.fixture(scope="module")
def paper() -> Judges:
    return open_paper()


# -------------------------------------------------------------------------------------------- image-text encoders


@pytest.mark.parametrize("which", ["world", "paper"])
def test_encoder_keeps_its_protocol(which: str, request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue(which).image_text
    images, texts = pictures(5), [TEXT, "", "stripes", "many things " * 200]
    for together, alone in (
        (encoder.encode_images(images), [encoder.encode_images([image]) for image in images]),
        (encoder.encode_texts(texts), [encoder.encode_texts([text]) for text in texts]),
    ):
        assert together.dtype == np.float32 and together.shape[0] == len(alone)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-5)
    assert np.array_equal(encoder.encode_images(images), encoder.encode_images(images))
    width = encoder.encode_texts([TEXT]).shape[1]
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, width)


def test_whole_pictures_keep_their_edges_and_centre_crops_do_not() -> None:
    edge = Image.new("RGB", (80, 40))
    edge.paste((255, 255, 255), (0, 0, 12, 40))
    assert whole(edge, 20).shape == centre(edge, 20).shape == (20, 20, 3)
    assert whole(edge, 20)[5:15, :2].mean() > 200 and whole(edge, 20)[:4].max() == 0
    assert centre(edge, 20).max() == 0
    square = pictures(1)[0].resize((56, 56))
    assert np.array_equal(whole(square, 28), centre(square, 28))
    folder = folder_of("open_clip")
    black = Image.new("RGB", (80, 40))
    encoders = (OpenClipEncoder(folder, crop="whole"), OpenClipEncoder(folder, crop="centre"))
    for encoder, differs in zip(encoders, (True, False), strict=True):
        rows = encoder.encode_images([edge, black])
        assert bool(np.abs(rows[0] - rows[1]).max() > 1e-3) is differs


def test_centre_crops_and_tokens_are_those_of_open_clip() -> None:
    import open_clip

    encoder = OpenClipEncoder(folder_of("open_clip"), crop="centre")
    transform: Any = open_clip.image_transform(28, is_train=False, resize_mode="shortest", interpolation="bicubic")
    expected = torch.stack([transform(image) for image in pictures()])
    torch.testing.assert_close(encoder.pixels(pictures()), expected, atol=1e-5, rtol=0)
    assert torch.equal(encoder.tokens([TEXT]), open_clip.tokenize([TEXT]))


@pytest.mark.parametrize("crop", ["whole", "centre"])
def test_texts_that_clip_cuts_are_counted(crop: Any, world: Judges) -> None:
    encoder = OpenClipEncoder(folder_of("open_clip"), crop=crop)
    full, longer = ("stripes " * n for n in (75, 76))  # beside the marks of beginning and end
    assert encoder.cut_texts(["", TEXT, full]) == {"CLIP score's CLIP (77 tokens)": 0}
    assert encoder.cut_texts([longer, full, "stripes " * 500]) == {"CLIP score's CLIP (77 tokens)": 2}
    assert np.array_equal(encoder.encode_texts([longer]), encoder.encode_texts([full]))
    (counted,) = world.cut_texts(["crab " * 47, "crab " * 48]).items()
    assert counted == ("CLIP score's CLIP (48 tokens)", 1)


def test_texts_that_the_paper_scale_judges_cut_are_counted_and_not_printed(
    paper: Judges, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = ["stripes", "s" * 60, "q w x " * 100]  # most tokenizers of shrunken models have a token for a letter
    assert paper.cut_texts(texts) == {
        "image generator's CLIP (77 tokens)": 2,
        "image generator's T5 (256 tokens)": 1,
        "segmenter's text encoder (48 tokens)": 1,
        "CLIP score's CLIP (77 tokens)": 1,
    }
    paper.generator.generate("stripes", 1, seed=1)  # loads the pipeline
    capfd.readouterr()
    paper.generator.generate(texts[2], 1, seed=1)
    assert capfd.readouterr() == ("", "")
    sam3 = open_paper(mask_choice="first", segmenter="sam3").segmenter
    assert isinstance(sam3, CutsTexts)
    assert sam3.cut_texts(["", "s" * 30, "s" * 31]) == {"segmenter's text encoder (32 tokens)": 1}


# ------------------------------------------------------------------------------------------------------ generators


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("which", ["world", "paper"])
def test_generator_keeps_its_protocol(which: str, request: pytest.FixtureRequest) -> None:
    generator = request.getfixturevalue(which).generator
    text = "a red crab"
    images = generator.generate(text, 3, seed=5)
    assert len(images) == 3 and all(image.mode == "RGB" and image.width == image.height for image in images)
    for image, repeated in zip(images, generator.generate(text, 3, seed=5), strict=True):
        assert np.array_equal(levels(image), levels(repeated)), "equal arguments give equal pixels"
    fewer = generator.generate(text, 1, seed=5)
    assert np.abs(levels(fewer[0]) - levels(images[0])).max() <= 1, "how many are asked for changes none of them"
    assert np.abs(levels(images[0]) - levels(images[1])).mean() > 1
    for other in (generator.generate(text, 1, seed=6), generator.generate("a bicycle", 1, seed=5)):
        assert np.abs(levels(other[0]) - levels(images[0])).mean() > 1
    for empty in ("", " ", "?!"):
        with pytest.raises(UnparsableExplanation):
            generator.generate(empty, 1, seed=5)


def test_batches_do_not_change_an_image(paper: Judges) -> None:
    one_by_one = open_paper(replace(RUNTIME, images_per_batch=1)).generator
    pairs = zip(paper.generator.generate(TEXT, 3, 1), one_by_one.generate(TEXT, 3, 1), strict=True)
    for together, alone in pairs:
        assert np.abs(levels(together) - levels(alone)).max() <= 1, "rounding to a grey level is all that may differ"


def test_with_little_memory_the_images_are_the_same(paper: Judges, monkeypatch: pytest.MonkeyPatch) -> None:
    generator: Any = paper.generator
    whole, draw = generator.generate(TEXT, 3, 1), generator._draw

    def bounded(prompt: str, seeds: Any) -> Any:
        if len(seeds) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return draw(prompt, seeds)

    monkeypatch.setattr(generator, "_draw", bounded)
    said: list[str] = []
    with memory_limits(MemoryLimits(say=said.append)):
        little = generator.generate(TEXT, 3, 1)
    assert said and "generated images at once; going on with 1" in said[0] and "per-batch" not in said[0]
    for one, other in zip(little, whole, strict=True):
        assert np.abs(levels(one) - levels(other)).max() <= 1


def test_the_papers_prompt_steps_and_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Pipeline:
        def __call__(self, **arguments: Any) -> Any:
            asked.append(arguments)
            drawn = [Image.new("RGB", (8, 8))] * arguments["num_images_per_prompt"]
            return type("Drawn", (), {"images": drawn})

    monkeypatch.setattr(StableDiffusion3, "pipeline", Pipeline())
    recipe = judges_recipe(generator_steps=30, image_px=512)
    open_judges(recipe, replace(RUNTIME, images_per_batch=2)).generator.generate("A Dog {text} in {Snow}.", 3, seed=1)
    assert [one["num_images_per_prompt"] for one in asked] == [2, 1]
    assert asked[0]["prompt"] == "A realistic image of a dog {text} in {snow}."
    assert (asked[0]["num_inference_steps"], asked[0]["guidance_scale"]) == (30, 7.5)
    assert (asked[0]["height"], asked[0]["width"]) == (512, 512) and "negative_prompt" not in asked[0]
    seeds = [generator.initial_seed() for one in asked for generator in one["generator"]]
    assert len(set(seeds)) == 3


def test_the_third_text_encoder_can_be_left_out(paper: Judges) -> None:
    without: Any = open_paper(generator_t5=False).generator
    assert without.pipeline.text_encoder_3 is None
    assert without.fingerprint != paper.generator.fingerprint
    assert np.abs(levels(without.generate(TEXT, 1, 1)[0]) - levels(paper.generator.generate(TEXT, 1, 1)[0])).max() > 1


# -------------------------------------------------------------------------------------------------------- registry


def test_every_module_with_a_judge_is_registered() -> None:
    roles = {name: kind.role for name, kind in judge_kinds().items()}
    assert roles == {
        "grounded_sam2": "segmenter",
        "sam3": "segmenter",
        "open_clip_encoder": "image_text",
        "stable_diffusion_3": "generator",
    }


STRANGER = '''
"""Finds the sky: everything."""

import numpy as np

from precompute.judges.base import JudgeKind


class BlueSky:
    fingerprint = "blue sky"

    def segment(self, image_ids, images, text):
        return [np.ones((image.height, image.width), bool) for image in images]


JUDGE = JudgeKind(role="segmenter", packages=(), weights=lambda section: (), open=lambda section, runtime: BlueSky())
'''


def test_a_stranger_adds_a_judge_by_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blue_sky.py").write_text(STRANGER, encoding="utf-8")
    monkeypatch.setattr(judges_package, "__path__", [*judges_package.__path__, str(tmp_path)])
    opened = open_paper(segmenter="blue_sky")
    assert opened.fingerprints["segmenter"] == "blue sky"
    assert all(mask.all() for mask in opened.segmenter.segment(IDS, pictures(), TEXT))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmenter": "oracle"}, r"segmenter = 'oracle' is unknown; choose one of: grounded_sam2, sam3"),
        ({"generator": "sam3"}, r"generator = 'sam3' is unknown; choose one of: stable_diffusion_3"),
        ({"image_text": "siglip"}, r"image_text = 'siglip' is unknown; choose one of: open_clip_encoder"),
    ],
)
def test_an_unknown_judge_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        open_judges(judges_recipe(**changes))


def test_judges_that_remember_pictures_by_id_are_not_lent_to_another_set_of_images() -> None:
    open_paper()
    recipe = judges_recipe()
    assert open_judges(recipe).segmenter is open_judges(recipe).segmenter
    other = replace(recipe, data=replace(recipe.data, path="elsewhere"))
    assert open_judges(other).segmenter is not open_judges(recipe).segmenter


# ---------------------------------------------------------------------------------------------------- fingerprints

SETTINGS = {
    "segmenter": {"mask_choice": "first", "box_threshold": 0.4},
    "image_text": {"clip_crop": "centre"},
    "generator": {
        "generator_steps": 3,
        "generator_guidance": 5.0,
        "generator_prompt": "A drawing of {text}",
        "image_px": 128,
    },
}


def test_settings_change_only_the_fingerprint_of_their_judge(paper: Judges) -> None:
    before = paper.fingerprints
    assert set(before) == {"generator", "segmenter", "image_text"}
    for role, settings in SETTINGS.items():
        for name, value in settings.items():
            after = open_paper(RUNTIME, **{name: value}).fingerprints
            assert {key for key in before if before[key] != after[key]} == {role}, name
    sam3 = open_paper(segmenter="sam3").segmenter.fingerprint
    assert len({sam3, open_paper(segmenter="sam3", mask_choice="first").segmenter.fingerprint}) == 2


def test_weights_change_a_fingerprint_and_places_batches_and_devices_do_not(paper: Judges, tmp_path: Path) -> None:
    places = {"masks": "sam2", "boxes": "grounding_dino", "clip": "open_clip", "generator_model": "stable_diffusion_3"}
    roles = {"masks": "segmenter", "boxes": "segmenter", "clip": "image_text", "generator_model": "generator"}
    for field, kind in places.items():
        moved = shutil.copytree(folder_of(kind), tmp_path / f"moved {kind}")
        other = replace(RUNTIME, images_per_batch=1, device="meta", dtype="bfloat16")
        assert open_paper(other, **{field: str(moved)}).fingerprints == paper.fingerprints
        changed = shutil.copytree(moved, tmp_path / f"changed {kind}")
        weights = sorted(changed.rglob("*.safetensors"))[0]
        bytes_ = bytearray(weights.read_bytes())
        bytes_[-1] ^= 1
        weights.write_bytes(bytes(bytes_))
        after = open_paper(RUNTIME, **{field: str(changed)}).fingerprints
        assert {key for key in after if after[key] != paper.fingerprints[key]} == {roles[field]}, field


def test_the_world_knows_no_setting_of_the_paper(world: Judges) -> None:
    """What the shipped atlas was made with; new fields of [judges] must not reach its science."""
    recipe = load_recipe("world")
    assert dict(open_judges(recipe, RUNTIME).fingerprints) == dict(world.fingerprints)
    assert world.fingerprints["image_text"] == "bba89ea804a824ed91eb968e9b98553859850b23a060b485aebc324bddb15771"
