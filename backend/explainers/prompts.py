"""The paper's prompts, used with real vision-language models unless a recipe brings its own.

The three texts are quoted from the code published with arXiv 2603.22593, word for word, because results depend on
them; the grammar is theirs.
"""

from __future__ import annotations

from backend.types import Arm, Method

STEERING_KEY = "steering"

PAPER_PROMPTS: dict[str, str] = {
    STEERING_KEY: (
        "You are given an image highlighting a visual or semantic element. This element may range from a low-level "
        "visual feature to a high-level abstract concept. Your task is to describe this element in a single, clear "
        "sentence. If the element is a high-level abstract concept, describe it as such; otherwise, describe its "
        "visual patterns. Favor a more general interpretation. Start the highlighted element description with "
        '"The highlighted element in the image is a"'
    ),
    "top_k_masks": (
        "You are given set of images highlighting a visual or semantic element. The patches of the images not showing "
        "the element are masked out, giving the impression of a pixelated image. This element may range from a "
        "low-level visual feature to a high-level abstract concept. Your task is to describe this element in a "
        "single, clear sentence. If the element is a high-level abstract concept, describe it as such; otherwise, "
        "describe its visual patterns. Favor a more general interpretation. Provide a single description for the "
        "highlighted element appearing in all images, and please ignore the pixelated effect of the mask when "
        "describing the element. Start the highlighted element description with "
        '"The highlighted element in the image is a".'
    ),
    "top_k_heatmaps": (
        "You are given set of images highlighting a visual or semantic element. The patches of the images showing the "
        "element are highlighted with a green heatmap. This element may range from a low-level visual feature to a "
        "high-level abstract concept. Your task is to describe this element in a single, clear sentence. If the "
        "element is a high-level abstract concept, describe it as such; otherwise, describe its visual patterns. "
        "Favor a more general interpretation. Provide a single description for the highlighted element appearing in "
        "all images, and please ignore the overlayed green heatmap when describing the element. Start the "
        'highlighted element description with "The highlighted element in the image is a".'
    ),
}

PAPER_ANSWER_PREFIXES: tuple[str, ...] = (
    "The highlighted element in the image is a",
    "The highlighted element in the image is an",
    "The highlighted element in the image is the",
    "The highlighted element in the image is",
    "The highlighted element is a",
    "The highlighted element is an",
    "The highlighted element is the",
    "The highlighted element is",
)
"""What the prompts ask the model to begin with, in the wordings models use; removed from the start of an answer."""


def prompt_key(arm: Arm) -> str:
    """Key of the prompt an arm uses. Controls of STEERING share its prompt; the informed method shares TOP_K's."""
    if arm.method in (Method.TOP_K, Method.STEERING_INFORMED_TOP_K):
        if arm.variant is None:
            raise ValueError(f"{arm.method.value} needs a variant: masks or heatmaps")
        return f"top_k_{arm.variant.value}"
    return STEERING_KEY
