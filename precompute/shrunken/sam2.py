"""A shrunken SAM 2.1: the package's Hiera, memory and mask decoder, as a checkpoint with its YAML beside it.

The YAML is the package's own for the tiny Hiera with smaller numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from backend.errors import DependencyMissing

NAME = "sam2.1_hiera_t"
IMAGE_PX = 128
D_MODEL = 32
D_MEMORY = 16


def build(folder: Path, *, seed: int = 0) -> Path:
    """Save a random model to ``folder``. Raises DependencyMissing without the ``sam2`` package."""
    try:
        import sam2
        from hydra.utils import instantiate
        from omegaconf import OmegaConf
    except ImportError as error:
        raise DependencyMissing(f'SAM 2 cannot be imported ({error}): pip install "iconoscope[paper]"') from error
    torch.manual_seed(seed)
    layout: Any = OmegaConf.load(Path(sam2.__path__[0]) / "configs" / "sam2.1" / f"{NAME}.yaml")
    _shrink(layout.model)
    model = instantiate(layout.model, _recursive_=True)
    # Half of the bytes; the model that reads them stays float32.
    state = {name: value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / f"{NAME}.safetensors")
    OmegaConf.save(layout, folder / f"{NAME}.yaml")
    return folder


def _shrink(model: Any) -> None:
    model.image_size = IMAGE_PX
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    trunk.update(embed_dim=8, stages=[1, 1, 2, 1], global_att_blocks=[3])
    neck.update(d_model=D_MODEL, backbone_channel_list=[64, 32, 16, 8])
    neck.position_encoding.num_pos_feats = D_MODEL
    memory = model.memory_attention
    memory.update(d_model=D_MODEL, num_layers=1)
    memory.layer.update(d_model=D_MODEL, dim_feedforward=D_MODEL)
    side = IMAGE_PX // 16
    for attention in (memory.layer.self_attention, memory.layer.cross_attention):
        attention.update(embedding_dim=D_MODEL, feat_sizes=[side, side])
    memory.layer.cross_attention.kv_in_dim = D_MEMORY
    encoder = model.memory_encoder
    encoder.out_dim = D_MEMORY
    encoder.position_encoding.num_pos_feats = D_MEMORY
    encoder.in_dim = D_MODEL
    encoder.mask_downsampler.embed_dim = D_MODEL
    encoder.fuser.layer.dim = D_MODEL
