"""Segmenters are held to their protocol; the fast ways of the paper-scale ones give what the plain ways give."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from backend.errors import SubjectError, SubjectMissing, UnparsableExplanation
from backend.memory_limits import MemoryLimits, memory_limits
from backend.types import PatchGrid, Split
from backend.voting import UNPARSABLE
from precompute.datasets import open_image_set
from precompute.judges import Segmenter, open_judges
from precompute.judges._regions import EmbeddingCache, places_by_shape
from precompute.judges._sam2_checkpoint import load_sam2
from precompute.metrics import mask_overlap
from precompute.recipe import load_recipe
from precompute.shrunken import sam2 as shrunken_sam2
from precompute.texts import text_masks
from tests.builders_foreign_sae import write_sam2_checkpoint
from tests.builders_judges import RUNTIME, TEXT, folder_of, open_paper, pictures
from tests.source_tree import ROOT

IDS = ("one", "two", "three")
SEGMENTERS = ("grounded_sam2", "sam3")
PAPER = [(name, choice) for name in SEGMENTERS for choice in ("union", "first")]


@dataclass(frozen=True)
class Case:
    """A segmenter, the same one opened anew with batches of one, and pictures that it can read."""

    segmenter: Segmenter
    fresh: Segmenter
    ids: Sequence[str]
    images: Sequence[Image.Image]


def case(name: str, choice: str) -> Case:
    if name != "world":
        one_by_one = replace(RUNTIME, images_per_batch=1)
        opened = [open_paper(runtime, segmenter=name, mask_choice=choice) for runtime in (RUNTIME, one_by_one)]
        return Case(opened[0].segmenter, opened[1].segmenter, IDS, pictures())
    if not (ROOT / "assets" / "world" / "corpus" / "score.parquet").is_file():
        pytest.skip("assets/world is not in this tree")
    recipe = load_recipe("world")
    corpus = open_image_set(recipe, Split.SCORE)
    ids = corpus.ids[:40]  # enough for some of them to show what the texts name
    images = [corpus.load(image_id) for image_id in ids]
    return Case(open_judges(recipe).segmenter, open_judges(recipe).segmenter, ids, images)


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    """Batch sizes of a module's forward passes."""
    seen: list[int] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len([*args, *kwargs.values()][0])), with_kwargs=True
    )
    try:
        yield seen
    finally:
        handle.remove()


# ----------------------------------------------------------------------------------------------------- segmenters


@pytest.mark.parametrize(("name", "choice"), [("world", ""), *PAPER])
def test_segmenter_keeps_its_protocol(name: str, choice: str) -> None:
    given = case(name, choice)
    together = given.segmenter.segment(given.ids, given.images, TEXT)
    for mask, image in zip(together, given.images, strict=True):
        assert mask.shape == (image.height, image.width) and mask.dtype == bool
    assert any(0 < mask.mean() < 1 for mask in together)
    pairs = zip(given.ids, given.images, strict=True)
    alone = [given.fresh.segment([image_id], [image], TEXT)[0] for image_id, image in pairs]
    again = given.segmenter.segment(given.ids, given.images, TEXT)
    for mask, other, repeated in zip(together, alone, again, strict=True):
        assert np.array_equal(mask, repeated)
        assert np.array_equal(mask, other), "images of one call must not influence one another"
    other_words = given.segmenter.segment(given.ids, given.images, "stripes")
    assert any(not np.array_equal(mask, other) for mask, other in zip(together, other_words, strict=True))
    assert list(given.segmenter.segment([], [], TEXT)) == []
    for empty in ("", " ", "?!"):
        with pytest.raises(UnparsableExplanation):
            given.segmenter.segment(given.ids, given.images, empty)


@pytest.mark.parametrize(("name", "choice"), PAPER)
def test_a_text_without_words_has_no_iou(name: str, choice: str) -> None:
    segmenter = open_paper(segmenter=name, mask_choice=choice).segmenter
    score = mask_overlap.score("...", IDS, pictures(), [np.ones((2, 2))] * 3, segmenter)
    assert score.value is None and score.reason == UNPARSABLE


