"""A shrunken, random Qwen2.5-VL (Qwen/Qwen2.5-VL-3B-Instruct and its sisters): the true classes, few hundred kB.

As in a released one, most blocks attend within windows, the processor resizes to any shape within a range of pixels
(here the range is one number), and the language model counts positions in time, height and width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from precompute.shrunken._words import save_answering, word_tokenizer

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
IMAGE_PX = 32

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nyou are a model .<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Same shape as Qwen2.5-VL's own template: a system turn of its own, then images and words in one user turn."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with Qwen2.5-VL's special tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(SPECIAL_TOKENS),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        extra_special_tokens={
            "start_of_turn_token": "<|im_start|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
            "vision_token": "<|vision_pad|>",
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
        },
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_processor(tokenizer: PreTrainedTokenizerFast, *, patch_px: int) -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's own processor; a square image becomes 32 px wide."""
    size = {"shortest_edge": IMAGE_PX**2, "longest_edge": IMAGE_PX**2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(size=size, patch_size=patch_px, merge_size=2, temporal_patch_size=2),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size, patch_size=patch_px, merge_size=2, temporal_patch_size=2),
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tokenizer: PreTrainedTokenizerFast, *, patch_px: int) -> Qwen2_5_VLConfig:
    """Qwen2.5-VL's config, small: 3 blocks of width 32, the last of which attends to the whole image."""
    ids = {token: at for at, token in enumerate(SPECIAL_TOKENS)}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        "pad_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "bos_token_id": None,
    }
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 4,
        "out_hidden_size": 32,
        "patch_size": patch_px,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 16,
        "fullatt_block_indexes": [2],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build(folder: Path, *, seed: int = 0, patch_px: int = 8) -> Path:
    """Build a random subject (32 px images, width 32, 3 vision blocks) and save it to ``folder``.

    It reads 4x4 patches of 8 px in windows of one merged token; with ``patch_px`` 4 it reads 8x8, in four windows of
    2x2 merged tokens, so that the windows too put the tokens into another order.
    """
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model: Any = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer, patch_px=patch_px)).eval()
    processor = build_processor(tokenizer, patch_px=patch_px)
    return save_answering(model, processor, folder, n_special=len(SPECIAL_TOKENS), stops=("<|endoftext|>",))
