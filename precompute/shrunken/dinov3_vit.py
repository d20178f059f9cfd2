"""A shrunken DINOv3 with the files of facebook/dinov3-vitb16-pretrain-lvd1689m: CLS, registers and rotary positions."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from precompute.shrunken._encoders import IMAGE_PX, IMAGENET_MEAN, IMAGENET_STD, SIZES, save_encoder

N_REGISTERS = 4


def build(folder: Path, *, seed: int = 0) -> Path:
    """Write it to ``folder``; equal seeds give equal weights."""
    torch.manual_seed(seed)
    config = DINOv3ViTConfig(**SIZES, intermediate_size=64, image_size=IMAGE_PX, num_register_tokens=N_REGISTERS)
    reads = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "crop_size": None,
        "data_format": "channels_first",
        "default_to_square": True,
        "do_center_crop": None,
        "do_convert_rgb": None,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": IMAGE_PX, "width": IMAGE_PX},
    }
    return save_encoder(DINOv3ViTModel(config), folder, reads_images=reads)
