"""A shrunken DINOv2 with the files of facebook/dinov2-base; on request one with register tokens.

As in the released models, positions were made for larger images (6x6 patches) than the processor ends with (4x4), and
the processor crops the centre out of an image that it first resized to a little more.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from precompute.shrunken._encoders import IMAGE_PX, IMAGENET_MEAN, IMAGENET_STD, PATCH_PX, SIZES, save_encoder

N_POSITIONS_A_SIDE = 6
SHORTEST_EDGE_PX = 36


def build(folder: Path, *, seed: int = 0, n_registers: int = 0) -> Path:
    """Write it to ``folder``; equal seeds give equal weights."""
    sizes = {**SIZES, "mlp_ratio": 2, "image_size": N_POSITIONS_A_SIDE * PATCH_PX}
    torch.manual_seed(seed)
    if n_registers:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, num_register_tokens=n_registers))
    else:
        model = Dinov2Model(Dinov2Config(**sizes))
    reads = {
        "image_processor_type": "BitImageProcessor",
        "crop_size": {"height": IMAGE_PX, "width": IMAGE_PX},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": SHORTEST_EDGE_PX},
    }
    return save_encoder(model, folder, reads_images=reads)