@pytest.mark.parametrize("name", SEGMENTERS)
def test_what_is_found_nowhere_has_an_empty_mask_and_an_iou_of_zero(name: str) -> None:
    segmenter = open_paper(segmenter=name, box_threshold=1.0).segmenter
    assert not any(mask.any() for mask in segmenter.segment(IDS, pictures(), TEXT))
    score = mask_overlap.score(TEXT, IDS, pictures(), [np.ones((2, 2))] * 3, segmenter)
    assert score.value == 0.0 and score.n == 3


def test_a_union_holds_the_first_region_of_the_same_prompt() -> None:
    """Both choices ask for the same words here, so that only the choice of masks differs."""
    whole_of = open_paper(mask_choice="union").segmenter.segment(IDS, pictures(), "crab")
    first_of = open_paper(mask_choice="first").segmenter.segment(IDS, pictures(), "crab")
    for union, first in zip(whole_of, first_of, strict=True):
        assert not (first & ~union).any() and first.sum() < union.sum()


def test_images_of_different_sizes_reach_the_atlas() -> None:
    named: dict[str, Image.Image] = dict(zip(IDS, pictures(), strict=True))
    rows = text_masks(open_paper().segmenter, TEXT, named, PatchGrid(rows=4, cols=4), images_per_batch=2)
    assert [row["image_id"] for row in rows] == list(IDS)


