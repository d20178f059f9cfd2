"""A shrunken, random LLaVA-OneVision (llava-hf/llava-onevision-qwen2-7b-ov-hf and its sisters): the true classes.

The laid-out files are those of a released repository, tiling of a single image switched on included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor

from precompute.shrunken._words import save_answering, word_tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
IMAGE_PX, PATCH_PX = 32, 8
PINPOINTS = [[IMAGE_PX * rows, IMAGE_PX * cols] for rows in (1, 2, 3) for cols in (1, 2, 3)]
"""Sizes in pixels to which a single image may be tiled."""
MEAN_AND_DEVIATION = (0.5, 0.5, 0.5)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for item in message['content'] if item['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for item in message['content'] if item['type'] == 'text' %}{{ '\n' + item['text'] }}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Same shape as LLaVA-OneVision's own template: images first, then words, in one user turn."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with LLaVA-OneVision's special tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(SPECIAL_TOKENS),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        extra_special_tokens={
            "start_of_turn_token": "<|im_start|>",
            "image_token": "<image>",
            "video_token": "<video>",
        },
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionProcessor:
    """LLaVA-OneVision's own processor: tiles of 32 px, -1 to 1."""
    size = {"height": IMAGE_PX, "width": IMAGE_PX}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(
            size=size,
            image_grid_pinpoints=PINPOINTS,
            image_mean=MEAN_AND_DEVIATION,
            image_std=MEAN_AND_DEVIATION,
        ),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(IMAGE_PX // PATCH_PX) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
    """LLaVA-OneVision's config, small: 4x4 patches of 8 px, 3 blocks of width 32, 17 tokens for an image."""
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_PX,
        patch_size=PATCH_PX,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        pad_token_id=SPECIAL_TOKENS.index("<|endoftext|>"),
        eos_token_id=SPECIAL_TOKENS.index("<|im_end|>"),
        tie_word_embeddings=True,
    )
    return LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=SPECIAL_TOKENS.index("<image>"),
        video_token_index=SPECIAL_TOKENS.index("<video>"),
        image_grid_pinpoints=PINPOINTS,
        tie_word_embeddings=True,
    )


def build(folder: Path, *, seed: int = 0) -> Path:
    """Build a random subject (32 px images, width 32, 3 vision blocks) and save it to ``folder``."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model: Any = LlavaOnevisionForConditionalGeneration(build_config(tokenizer)).eval()
    processor = build_processor(tokenizer)
    return save_answering(model, processor, folder, n_special=len(SPECIAL_TOKENS))
