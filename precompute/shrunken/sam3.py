"""A shrunken SAM 3: ViT with windows, feature pyramid, CLIP text encoder, DETR encoder and decoder, mask decoder."""

from __future__ import annotations

from pathlib import Path

import torch

from precompute.shrunken._letters import letter_tokenizer

IMAGE_PX, PATCH_PX = 56, 14
D_MODEL = 32


def build(folder: Path, *, seed: int = 0) -> Path:
    """Save a random model and its processor to ``folder``."""
    from transformers import (
        CLIPTextConfig,
        Sam3Config,
        Sam3ImageProcessor,
        Sam3Model,
        Sam3Processor,
        Sam3VisionConfig,
        Sam3ViTConfig,
    )

    torch.manual_seed(seed)
    tokenizer = letter_tokenizer(32)
    vit = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_PX,
        patch_size=PATCH_PX,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=IMAGE_PX,
    )
    side = IMAGE_PX // PATCH_PX
    vision = Sam3VisionConfig(
        backbone_config=vit,
        fpn_hidden_size=D_MODEL,
        backbone_feature_sizes=[[side * 4] * 2, [side * 2] * 2, [side] * 2],
    )
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        projection_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    shared = {"hidden_size": D_MODEL, "num_attention_heads": 2}
    layers = {**shared, "num_layers": 1, "intermediate_size": 32}
    config = Sam3Config(
        vision_config=vision,
        text_config=text,
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config={**layers, "num_queries": 6},
        mask_decoder_config=shared,
    )
    model = Sam3Model(config).eval()
    _open_up(model)
    model.save_pretrained(folder)
    size = {"height": IMAGE_PX, "width": IMAGE_PX}
    Sam3Processor(Sam3ImageProcessor(size=size), tokenizer).save_pretrained(folder)
    return folder


@torch.no_grad()
def _open_up(model: torch.nn.Module) -> None:
    """Random weights of unit gain: in a fresh model no word would change a mask."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embedding" not in name.lower():
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
