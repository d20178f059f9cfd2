"""The questions the world's subject is trained on. The first of each kind is the one its recipe asks."""

from __future__ import annotations

DESCRIBE = (
    "describe the image",
    "what is in the image ?",
    "what can you see here ?",
)
HIGHLIGHTED = (
    "name the highlighted element in the image",
    "what is highlighted ?",
    "what is this ?",
)
MASKS = (
    "only some patches of each image are shown . name the element in all images",
    "name the element shown in all images",
)
HEATMAPS = (
    "some patches of each image are under a green heatmap . name the element under it in all images",
    "name the element under the heatmap in all images",
)
ALL_PROMPTS = DESCRIBE + HIGHLIGHTED + MASKS + HEATMAPS
