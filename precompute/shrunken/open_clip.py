"""A shrunken CLIP as open_clip's ``save_pretrained`` writes it, read with open_clip's own tokenizer.

The vocabulary keeps its 49,408 words, because the tokenizer comes with the package.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from backend.errors import DependencyMissing
from precompute.judges.open_clip_encoder import OPENAI_MEAN, OPENAI_STD, SETTINGS, WEIGHTS

LAYOUT = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 28, "layers": 1, "width": 32, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def build(folder: Path, *, seed: int = 0) -> Path:
    """Save a random model to ``folder``. Raises DependencyMissing without open_clip."""
    try:
        import open_clip
    except ImportError as error:
        raise DependencyMissing("open_clip_torch is not installed: pip install open_clip_torch") from error
    torch.manual_seed(seed)
    model = open_clip.CLIP(**LAYOUT)
    folder.mkdir(parents=True, exist_ok=True)
    # Half of the bytes; the model that reads them stays float32.
    state = {name: value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    preprocessing = {"mean": OPENAI_MEAN, "std": OPENAI_STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    settings = {"model_cfg": LAYOUT, "preprocess_cfg": preprocessing}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return folder
