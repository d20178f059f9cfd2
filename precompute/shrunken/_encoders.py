"""What the shrunken image encoders share: their size, their random weights, and the file that says how images are read.

All have 32 px images, 4x4 patches of 8 px, and 3 blocks of width 32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

IMAGE_PX = 32
PATCH_PX = 8
SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": PATCH_PX}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TEXT_SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""The text half of a model that has one: an adapter leaves it on the disk, as it does with a released checkpoint."""


def save_encoder(model: Any, folder: Path, *, reads_images: Mapping[str, object]) -> Path:
    """Give ``model`` its random weights and write it to ``folder`` with its preprocessor_config.json.

    Every weight with two or more dimensions is drawn anew: fresh CLS, register and position embeddings may be zero,
    which would hide a confusion of one token with another. Call ``torch.manual_seed`` before building the model.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "patch_embed" not in name:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    folder.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(folder)
    text = json.dumps({"do_normalize": True, "do_rescale": True, "do_resize": True, **reads_images}, indent=2)
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
    return folder
