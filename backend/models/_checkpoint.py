"""Reading a checkpoint's weights and processor from a folder; whatever is missing or damaged is named.

transformers itself is lenient: weights that a file lacks are drawn at random with a warning, and a folder without a
processor gives a bare tokenizer. Here both are errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoProcessor, PreTrainedModel

from backend.errors import SubjectError, SubjectMissing
from backend.models._quantized import quantization_options, require_only_language
from backend.models.base import ModelCard
from backend.types import Quantization

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
N_NAMES = 3
"""Missing weights named in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model with its processor, and the folder both were read from."""

    model: Any
    processor: Any
    folder: Path


def load_checkpoint(
    model_class: type[PreTrainedModel],
    folder: Path,
    *,
    card: ModelCard,
    device: str,
    dtype: str,
    quantize: Quantization | None = None,
) -> Checkpoint:
    """Load both, the processor first: it is small, and a folder without one need not be waited for.

    Args:
        model_class: transformers' class of the family.
        folder: holds config.json, ``*.safetensors`` and the processor's and tokenizer's files.
        card: whose model it is; its repository is named in messages.
        device: torch device.
        dtype: float32, bfloat16 or float16.
        quantize: bits of the language model's weights; None leaves them in ``dtype``.

    Raises:
        DependencyMissing: quantising needs packages that are not installed.
        SubjectMissing: the folder has no processor, no tokenizer or no weights, or only some of the weights.
        SubjectError: the dtype is unknown, or a file cannot be read.
    """
    if dtype not in DTYPES:
        raise SubjectError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    options = {} if quantize is None else quantization_options(quantize, device)
    processor = _load_processor(folder, card)
    if not any(folder.glob("*.safetensors")):
        raise SubjectMissing(_message(folder, card, "it holds no weights (*.safetensors)"))
    try:
        loaded: Any = model_class.from_pretrained(
            folder, dtype=DTYPES[dtype], local_files_only=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SubjectError(_message(folder, card, f"its weights cannot be read ({error})")) from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        named = ", ".join(missing[:N_NAMES]) + (", …" if len(missing) > N_NAMES else "")
        raise SubjectMissing(_message(folder, card, f"its files lack {len(missing)} weights ({named})"))
    if quantize is None:
        model = model.to(device)
    else:
        require_only_language(model, card.name)
    return Checkpoint(model=model.eval(), processor=processor, folder=folder)


def _load_processor(folder: Path, card: ModelCard) -> Any:
    try:
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        # Pillow's resampling is the same on every machine; torchvision's depends on whether torchvision is installed.
        # Asked for by itself: a processor that also reads videos has no Pillow variant as a whole.
        images: Any = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise SubjectMissing(
            _message(folder, card, f"its processor or tokenizer is missing or unreadable ({error})")
        ) from error
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise SubjectMissing(_message(folder, card, f"it has no {part.replace('_', ' ')}"))
    processor.image_processor = images
    return processor


def _message(folder: Path, card: ModelCard, problem: str) -> str:
    """What happened, where, and the command that mends it."""
    if card.repository_id is None:
        cure = f"write it again with model.save_pretrained({str(folder)!r}) and processor.save_pretrained(…)"
    else:
        cure = f"fetch it again with `hf download {card.repository_id}`"
    return f"cannot load the subject model in {folder}: {problem}; {cure}"
