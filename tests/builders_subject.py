"""Small subjects, SAEs and pictures for tests, and the answers that they are held to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from backend.models import load_subject
from backend.models._decoding import trimmed
from backend.models.gemma3 import Gemma3Subject
from backend.sae import SAEConfig, TopKSAE
from backend.types import HookPoint
from precompute.shrunken.gemma3 import build as save_tiny_subject


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
    inputs = reference_inputs(subject, images, prompt)
    output = subject.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


def said(subject: Any, ids: Sequence[int]) -> str:
    """The text of an answer whose tokens are those of :func:`reference_ids`, up to the one that ends it."""
    return subject.text_of(trimmed(list(ids), subject._stop_ids))


def reference_inputs(subject: Any, images: Sequence[Image.Image], prompt: str) -> dict[str, torch.Tensor]:
    """What the model's own processor makes of one user turn, but that LLaVA-OneVision's single image is one tile."""
    one_tile = subject.card.family == "llava_onevision" and len(images) == 1
    content: list[dict[str, object]] = [{"type": "image", "image": image} for image in [*images, *images[:one_tile]]]
    content.append({"type": "text", "text": prompt})
    inputs = dict(
        subject.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
    )
    if one_tile:  # the turn of two images, less the second
        kept = torch.ones_like(inputs["input_ids"][0], dtype=torch.bool)
        kept[(inputs["input_ids"][0] == subject.model.config.image_token_id).nonzero()[subject.n_image_tokens :]] = (
            False
        )
        inputs |= {name: inputs[name][:, kept] for name in ("input_ids", "attention_mask")}
        inputs |= reference_pixels(subject, images)
    return inputs


def reference_pixels(subject: Any, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """The images as the untouched model takes them, from its own processor."""
    processor = subject.processor.image_processor
    if subject.card.family == "llava_onevision":  # the images of one prompt, of which each is one tile; two at least
        made = processor(images=[[*images, images[0]]], return_tensors="pt")
        return {name: made[name][: len(images)] for name in ("pixel_values", "image_sizes")} | {
            "batch_num_images": made["batch_num_images"]
        }
    made = processor(images=list(images), return_tensors="pt", **subject.image_options)
    return {name: made[name] for name in ("pixel_values", "image_grid_thw") if name in made}
