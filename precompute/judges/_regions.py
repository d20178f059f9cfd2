"""What text-prompted segmenters share: prompts of a text, pixels of the chosen regions, remembered embeddings."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Literal, TypeVar

import numpy as np
from jaxtyping import Bool

from backend.errors import UnparsableExplanation
from precompute.judges._noun_phrases import noun_phrases

MaskChoice = Literal["union", "first"]
CACHED_IMAGES = 32
"""Images whose embedding is kept: more than one feature is scored on, far less than a GPU holds (SAM 2 large and
Grounding DINO take about 40 MB an image, SAM 3 about 110 MB)."""

Embedding = TypeVar("Embedding")
Item = TypeVar("Item")


def prompts_of(text: str, choice: MaskChoice) -> tuple[str, ...]:
    """What is looked for: every noun phrase (``union``), or the whole sentence as the paper does (``first``).

    Raises UnparsableExplanation if the text names nothing.
    """
    found = noun_phrases(text) if choice == "union" else (text.strip().lower().rstrip(" ."),)
    if not any(any(letter.isalnum() for letter in prompt) for prompt in found):
        raise UnparsableExplanation(f"no noun phrase in {text!r}")
    return found


def read_prompts(text: str, choice: MaskChoice) -> tuple[str, ...]:
    """As :func:`prompts_of`, and () for a text that names nothing."""
    try:
        return prompts_of(text, choice)
    except UnparsableExplanation:
        return ()


def chosen_region(
    masks: Sequence[Bool[np.ndarray, "h w"]] | Bool[np.ndarray, "mask h w"], choice: MaskChoice, height: int, width: int
) -> Bool[np.ndarray, "h w"]:
    """The pixels of all masks, or of the first one; nothing found is an empty mask."""
    region = np.zeros((height, width), dtype=bool)
    for mask in masks if choice == "union" else masks[:1]:
        region |= mask
    return region


class EmbeddingCache(Generic[Embedding]):
    """The latest embeddings, by image id.

    Each image is embedded alone: in a batch its numbers would depend, in the last digit, on which images happened to
    be missing, and with them the bytes of a shard on what this process computed before.
    """

    def __init__(self, n_images: int = CACHED_IMAGES) -> None:
        self._n_images = n_images
        self._kept: OrderedDict[str, Embedding] = OrderedDict()

    def get(self, image_id: str, embed: Callable[[], Embedding]) -> Embedding:
        """What is kept for ``image_id``, else what ``embed`` computes now."""
        if image_id in self._kept:
            self._kept.move_to_end(image_id)
            return self._kept[image_id]
        embedding = embed()
        self._kept[image_id] = embedding
        while len(self._kept) > self._n_images:
            self._kept.popitem(last=False)
        return embedding


def places_by_shape(items: Sequence[Item], shape: Callable[[Item], Hashable]) -> list[list[int]]:
    """Places of items of equal shape: what is stacked of them needs no padding."""
    groups: dict[Hashable, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(shape(item), []).append(place)
    return list(groups.values())