def test_grounded_sam2_equals_the_plain_way() -> None:
    """One sentence on one image at a time, through the libraries' own entry points and no cache."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor
    from transformers import AutoProcessor, GroundingDinoForObjectDetection

    processor: Any = AutoProcessor.from_pretrained(folder_of("grounding_dino"))
    detector: Any = GroundingDinoForObjectDetection.from_pretrained(folder_of("grounding_dino")).eval()
    predictor: Any = SAM2ImagePredictor(load_sam2(folder_of("sam2"), "cpu"))
    predictor._bb_feat_sizes = [(shrunken_sam2.IMAGE_PX // stride,) * 2 for stride in (4, 8, 16)]
    segmenter: Any = open_paper(box_threshold=0.665).segmenter
    segmenter.segment(IDS, pictures(), "something else")  # what is remembered must not matter
    found = segmenter.segment(IDS, pictures(), TEXT)
    n_boxes = 0
    for image, mask in zip(pictures(), found, strict=True):
        inputs = processor(images=image, text="red crab. beach. wheel.", return_tensors="pt")
        with torch.no_grad():
            outputs = detector(**inputs)
        boxes = processor.post_process_grounded_object_detection(
            outputs, inputs.input_ids, threshold=0.665, text_threshold=0.25, target_sizes=[(image.height, image.width)]
        )[0]["boxes"].numpy()
        predictor.set_image(image)
        expected = np.zeros_like(mask)
        for box in boxes:
            expected |= predictor.predict(box=box, multimask_output=False)[0][0].astype(bool)
        n_boxes += len(boxes)
        assert (mask != expected).mean() < 0.002
    assert 3 < n_boxes < 36, "the threshold must keep some boxes and drop some"


def test_sam3_equals_the_plain_way() -> None:
    from transformers import Sam3Model, Sam3Processor

    model: Any = Sam3Model.from_pretrained(folder_of("sam3")).eval()
    processor: Any = Sam3Processor.from_pretrained(folder_of("sam3"))
    found = open_paper(segmenter="sam3").segmenter.segment(IDS, pictures(), TEXT)
    for image, mask in zip(pictures(), found, strict=True):
        expected = np.zeros_like(mask)
        for phrase in ("red crab", "beach", "wheel"):
            inputs = processor(images=image, text=phrase, return_tensors="pt")
            with torch.no_grad():
                outputs = model(**inputs)
            sizes = [(image.height, image.width)]
            instances = processor.post_process_instance_segmentation(outputs, 0.0, 0.5, target_sizes=sizes)[0]["masks"]
            expected |= instances.numpy().astype(bool).any(0)
        assert (mask != expected).mean() < 0.002


def test_an_image_is_embedded_once_however_many_texts_ask() -> None:
    grounded: Any = open_paper(box_threshold=0.2).segmenter
    grounded.finder._features, grounded.drawer._embeddings = EmbeddingCache(), EmbeddingCache()
    backbone = grounded.finder._model.model.backbone.backbone
    with counted(backbone) as seen, counted(grounded.drawer._predictor.model.image_encoder) as drawn:
        for text in (TEXT, "green stripes", "a dog", TEXT):
            grounded.segment(IDS, pictures(), text)
    assert seen == [1, 1, 1] and drawn == [1, 1, 1]
    sam3: Any = open_paper(segmenter="sam3", box_threshold=0.1).segmenter
    with counted(sam3.model.vision_encoder) as seen:
        for text in (TEXT, "green stripes", "a dog", TEXT):
            sam3.segment(IDS, pictures(), text)
    assert seen == [1, 1, 1]


@pytest.mark.parametrize("name", ["grounded_sam2", "sam3"])
def test_an_image_may_come_alone(name: str) -> None:
    image = pictures()[0].resize((128, 128))
    masks = case(name, "union").segmenter.segment(("alone",), [image], "a red crab on a beach")
    assert [mask.shape for mask in masks] == [(128, 128)]


def test_the_latest_embeddings_are_kept() -> None:
    kept: EmbeddingCache[str] = EmbeddingCache(2)
    computed: list[str] = []

    def get(key: str) -> str:
        return kept.get(key, lambda: computed.append(key) or key.upper())

    assert [get(key) for key in "abacab"] == list("ABACAB")
    assert computed == ["a", "b", "c", "b"], "c pushes out b, which was asked for longest ago"


def test_images_of_equal_shape_go_together() -> None:
    assert places_by_shape(["aa", "b", "cc", "dd", "e"], len) == [[0, 2, 3], [1, 4]]


@pytest.mark.parametrize(("name", "module"), [("grounded_sam2", "finder._model"), ("sam3", "model")])
def test_with_little_memory_the_masks_are_the_same(name: str, module: str) -> None:
    segmenter: Any = case(name, "union").segmenter
    images = [pictures()[0]] * 3
    whole = segmenter.segment(("a", "b", "c"), images, "a red crab on a beach")
    model = segmenter
    for part in module.split("."):
        model = getattr(model, part)

    def refuse(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if len([*args, *kwargs.values()][-1]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        with memory_limits(MemoryLimits()) as limits:
            little = segmenter.segment(("a", "b", "c"), images, "a red crab on a beach")
    finally:
        handle.remove()
    assert sum(limits.n_halved.values()) > 0
    for one, other in zip(little, whole, strict=True):
        assert np.mean(one != other) < 0.002


def test_sam2_reads_a_released_checkpoint_and_builds_nothing_foreign(tmp_path: Path) -> None:
    model = load_sam2(folder_of("sam2"), "cpu")
    state = {name: value + 1 for name, value in model.state_dict().items()}
    write_sam2_checkpoint(tmp_path / "sam2.1_hiera_tiny.pt", state)
    with pytest.raises(SubjectError, match="does not hold the weights that its YAML describes"):
        load_sam2(tmp_path, "cpu")  # the package's own YAML by the checkpoint's name: a true-size model
    layout = (folder_of("sam2") / "sam2.1_hiera_t.yaml").read_text(encoding="utf-8")
    (tmp_path / "sam2.1_hiera_t.yaml").write_text(layout, encoding="utf-8")
    loaded = load_sam2(tmp_path, "cpu")
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    for foreign in (
        "os.system",
        "sam2.modeling.backbones.hieradet.logging.os.system",
        "sam2.modeling.sam2_base.F.relu",
    ):
        hostile = layout.replace("sam2.modeling.memory_encoder.Fuser", foreign)
        (tmp_path / "sam2.1_hiera_t.yaml").write_text(hostile, encoding="utf-8")
        with pytest.raises(SubjectError, match=f"would build {re.escape(foreign)};"):
            load_sam2(tmp_path, "cpu")
    (tmp_path / "sam2.1_hiera_t.yaml").unlink()
    (tmp_path / "sam2.1_hiera_tiny.pt").rename(tmp_path / "sam2_mine.pt")
    with pytest.raises(SubjectError, match=r"sam2_mine\.pt is not the name of a released"):
        load_sam2(tmp_path, "cpu")
    (tmp_path / "sam2_mine.pt").unlink()
    with pytest.raises(SubjectMissing, match="no SAM 2 checkpoint"):
        load_sam2(tmp_path, "cpu")
