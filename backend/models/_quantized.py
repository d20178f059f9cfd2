"""Quantised loading: the language model in 8 or 4 bits through bitsandbytes, everything that sees images as it was.

An SAE reads the vision tower, and steering edits it. So the tower, the projector behind it and the output layer keep
their weights, and activations, directions and strengths mean the same at every precision; only the words are chosen by
rounded weights. 4 bits are NormalFloat4 with doubly quantised scales that computes in bfloat16 (arXiv 2305.14314), 8
bits are LLM.int8 (arXiv 2208.07339).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast, get_args

import torch
from torch import nn

from backend.errors import DependencyMissing, SubjectError
from backend.types import Quantization

EVERYTHING_ELSE = r"(?!model\.language_model\.).*"
"""Pattern of the modules that stay as they are: in every family of transformers the language model has this name."""
LIBRARY_LOG = "bitsandbytes"
PRODUCT_LOG = "bitsandbytes.autograd._functions"


def quantization_options(quantize: str, device: str) -> dict[str, Any]:
    """What ``from_pretrained`` must be told to load the language model quantised onto one device.

    Raises:
        SubjectError: there is no such quantisation.
        DependencyMissing: bitsandbytes or accelerate is not installed.
    """
    if quantize not in get_args(Quantization):
        raise SubjectError(f"unknown quantisation {quantize!r}: choose one of {', '.join(get_args(Quantization))}")
    _require_library()
    from transformers import BitsAndBytesConfig

    if quantize == "int8":
        # Every product would say again that it computes in float16, which is how it is meant.
        logging.getLogger(PRODUCT_LOG).setLevel(logging.ERROR)
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=[EVERYTHING_ELSE])
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_use_double_quant=True,
            llm_int8_skip_modules=[EVERYTHING_ELSE],
        )
    # A quantised model cannot be moved afterwards, so it is loaded where it stays.
    return {"quantization_config": config, "device_map": {"": device}}


def require_only_language(model: nn.Module, name: str) -> None:
    """Check that all dense layers of the language model were quantised, and nothing else.

    Raises SubjectError naming the first module that was treated otherwise: a family whose language model has another
    place would steer with a rounded tower.
    """
    language = {id(module) for module in cast(Any, model).get_decoder().modules()}
    for path, module in model.named_modules():
        # Both kinds of quantised layers are Linears too.
        if not isinstance(module, nn.Linear):
            continue
        is_quantized = type(module) is not nn.Linear
        if is_quantized is not (id(module) in language):
            told = "was quantised, but only the language model may be" if is_quantized else "was not quantised"
            raise SubjectError(f"cannot load {name} quantised: {path} {told}. Serve it without --quantize")


def _require_library() -> ModuleType:
    try:
        with _nothing_fetched():
            import bitsandbytes
        import accelerate  # noqa: F401
    except ImportError as error:
        raise DependencyMissing(
            f"Quantised loading needs bitsandbytes and accelerate ({error}). Install them: "
            'pip install "iconoscope[paper]"'
        ) from error
    return bitsandbytes


@contextmanager
def _nothing_fetched() -> Iterator[None]:
    """On some processors bitsandbytes fetches a kernel from the hub when it is imported, and warns where it cannot.

    It does so only if the package ``kernels`` can be imported, so for the time of the import it cannot.
    """
    log = logging.getLogger(LIBRARY_LOG)
    level, fetcher = log.level, sys.modules.get("kernels")
    log.setLevel(logging.ERROR)
    sys.modules["kernels"] = cast(ModuleType, None)
    try:
        yield
    finally:
        log.setLevel(level)
        if fetcher is None:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = fetcher
