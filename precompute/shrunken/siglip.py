"""A shrunken SigLIP with the files of google/siglip-so400m-patch14-384: both halves, and no crop in its processor."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import SiglipConfig, SiglipModel

from precompute.shrunken._encoders import IMAGE_PX, SIZES, TEXT_SIZES, save_encoder


def build(folder: Path, *, seed: int = 0) -> Path:
    """Write it to ``folder``; equal seeds give equal weights."""
    vision = {**SIZES, "intermediate_size": 64, "image_size": IMAGE_PX}
    torch.manual_seed(seed)
    model = SiglipModel(SiglipConfig(text_config=TEXT_SIZES, vision_config=vision))
    half = [0.5, 0.5, 0.5]
    reads = {
        "image_processor_type": "SiglipImageProcessor",
        "image_mean": half,
        "image_std": half,
        "processor_class": "SiglipProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": IMAGE_PX, "width": IMAGE_PX},
    }
    return save_encoder(model, folder, reads_images=reads)
