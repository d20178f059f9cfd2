"""Reading a checkpoint's weights and processor from a folder; whatever is missing or damaged is named.

transformers itself is lenient: weights that a file lacks are drawn at random with a warning, a folder without a
processor gives a bare tokenizer, a pickle is read where there are no safetensors, and whoever sits at the terminal may
be asked whether a folder's own code shall be run. Here the first three are errors, and that code is never run.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from backend.errors import SubjectError, SubjectMissing
from backend.models._quantized import quantization_options, require_only_language
from backend.models.base import ModelCard
from backend.types import Quantization
from backend.weights import missing_files

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
WHOLE = "model.safetensors"
"""Weights in one file: transformers then reads no index of shards."""
WITHOUT_WEIGHTS = "meta"
"""Device on which only sizes are kept: nothing is read but config.json and processor, and nothing can be computed."""
_one_at_a_time = threading.Lock()
"""While it reads weights transformers changes what holds for the whole process: of two models read at once, as by the
replicas of two cards, one would seem to lack its tied weights."""
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
    quantize: Quantization | None = None,
) -> Checkpoint:
    """Load both, the processor first: it is small, and a folder without one need not be waited for.

    Args:
        model_class: transformers' class of the family.
        folder: holds config.json, ``*.safetensors`` and the processor's and tokenizer's files.
        processor_class: transformers' processor of the family.
        card: whose model it is; its repository is named in messages.
        device: torch device, or WITHOUT_WEIGHTS.
        dtype: float32, bfloat16 or float16.
        quantize: bits of the language model's weights; None leaves them in ``dtype``.

    Raises:
        DependencyMissing: quantising needs packages that are not installed.
        SubjectMissing: the folder has no processor, no tokenizer or no weights, or only some of the weights.
        SubjectError: the dtype is unknown, a file cannot be read, or the processor is another family's.
    """
    _require_known(dtype)
    processor = _load_processor(folder, processor_class, card)
    model = _load_model(model_class, folder, card, device, dtype, quantize)
    return Checkpoint(model=model, processor=processor, folder=folder)


def load_vision_checkpoint(
    model_class: type[PreTrainedModel],
    folder: Path,
    *,
    card: ModelCard,
    device: str,
    dtype: str,
    processor_class: Any = None,
) -> Checkpoint:
    """Load an image encoder and its image processor, which is told to squash the whole picture to its own square.

    Arguments and errors as for :func:`load_checkpoint`, and:

    Args:
        model_class: class of the vision part; the other weights of a checkpoint that holds more are left unread.
        processor_class: a Pillow processor that stands in for one which has no Pillow variant.

    Raises:
        SubjectError: the processor's files name no square.
    """
    _require_known(dtype)
    processor = _load_square_processor(processor_class, folder, card)
    with _without_reports():  # of the other half's weights, which are left out on purpose
        model = _load_model(model_class, folder, card, device, dtype)
    return Checkpoint(model=model, processor=processor, folder=folder)


def _require_known(dtype: str) -> None:
    if dtype not in DTYPES:
        raise SubjectError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")


def _load_model(
    model_class: type[PreTrainedModel],
    folder: Path,
    card: ModelCard,
    device: str,
    dtype: str,
    quantize: Quantization | None = None,
) -> Any:
    if device == WITHOUT_WEIGHTS:
        return _described(model_class, folder, card)
    options = {} if quantize is None else quantization_options(quantize, device)
    if not any(folder.glob("*.safetensors")):
        raise SubjectMissing(_message(folder, card, "it holds no weights (*.safetensors)"))
    if not (folder / WHOLE).is_file() and (absent := missing_files(folder, ())):
        raise SubjectMissing(_message(folder, card, f"it lacks {', '.join(absent)}"))
    try:
        with _one_at_a_time:
            loaded: Any = model_class.from_pretrained(
                folder,
                dtype=DTYPES[dtype],
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **options,
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
    return model.eval()


def _described(model_class: type[PreTrainedModel], folder: Path, card: ModelCard) -> Any:
    """The model as config.json describes it."""
    config_class: Any = model_class.config_class
    try:
        config = config_class.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise SubjectError(_message(folder, card, f"its config.json cannot be read ({error})")) from error
    with torch.device(WITHOUT_WEIGHTS):
        return model_class(config).eval()


def _load_processor(folder: Path, processor_class: type[ProcessorMixin], card: ModelCard) -> Any:
    _require_processor(_declared_processor(folder), processor_class, folder, card)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):  # some tokenizers load without: no word is known
        raise SubjectMissing(_message(folder, card, f"it has no tokenizer ({' or '.join(TOKENIZER_FILES)})"))
    try:
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        # Pillow's resampling is the same on every machine; torchvision's depends on whether torchvision is installed.
        # Asked for by itself: a processor that also reads videos has no Pillow variant as a whole.
        images: Any = AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
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


def _load_square_processor(processor_class: Any, folder: Path, card: ModelCard) -> Any:
    """The image processor without crops, at the size its images have in the end."""
    load: Any = partial(AutoImageProcessor.from_pretrained, backend="pil", trust_remote_code=False)
    if processor_class is not None:
        load = processor_class.from_pretrained
    try:
        released = load(folder, local_files_only=True)
        crop = released.crop_size if getattr(released, "do_center_crop", False) else None
        size = dict(crop or released.size)
        if size.get("height") is None or size.get("height") != size.get("width"):
            raise SubjectError(_message(folder, card, f"its image processor makes no squares (it names {size})"))
        return load(folder, local_files_only=True, size=size, do_resize=True, do_center_crop=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise SubjectMissing(
            _message(folder, card, f"its image processor is missing or unreadable ({error})")
        ) from error


@contextmanager
def _without_reports() -> Iterator[None]:
    """transformers says nothing below an error; what is missing is read from its report and raised."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _message(folder: Path, card: ModelCard, problem: str) -> str:
    """What happened, where, and the command that mends it."""
    if card.repository_id is None:
        cure = f"write it again with model.save_pretrained({str(folder)!r}) and processor.save_pretrained(…)"
    else:
        cure = f"fetch it again with `hf download {card.repository_id}`"
    return f"cannot load the subject model in {folder}: {problem}; {cure}"
