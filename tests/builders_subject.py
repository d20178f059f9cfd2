"""Small subjects, SAEs and pictures for tests, and the answers that they are held to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from backend.models import load_subject
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
