"""Subjects of true shapes with random weights, built on the device: no files, no download, the true arithmetic.

Tokens are those of a small word-level tokenizer, so prompts are a little shorter than real ones; the images take as
many tokens as in the real model. The floors are what an H100 cannot go below in bfloat16, from counted operations and
bytes at 600 TFLOP/s dense, 400 TFLOP/s in attention and 2.9 TB/s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backend.models._checkpoint import DTYPES, Checkpoint
from backend.models.base import ModelCard, SubjectModel
from backend.models.gemma3 import Gemma3Subject
from backend.types import HookPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes in transformers' names, the paper's hook point and SAE, and the floors."""

    text: dict[str, Any]
    vision: dict[str, Any]
    tokens_per_image: int
    layer: int
    d_sae: int
    k: int
    floor_prefix_ms: float | None = None
    """Vision tower to the hook point, per image."""
    floor_answer_ms: float | None = None
    """One steered answer of 40 tokens about the blank image: rest of the tower, prefill, decoding in batches."""


_SIGLIP: dict[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 896,
    "patch_size": 14,
}
SHAPES = {
    "gemma3-4b": Shape(
        text={
            "vocab_size": 262_208,
            "hidden_size": 2560,
            "intermediate_size": 10_240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
        },
        vision=_SIGLIP,
        tokens_per_image=256,
        layer=16,
        d_sae=8192,
        k=25,
        floor_prefix_ms=6.8,
        floor_answer_ms=11.2,
    ),
    # For trying the scripts where there is no GPU.
    "gemma3-shrunken": Shape(
        text={
            "vocab_size": 128,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
        },
        vision={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        tokens_per_image=4,
        layer=1,
        d_sae=64,
        k=4,
    ),
}


def open_true_shape(name: str, device: str, *, dtype: str = "bfloat16", layer: int | None = None) -> SubjectModel:
    """A random Gemma 3 of the named shape on ``device``, cut at the paper's hook point unless told otherwise.

    Raises ValueError for a name that is not in SHAPES.
    """
    if name not in SHAPES:
        raise ValueError(f"unknown shape {name!r}: choose one of {', '.join(SHAPES)}")
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, GenerationConfig, SiglipVisionConfig

    from precompute.shrunken.gemma3 import SPECIAL_TOKENS, build_processor, build_tokenizer

    shape, tokenizer = SHAPES[name], build_tokenizer()
    special = {token: at for at, token in enumerate(SPECIAL_TOKENS)}
    ids = {"pad_token_id": special["<pad>"], "eos_token_id": special["<eos>"], "bos_token_id": special["<bos>"]}
    config = Gemma3Config(
        text_config={**shape.text, **ids},
        vision_config=SiglipVisionConfig(**shape.vision, vision_use_head=False).to_dict(),
        mm_tokens_per_image=shape.tokens_per_image,
        boi_token_index=special["<start_of_image>"],
        eoi_token_index=special["<end_of_image>"],
        image_token_index=special["<image_soft_token>"],
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[dtype])
    try:
        with torch.device(device):
            model: Any = Gemma3ForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(before)
    # No stop token: random weights would stop at random, and every answer is to have its full length.
    model.generation_config = GenerationConfig(**{**ids, "eos_token_id": None})
    processor = build_processor(tokenizer, image_px=shape.vision["image_size"], tokens_per_image=shape.tokens_per_image)
    card = ModelCard(name=f"{name} (random weights)", family="gemma3", repository_id=None, licence_url=None)
    checkpoint = Checkpoint(model=model, processor=processor, folder=Path(name))
    return Gemma3Subject(checkpoint, card=card, hook_point=HookPoint(layer=shape.layer if layer is None else layer))


def floor_line(name: str, what: str, floor_ms: float | None, seconds: float, n_units: int) -> str:
    """How far a measured time is from the floor; says so where none was worked out."""
    each_ms = 1000 * seconds / n_units
    if floor_ms is None:
        return f"{what}: {each_ms:.2f} ms each; no floor was worked out for {name}"
    return (
        f"{what}: {each_ms:.2f} ms each; floor of an H100 {floor_ms:.1f} ms; {each_ms / floor_ms:.2f} times the floor"
    )
