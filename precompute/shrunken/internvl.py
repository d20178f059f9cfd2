"""A shrunken, random InternVL (OpenGVLab/InternVL3-1B-hf and its sisters): the true classes, some hundred kilobytes.

The laid-out files are those of a released ``-hf`` repository, tiling of large images switched on included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

from precompute.shrunken._words import save_answering, word_tokenizer

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<video>",
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Same shape as InternVL's own template: images first, then words, in one user turn."""


def build_internvl_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with InternVL's special tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(SPECIAL_TOKENS),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        extra_special_tokens={
            "start_of_turn_token": "<|im_start|>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_internvl_processor(tokenizer: PreTrainedTokenizerFast) -> InternVLProcessor:
    """InternVL's own processor: images of 32 px, ImageNet's mean and deviation, up to 12 tiles for a large image."""
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(
            size={"height": 32, "width": 32},
            image_mean=IMAGENET_MEAN,
            image_std=IMAGENET_STD,
            crop_to_patches=True,
            max_patches=12,
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size={"height": 32, "width": 32}),
        image_seq_length=4,
        chat_template=CHAT_TEMPLATE,
    )


def build_internvl_config(tokenizer: PreTrainedTokenizerFast) -> InternVLConfig:
    """InternVL's config, small: 4x4 patches of 8 px and CLS, 3 blocks of width 32, 4 tokens for an image."""
    vision = InternVLVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        attention_bias=True,
        layer_scale_init_value=1.0,
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
    )
    return InternVLConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_id=SPECIAL_TOKENS.index("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=True,
    )


def build(folder: Path, *, seed: int = 0) -> Path:
    """Build a random subject (32 px images, width 32, 3 vision blocks) and save it to ``folder``."""
    tokenizer = build_internvl_tokenizer()
    torch.manual_seed(seed)
    model: Any = InternVLForConditionalGeneration(build_internvl_config(tokenizer)).eval()
    processor = build_internvl_processor(tokenizer)
    return save_answering(model, processor, folder, n_special=len(SPECIAL_TOKENS))
