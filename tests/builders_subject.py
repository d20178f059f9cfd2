"""A shrunken, random Gemma 3 checkpoint on disk: the true classes, no download, a few hundred kilobytes.

Its answers mean nothing, but they depend on every image token, so a steered residual changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from backend.models import load_subject
from backend.models.gemma3 import Gemma3Subject
from backend.sae import SAEConfig, TopKSAE
from backend.types import HookPoint

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
WORDS = (
    "user model what is shown in the image images highlighted element of a an . , : ? describe all these nothing red "
    "green blue crab penguin beach snow grass sky stripes dots near far circle square dog cat boat house tree car"
).split()

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


def build_tokenizer(words: tuple[str, ...] | list[str] = tuple(WORDS)) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with Gemma 3's special tokens, ids in the order of SPECIAL_TOKENS and then ``words``."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *dict.fromkeys(words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
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


def save_tiny_subject(folder: Path, *, seed: int = 0, sliding_window: int = 512, patch_px: int = 8) -> Path:
    """Build a random subject (32 px images, width 32, 3 vision blocks) and save it to ``folder``.

    It reads 4x4 patches of 8 px; with ``patch_px`` 2 it reads 16x16, as the planted atlas does.
    """
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer)
    config = build_config(tokenizer, sliding_window=sliding_window, patch_px=patch_px)
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "patch_embedding" not in name:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
        # Tied to the input embedding: kept small, so that the answer follows the images and not the last word.
        model.lm_head.weight.normal_(std=0.05)
        model.lm_head.weight[: len(SPECIAL_TOKENS)] *= 0.3
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def load_tiny_subject(folder: Path, *, layer: int = 1, seed: int = 0, sliding_window: int = 512) -> Gemma3Subject:
    """Save a tiny subject to ``folder`` and load it, cut after block ``layer`` of 3."""
    save_tiny_subject(folder, seed=seed, sliding_window=sliding_window)
    subject = load_subject(folder, HookPoint(layer=layer))
    assert isinstance(subject, Gemma3Subject)
    return subject


def random_sae(*, d_model: int = 32, d_sae: int = 64, k: int = 6, seed: int = 0, layer: int | None = None) -> TopKSAE:
    """An untrained TopK SAE with a tied encoder; its features fire, though they mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, d_model, generator=generator), dim=1)
    return TopKSAE(
        SAEConfig(d_model=d_model, d_sae=d_sae, k=k, hook_point=None if layer is None else HookPoint(layer=layer)),
        W_enc=decoder.T,
        b_enc=0.1 * torch.randn(d_sae, generator=generator),
        W_dec=decoder,
        b_dec=0.1 * torch.randn(d_model, generator=generator),
    )


def noise_images(n: int, *, seed: int = 0, side_px: int = 32) -> list[Image.Image]:
    """Pictures of coloured noise, all different."""
    generator = np.random.default_rng(seed)
    shape = (n, side_px, side_px, 3)
    return [Image.fromarray(pixels) for pixels in generator.integers(0, 256, shape, dtype=np.uint8)]


def reference_ids(subject: Any, images: Sequence[Image.Image], prompt: str, *, max_new_tokens: int) -> list[int]:
    """New token ids from the untouched transformers model: its own chat template, pixels and generate, greedy."""
    content: list[dict[str, object]] = [{"type": "image", "image": image} for image in images]
    content.append({"type": "text", "text": prompt})
    inputs = subject.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    model: Any = subject.model
    output = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return output[0, inputs["input_ids"].shape[1] :].tolist()
