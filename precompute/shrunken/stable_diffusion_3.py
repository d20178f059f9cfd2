"""A shrunken Stable Diffusion 3.5: MMDiT with dual attention, two CLIPs, T5 and VAE, as diffusers saves it."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

from backend.errors import DependencyMissing
from precompute.shrunken._letters import letter_tokenizer

CLIP_LENGTH, T5_LENGTH = 77, 256
D_CLIP = 16
D_TEXT = 2 * D_CLIP
"""Width of the joint attention's text: both CLIP encoders side by side."""


def build(folder: Path, *, seed: int = 0) -> Path:
    """Save a random pipeline to ``folder``. Raises DependencyMissing without diffusers."""
    try:
        import diffusers
    except ImportError as error:
        raise DependencyMissing(f'diffusers cannot be imported ({error}): pip install "iconoscope[paper]"') from error
    from transformers import T5Config, T5EncoderModel

    library: Any = diffusers  # its names are made when asked for, which no type checker sees
    torch.manual_seed(seed)
    t5_tokenizer = _t5_tokenizer()
    t5 = T5Config(vocab_size=len(t5_tokenizer), d_model=D_TEXT, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformer = library.SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=D_TEXT,
        caption_projection_dim=16,
        pooled_projection_dim=2 * D_CLIP,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    vae = library.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=16,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    _open_up(transformer)
    library.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=library.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=_clip(),
        tokenizer=letter_tokenizer(CLIP_LENGTH),
        text_encoder_2=_clip(),
        tokenizer_2=letter_tokenizer(CLIP_LENGTH),
        text_encoder_3=T5EncoderModel(t5).eval(),
        tokenizer_3=t5_tokenizer,
    ).save_pretrained(folder)
    return folder


def _clip() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=D_CLIP,
        projection_dim=D_CLIP,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return CLIPTextModelWithProjection(config).eval()


def _t5_tokenizer() -> Any:
    """A T5 tokenizer whose pieces are letters."""
    from transformers import T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [*special, ("▁", -1.0), *((letter, -2.0) for letter in string.ascii_letters + string.digits + ".,'-")]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=T5_LENGTH)


@torch.no_grad()
def _open_up(transformer: torch.nn.Module) -> None:
    """Random weights of unit gain: in a fresh model no word would change a pixel."""
    for parameter in transformer.parameters():
        if parameter.ndim == 2:
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
