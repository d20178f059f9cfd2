"""Another size of the shrunken Gemma 3: a wider language model around the very same vision tower."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

WIDER = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}


def save_other_size(folder: Path, smaller: Path) -> Path:
    """Save to ``folder`` a model with the tower of the one in ``smaller`` and three layers of width 64."""
    shutil.copytree(smaller, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"] |= WIDER
    torch.manual_seed(5)
    model: Any = Gemma3ForConditionalGeneration(Gemma3Config(**config)).eval()
    first: Any = Gemma3ForConditionalGeneration.from_pretrained(smaller, local_files_only=True)
    model.model.vision_tower.load_state_dict(first.model.vision_tower.state_dict())
    model.generation_config = first.generation_config
    model.save_pretrained(folder)
    return folder


def rewrite(folder: Path, change: Any) -> None:
    """Let ``change`` edit the tensors of a checkpoint of one file, by name."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file(change(tensors), file, metadata={"format": "pt"})


def change_weight(folder: Path, name: str) -> None:
    """One number of one tensor of the tower, by one part in a million."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    key = next(one for one in tensors if "vision_tower" in one and one.endswith(name))
    tensors[key].view(-1)[5] *= 1 + 1e-6
    save_file(tensors, file, metadata={"format": "pt"})
