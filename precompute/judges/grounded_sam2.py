"""Grounding DINO finds boxes for words, SAM 2 draws a mask in each: the paper's segmenter, grouped by image.

Source: arXiv 2603.22593, section 4, whose code runs one sentence on one image at a time and keeps the first mask. Here
an image's backbone features and embedding are computed once, however many texts ask about it, and by default the
region is the union over the noun phrases of the text (decision 014). Both models compute in float32, because a
threshold follows: rounding would move masks.

Models: Grounding DINO as transformers has it (arXiv 2303.05499); SAM 2 from the ``sam2`` package (arXiv 2408.00714).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn

from backend.artifacts import fingerprint
from backend.batching import in_batches
from backend.weights import files_fingerprint
from precompute.judges._regions import (
    CACHED_IMAGES,
    EmbeddingCache,
    MaskChoice,
    chosen_region,
    places_by_shape,
    prompts_of,
    read_prompts,
)
from precompute.judges._sam2_checkpoint import SAM2_PATTERNS, load_sam2, needed_sam2, sam2_predictor
from precompute.judges.base import JudgeKind, NeededWeights, n_longer

if TYPE_CHECKING:
    from pathlib import Path

    from precompute.recipe import JudgesSection, Runtime

BOXES = "IDEA-Research/grounding-dino-base"
MASKS = "facebook/sam2.1-hiera-large"
BOX_PATTERNS = ("*.json", "*.txt", "*.safetensors")
VERSION = 1
"""Bumped when the way from models to masks changes."""


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What Grounding DINO's backbone computes of one image, which no text enters."""

    maps: list[tuple[Tensor, Tensor]]
    """Per level a feature map [1 channel row col] and its mask of valid places [1 row col]."""
    positions: list[Tensor]
    """Position embeddings [1 d_model row col] of the same levels."""
    height: int
    width: int
    """Size of the resized image, in pixels."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width


class RememberedBackbone(nn.Module):
    """Stands where the backbone stood; gives back features that were computed before, if there are any."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.position_embedding: Any = backbone.position_embedding
        self.given: list[ImageFeatures] = []

    def forward(self, pixels: Tensor, pixel_mask: Tensor) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        if not self.given:
            return self.backbone(pixels, pixel_mask)
        levels = range(len(self.given[0].maps))
        maps = [
            (
                torch.cat([one.maps[level][0] for one in self.given]),
                torch.cat([one.maps[level][1] for one in self.given]),
            )
            for level in levels
        ]
        # A new list on every call: the model appends the level it computes itself.
        return maps, [torch.cat([one.positions[level] for one in self.given]) for level in levels]


def sentence_of(phrases: Sequence[str]) -> str:
    """What the detector reads: phrases that end with a full stop do not see one another's words."""
    return ". ".join(phrases) + "."


class BoxFinder:
    """Grounding DINO: boxes for phrases."""

    def __init__(
        self, folder: Path, *, threshold: float, device: str, images_per_batch: int, cached_images: int
    ) -> None:
        from transformers import AutoProcessor, GroundingDinoForObjectDetection

        self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model: Any = GroundingDinoForObjectDetection.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, use_safetensors=True
        )
        model.model.backbone = RememberedBackbone(model.model.backbone)
        self._model = model.to(device).eval()
        self._threshold = threshold
        self._images_per_batch = images_per_batch
        self._features: EmbeddingCache[ImageFeatures] = EmbeddingCache(cached_images)

    def find(
        self, image_ids: Sequence[str], images: Sequence[Image.Image], phrases: Sequence[str]
    ) -> list[Float[np.ndarray, "box 4"]]:
        """Boxes of each image with a score above the threshold, (left, top, right, bottom) in its pixels.

        In the order of the model's queries, as the paper's code keeps them. A phrase's words and no others see one
        another, because phrases end with a full stop. The detector's second threshold of the paper, for naming a box,
        has no part: it names boxes and drops none.
        """
        features = [
            self._features.get(image_id, lambda image=image: self._embed(image))
            for image_id, image in zip(image_ids, images, strict=True)
        ]
        prompt = sentence_of(phrases)
        boxes: list[np.ndarray] = [np.zeros((0, 4))] * len(images)
        sizes = [(image.height, image.width) for image in images]
        for places in places_by_shape(features, lambda one: one.shape):

            def detect(part: slice, places: Sequence[int] = places) -> list[np.ndarray]:
                chosen = places[part]
                return self._detect([features[place] for place in chosen], prompt, [sizes[place] for place in chosen])

            parts = in_batches("detected images", len(places), self._images_per_batch, detect)
            for place, one in zip(places, itertools.chain.from_iterable(parts), strict=True):
                boxes[place] = one
        return boxes

    @torch.no_grad()
    def _embed(self, image: Image.Image) -> ImageFeatures:
        inputs = self._processor.image_processor(images=[image], return_tensors="pt").to(self._model.device)
        pixels = inputs["pixel_values"]
        maps, positions = self._model.model.backbone(pixels, inputs["pixel_mask"])
        return ImageFeatures(list(maps), list(positions), pixels.shape[-2], pixels.shape[-1])

    @torch.no_grad()
    def _detect(
        self, features: list[ImageFeatures], prompt: str, sizes: list[tuple[int, int]]
    ) -> list[Float[np.ndarray, "box 4"]]:
        limit = self._model.config.max_text_len
        words = self._processor.tokenizer([prompt] * len(features), truncation=True, max_length=limit)
        words = words.convert_to_tensors("pt").to(self._model.device)
        height, width = features[0].shape
        # The model reads of the pixels only their shape and device once the backbone's features are given.
        pixels = torch.zeros(1, 1, 1, 1, device=self._model.device).expand(len(features), 3, height, width)
        backbone = self._model.model.backbone
        backbone.given = features
        try:
            outputs = self._model(pixel_values=pixels, **words)
        finally:
            backbone.given = []
        found = self._processor.post_process_grounded_object_detection(
            outputs, words["input_ids"], threshold=self._threshold, text_threshold=self._threshold, target_sizes=sizes
        )
        return [one["boxes"].cpu().double().numpy() for one in found]


