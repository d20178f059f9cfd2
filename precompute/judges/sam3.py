"""SAM 3 finds and masks every instance of a concept named in words: an alternative to boxes first, masks second.

Source: arXiv 2511.16719, as transformers has it. One prompt is one noun phrase; the region of a text is the union over
its phrases (``mask_choice = "first"``: the first instance of the whole sentence). The image encoder runs once per
image, the rest once per phrase and image. Computes in float32, because a threshold follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from backend.artifacts import fingerprint
from backend.batching import in_batches
from backend.weights import files_fingerprint
from precompute.judges._regions import (
    CACHED_IMAGES,
    EmbeddingCache,
    MaskChoice,
    chosen_region,
    prompts_of,
    read_prompts,
)
from precompute.judges.base import JudgeKind, NeededWeights, n_longer

if TYPE_CHECKING:
    from pathlib import Path

    from precompute.recipe import JudgesSection, Runtime

MASKS = "facebook/sam3"
PATTERNS = ("*.json", "*.txt", "*.safetensors")
MASK_THRESHOLD = 0.5
"""Probability above which a pixel belongs to an instance, as in the released processor."""
VERSION = 1
"""Bumped when the way from the model to masks changes."""


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """The feature pyramid of one image, which no text enters: maps and positions [1 channel row col] per level."""

    maps: tuple[Tensor, ...]
    positions: tuple[Tensor, ...]


class Sam3:
    """A Segmenter. The model is loaded at the first text."""

    def __init__(
        self,
        folder: Path,
        *,
        mask_choice: MaskChoice = "union",
        box_threshold: float = 0.3,
        device: str = "cpu",
        prompts_per_batch: int = 8,
        cached_images: int = CACHED_IMAGES,
    ) -> None:
        self._folder = folder
        self._mask_choice: MaskChoice = mask_choice
        self._threshold = box_threshold
        self._device = device
        self._prompts_per_batch = prompts_per_batch
        self._features: EmbeddingCache[ImageFeatures] = EmbeddingCache(cached_images)

    @property
    def fingerprint(self) -> str:
        """Of weights and settings; not of places, device or batch size."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(
            {
                "judge": f"sam3 {VERSION}",
                "masks": files_fingerprint(self._folder, PATTERNS),
                "mask_choice": self._mask_choice,
                "box_threshold": self._threshold,
            }
        )

    @cached_property
    def model(self) -> Any:
        from transformers import Sam3Model

        model: Any = Sam3Model.from_pretrained(
            self._folder, local_files_only=True, dtype=torch.float32, use_safetensors=True
        )
        return model.to(self._device).eval()

    @cached_property
    def _processor(self) -> Any:
        from transformers import Sam3Processor

        return Sam3Processor.from_pretrained(self._folder, local_files_only=True)

    def segment(
        self, image_ids: Sequence[str], images: Sequence[Image.Image], text: str
    ) -> list[Bool[np.ndarray, "h w"]]:
        prompts = self._words(prompts_of(text, self._mask_choice))
        return [
            chosen_region(
                self._masks(self._features.get(image_id, lambda image=image: self._embed(image)), prompts, image),
                self._mask_choice,
                image.height,
                image.width,
            )
            for image_id, image in zip(image_ids, images, strict=True)
        ]

    def cut_texts(self, texts: Sequence[str]) -> dict[str, int]:
        """See :class:`precompute.judges.base.CutsTexts`: texts of which at least one prompt is cut."""
        limit = self._n_tokens
        prompts = [read_prompts(text, self._mask_choice) for text in texts]
        cut = sum(n_longer(self._processor.tokenizer, one, limit) > 0 for one in prompts)
        return {f"segmenter's text encoder ({limit} tokens)": cut}

    @cached_property
    def _n_tokens(self) -> int:
        from transformers import Sam3Config

        config: Any = Sam3Config.from_pretrained(self._folder, local_files_only=True)
        return config.text_config.max_position_embeddings

    def _words(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids [prompt token] with their mask; a longer prompt keeps its first words."""
        words = self._processor.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self._n_tokens, return_tensors="pt"
        )
        return {name: words[name].to(self._device) for name in ("input_ids", "attention_mask")}

    @torch.no_grad()
    def _embed(self, image: Image.Image) -> ImageFeatures:
        inputs = self._processor.image_processor(images=[image.convert("RGB")], return_tensors="pt")
        found = self.model.get_vision_features(pixel_values=inputs["pixel_values"].to(self._device))
        return ImageFeatures(tuple(found.fpn_hidden_states), tuple(found.fpn_position_encoding))

    @torch.no_grad()
    def _masks(
        self, features: ImageFeatures, prompts: dict[str, Tensor], image: Image.Image
    ) -> Bool[np.ndarray, "mask h w"]:
        """Masks of every instance of every prompt, prompt by prompt."""
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        def found(part: slice) -> list[np.ndarray]:
            chunk = {name: value[part] for name, value in prompts.items()}
            n = len(chunk["input_ids"])
            given: Any = Sam3VisionEncoderOutput(
                fpn_hidden_states=tuple(one.expand(n, -1, -1, -1) for one in features.maps),
                fpn_position_encoding=tuple(one.expand(n, -1, -1, -1) for one in features.positions),
            )
            outputs = self.model(vision_embeds=given, **chunk)
            instances = self._processor.post_process_instance_segmentation(
                outputs,
                threshold=self._threshold,
                mask_threshold=MASK_THRESHOLD,
                target_sizes=[(image.height, image.width)] * n,
            )
            return [one["masks"].cpu().numpy().astype(bool) for one in instances if len(one["masks"])]

        parts = in_batches("segmenter prompts", len(prompts["input_ids"]), self._prompts_per_batch, found)
        nothing = np.zeros((0, image.height, image.width), dtype=bool)
        return np.concatenate([nothing, *(mask for part in parts for mask in part)])


def _weights(section: JudgesSection) -> tuple[NeededWeights, ...]:
    return (
        NeededWeights(
            part="segmenter: masks",
            model=section.masks or MASKS,
            needed=("config.json", "*.safetensors", "*processor_config.json", "tokenizer.json|vocab.json"),
            patterns=PATTERNS,
        ),
    )


def _open(section: JudgesSection, runtime: Runtime) -> Sam3:
    from precompute.subject import device_of

    (masks,) = _weights(section)
    return Sam3(
        masks.folder(),
        mask_choice=section.mask_choice,
        box_threshold=section.box_threshold,
        device=device_of(runtime),
        prompts_per_batch=min(runtime.images_per_batch, 8),
    )


JUDGE = JudgeKind(role="segmenter", packages=(), weights=_weights, open=_open)
