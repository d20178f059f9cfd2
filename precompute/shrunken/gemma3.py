"""A shrunken, random Gemma 3 (google/gemma-3-4b-it and its sisters): the true classes, a few hundred kilobytes.

Its answers mean nothing, but they depend on every image token, so a steered residual changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from precompute.shrunken._words import WORDS, save_answering, word_tokenizer

SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""Same shape as Gemma 3's own template: images first, then words, in one user turn."""


def build_tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with Gemma 3's special tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(SPECIAL_TOKENS, words),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
            "start_of_turn_token": "<start_of_turn>",
            "end_of_turn_token": "<end_of_turn>",
        },
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_processor(
    tokenizer: PreTrainedTokenizerFast, *, image_px: int = 32, tokens_per_image: int = 4
) -> Gemma3Processor:
    """Gemma 3's own processor around the tokenizer: resize to image_px, normalise to -1..1."""
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": image_px, "width": image_px}, do_pan_and_scan=False),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
        image_seq_length=tokens_per_image,
    )


def build_config(
    tokenizer: PreTrainedTokenizerFast,
    *,
    image_px: int = 32,
    patch_px: int = 8,
    vision_width: int = 32,
    vision_layers: int = 3,
    text_width: int = 32,
    text_layers: int = 2,
    tokens_per_image: int = 4,
    sliding_window: int = 512,
) -> Gemma3Config:
    """Gemma 3's config, small. One layer in two attends within the sliding window."""
    vision = SiglipVisionConfig(
        hidden_size=vision_width,
        intermediate_size=2 * vision_width,
        num_hidden_layers=vision_layers,
        num_attention_heads=4,
        image_size=image_px,
        patch_size=patch_px,
        vision_use_head=False,
    )
    text = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=text_width,
        intermediate_size=2 * text_width,
        num_hidden_layers=text_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=text_width // 4,
        query_pre_attn_scalar=text_width // 4,
        max_position_embeddings=1024,
        sliding_window=sliding_window,
        layer_types=["sliding_attention" if layer % 2 == 0 else "full_attention" for layer in range(text_layers)],
        pad_token_id=SPECIAL_TOKENS.index("<pad>"),
        eos_token_id=SPECIAL_TOKENS.index("<eos>"),
        bos_token_id=SPECIAL_TOKENS.index("<bos>"),
    )
    return Gemma3Config(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        mm_tokens_per_image=tokens_per_image,
        boi_token_index=SPECIAL_TOKENS.index("<start_of_image>"),
        eoi_token_index=SPECIAL_TOKENS.index("<end_of_image>"),
        image_token_index=SPECIAL_TOKENS.index("<image_soft_token>"),
    )


def build(
    folder: Path,
    *,
    seed: int = 0,
    sliding_window: int = 512,
    patch_px: int = 8,
    words: Sequence[str] = WORDS,
) -> Path:
    """Build a random subject (32 px images, width 32, 3 vision blocks) and save it to ``folder``.

    It reads 4x4 patches of 8 px; with ``patch_px`` 2 it reads 16x16. The fewer ``words`` it knows, the oftener it says
    each of them.
    """
    tokenizer = build_tokenizer(words)
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(
        build_config(tokenizer, sliding_window=sliding_window, patch_px=patch_px)
    ).eval()
    processor = build_processor(tokenizer)
    return save_answering(model, processor, folder, n_special=len(SPECIAL_TOKENS), stops=("<end_of_turn>",))