class MaskDrawer:
    """SAM 2: one mask in each box."""

    def __init__(self, folder: Path, *, device: str, cached_images: int) -> None:
        self._predictor: Any = sam2_predictor(load_sam2(folder, device))
        self._embeddings: EmbeddingCache[tuple[Any, Any]] = EmbeddingCache(cached_images)

    def draw(
        self, image_id: str, image: Image.Image, boxes: Float[np.ndarray, "box 4"]
    ) -> Bool[np.ndarray, "box height width"]:
        """Masks at the image's resolution, in the order of the boxes."""
        if not len(boxes):
            return np.zeros((0, image.height, image.width), dtype=bool)
        predictor = self._predictor
        # The predictor keeps one image; its two attributes are all that setting an image leaves behind.
        predictor._features, predictor._orig_hw = self._embeddings.get(image_id, lambda: self._embed(image))
        predictor._is_image_set, predictor._is_batch = True, False
        masks, _, _ = predictor.predict(box=boxes, multimask_output=False)
        return masks.reshape(len(boxes), image.height, image.width).astype(bool)

    def _embed(self, image: Image.Image) -> tuple[Any, Any]:
        self._predictor.set_image(image.convert("RGB"))
        return self._predictor._features, self._predictor._orig_hw


class GroundedSam2:
    """A Segmenter. Models are loaded at the first text."""

    def __init__(
        self,
        boxes: Path,
        masks: Path,
        *,
        mask_choice: MaskChoice = "union",
        box_threshold: float = 0.3,
        device: str = "cpu",
        images_per_batch: int = 8,
        cached_images: int = CACHED_IMAGES,
    ) -> None:
        self._folders = (boxes, masks)
        self._mask_choice: MaskChoice = mask_choice
        self._box_threshold = box_threshold
        self._device = device
        self._images_per_batch = images_per_batch
        self._cached_images = cached_images

    @property
    def fingerprint(self) -> str:
        """Of weights and settings; not of places, device or batch size."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        boxes, masks = self._folders
        return fingerprint(
            {
                "judge": f"grounded_sam2 {VERSION}",
                "boxes": files_fingerprint(boxes, BOX_PATTERNS),
                "masks": files_fingerprint(masks, SAM2_PATTERNS),
                "mask_choice": self._mask_choice,
                "box_threshold": self._box_threshold,
            }
        )

    @cached_property
    def finder(self) -> BoxFinder:
        return BoxFinder(
            self._folders[0],
            threshold=self._box_threshold,
            device=self._device,
            images_per_batch=self._images_per_batch,
            cached_images=self._cached_images,
        )

    @cached_property
    def drawer(self) -> MaskDrawer:
        return MaskDrawer(self._folders[1], device=self._device, cached_images=self._cached_images)

    def cut_texts(self, texts: Sequence[str]) -> dict[str, int]:
        """See :class:`precompute.judges.base.CutsTexts`."""
        from transformers import AutoConfig, AutoTokenizer

        limit = int(AutoConfig.from_pretrained(self._folders[0], local_files_only=True).max_text_len)
        tokenizer: Any = AutoTokenizer.from_pretrained(self._folders[0], local_files_only=True)
        read = [sentence_of(read_prompts(text, self._mask_choice)) for text in texts]
        return {f"segmenter's text encoder ({limit} tokens)": n_longer(tokenizer, read, limit)}

    def segment(
        self, image_ids: Sequence[str], images: Sequence[Image.Image], text: str
    ) -> list[Bool[np.ndarray, "h w"]]:
        phrases = prompts_of(text, self._mask_choice)
        pictures = [image.convert("RGB") for image in images]
        boxes = self.finder.find(image_ids, pictures, phrases)
        return [
            chosen_region(
                self.drawer.draw(image_id, image, found if self._mask_choice == "union" else found[:1]),
                self._mask_choice,
                image.height,
                image.width,
            )
            for image_id, image, found in zip(image_ids, pictures, boxes, strict=True)
        ]


def _weights(section: JudgesSection) -> tuple[NeededWeights, ...]:
    return (
        NeededWeights(
            part="segmenter: boxes",
            model=section.boxes or BOXES,
            needed=("config.json", "*.safetensors", "*processor_config.json", "tokenizer.json|vocab.txt"),
            patterns=BOX_PATTERNS,
        ),
        needed_sam2("segmenter: masks", section.masks or MASKS),
    )


def _open(section: JudgesSection, runtime: Runtime) -> GroundedSam2:
    from precompute.subject import device_of

    boxes, masks = (one.folder() for one in _weights(section))
    return GroundedSam2(
        boxes,
        masks,
        mask_choice=section.mask_choice,
        box_threshold=section.box_threshold,
        device=device_of(runtime),
        images_per_batch=min(runtime.images_per_batch, 8),
    )


JUDGE = JudgeKind(role="segmenter", packages=("sam2",), weights=_weights, open=_open)
