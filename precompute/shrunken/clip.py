"""A shrunken CLIP with the files of openai/clip-vit-large-patch14: both halves, and a processor in the old notation."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from precompute.shrunken._encoders import CLIP_MEAN, CLIP_STD, IMAGE_PX, SIZES, TEXT_SIZES, save_encoder


def build(folder: Path, *, seed: int = 0) -> Path:
    """Write it to ``folder``; equal seeds give equal weights."""
    vision = {**SIZES, "intermediate_size": 64, "image_size": IMAGE_PX}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=TEXT_SIZES, vision_config=vision, projection_dim=32))
    reads = {
        "feature_extractor_type": "CLIPFeatureExtractor",
        "crop_size": IMAGE_PX,
        "do_center_crop": True,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
        "size": IMAGE_PX,
    }
    return save_encoder(model, folder, reads_images=reads)
