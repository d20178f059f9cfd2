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
from transformers import AutoImageProcessor, AutoProcessor, PreTrainedModel, ProcessorMixin

from backend.errors import SubjectError, SubjectMissing
from backend.models.base import ModelCard

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
N_NAMES = 3
"""Missing weights named in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model with its processor, and the folder both were read from."""

    model: Any
    processor: Any
    folder: Path

    @property
    def image_processor(self) -> Any:
        """The image half of the processor, or all of it where the model reads no words."""
        return getattr(self.processor, "image_processor", self.processor)


def load_checkpoint(
    model_class: type[PreTrainedModel],
    folder: Path,
    *,
    processor_class: type[ProcessorMixin],
    card: ModelCard,
    device: str,
    dtype: str,
) -> Checkpoint:
    """Load both, the processor first: it is small, and a folder without one need not be waited for.

    Args:
        model_class: transformers' class of the family.
        folder: holds config.json, ``*.safetensors`` and the processor's and tokenizer's files.
        processor_class: transformers' processor of the family.
        card: whose model it is; its repository is named in messages.
        device: torch device.
        dtype: float32, bfloat16 or float16.

    Raises:
        SubjectMissing: the folder has no processor, no tokenizer or no weights, or only some of the weights.
        SubjectError: the dtype is unknown, a file cannot be read, or the processor is another family's.
    """
    if dtype not in DTYPES:
        raise SubjectError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    processor = _load_processor(folder, processor_class, card)
    if not any(folder.glob("*.safetensors")):
        raise SubjectMissing(_message(folder, card, "it holds no weights (*.safetensors)"))
    try:
        loaded: Any = model_class.from_pretrained(
            folder, dtype=DTYPES[dtype], local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SubjectError(_message(folder, card, f"its weights cannot be read ({error})")) from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        named = ", ".join(missing[:N_NAMES]) + (", …" if len(missing) > N_NAMES else "")
        raise SubjectMissing(_message(folder, card, f"its files lack {len(missing)} weights ({named})"))
    return Checkpoint(model=model.to(device).eval(), processor=processor, folder=folder)


def _load_processor(folder: Path, processor_class: type[ProcessorMixin], card: ModelCard) -> Any:
    _require_processor(_declared_processor(folder), processor_class, folder, card)
    try:
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        # Pillow's resampling is the same on every machine; torchvision's depends on whether torchvision is installed.
        # Asked for by itself: a processor that also reads videos has no Pillow variant as a whole.
        images: Any = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise SubjectMissing(
            _message(folder, card, f"its processor or tokenizer is missing or unreadable ({error})")
        ) from error
    if isinstance(processor, ProcessorMixin):
        _require_processor(type(processor).__name__, processor_class, folder, card)
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise SubjectMissing(_message(folder, card, f"it has no {part.replace('_', ' ')}"))
    processor.image_processor = images
    return processor


def _declared_processor(folder: Path) -> str | None:
    """The processor's class as the folder's files name it, in the order in which transformers asks them."""
    for name in PROCESSOR_FILES:
        try:
            declared = json.loads((folder / name).read_text(encoding="utf-8")).get("processor_class")
        except (OSError, ValueError, AttributeError):
            continue  # missing or damaged: transformers says which
        if isinstance(declared, str):
            return declared
    return None


def _require_processor(name: str | None, expected: type[ProcessorMixin], folder: Path, card: ModelCard) -> None:
    """Raise SubjectError for another family's: it would prepare other pixels and another prompt, or none at all."""
    if name is not None and name != expected.__name__:
        problem = f"its processor is a {name}, but models of type {card.family} have a {expected.__name__}"
        raise SubjectError(_message(folder, card, problem))


def _message(folder: Path, card: ModelCard, problem: str) -> str:
    """What happened, where, and the command that mends it."""
    if card.repository_id is None:
        cure = f"write it again with model.save_pretrained({str(folder)!r}) and processor.save_pretrained(…)"
    else:
        cure = f"fetch it again with `hf download {card.repository_id}`"
    return f"cannot load the subject model in {folder}: {problem}; {cure}"
