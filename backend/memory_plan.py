"""What a subject model will take on one device, before it is loaded: weights, caches, activations, beside what is free.

A model that does not fit ends in an out-of-memory error halfway through its weights, or, worse, at the first visitor's
longest question. Both are foreseen here from the model's shape, and refused with the option that would fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from backend.errors import SubjectError
from backend.model_shapes import HALF_BYTES, LanguageShape, ModelShape
from backend.types import Quantization

BYTES_PER_WEIGHT: dict[Quantization, float] = {"int8": 1.0, "int4": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""LLM.int8; and four bits with a byte of scale for every 64 weights and a float for every 256 scales."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FLOAT_BYTES = 4
"""Residual streams pass the hook point in float32."""
EDIT_COPIES = 5
"""Residual streams of a batch that lie in memory at once while they are edited."""
BLOCK_COPIES = 6
"""Widths of the residual stream that one block of attention holds at once: its input, norm, queries, keys, values."""
MLP_COPIES = 3
"""Widths of the MLP that lie in memory at once: the gate, the other branch and their product."""
RESERVE_BYTES = 5e8
"""Of a GPU: what the allocator loses between blocks of different sizes."""
GB = 1e9
MEMORY_FILE = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What the weights are stored in. The vision tower, the projector and the tables are always in ``dtype``."""

    dtype: str
    """float32, bfloat16 or float16."""
    quantize: Quantization | None = None

    def __str__(self) -> str:
        return self.dtype if self.quantize is None else f"{self.quantize}, vision tower in {self.dtype}"

    @property
    def layer_bytes(self) -> float:
        """Bytes of one weight of the language model's layers."""
        return DTYPE_BYTES[self.dtype] if self.quantize is None else BYTES_PER_WEIGHT[self.quantize]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The most that is asked of the model at once."""

    rows: int
    """Steered answers in one batch."""
    text_tokens: int
    """Tokens of one row beside its image: question and answer."""
    kept_images: int
    """Residual streams that stay in memory between questions."""
    sae_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes by purpose on one device."""

    subject: str
    device: str
    precision: Precision
    rows: int
    tower: float
    language: float
    """Layers and tables of the language model."""
    cache: float
    """Keys and values of all rows, at their longest."""
    activations: float
    """The most that a step holds beside weights and cache."""
    sae: float
    """The SAE, and the residual streams that are kept."""
    reserve: float
    free: float | None
    """Free memory before loading; None where the machine does not say."""

    @property
    def needed(self) -> float:
        return self.tower + self.language + self.cache + self.activations + self.sae + self.reserve

    @property
    def fits(self) -> bool:
        """Whether it fits, or nobody knows."""
        return self.free is None or self.needed <= self.free

    def __str__(self) -> str:
        """One line, in units of 10^9 bytes, or of 10^6 for a small model."""
        unit, name = (GB, "GB") if self.needed >= GB else (1e6, "MB")
        parts = (
            ("vision tower", self.tower),
            ("language model", self.language),
            (f"keys and values of {self.rows} answers", self.cache),
            ("activations", self.activations),
            ("SAE and kept images", self.sae),
            ("reserve", self.reserve),
        )
        listed = " + ".join(f"{part} {value / unit:.1f}" for part, value in parts if value)
        free = "what is free is unknown" if self.free is None else f"of {self.free / unit:.1f} {name} free"
        return f"{self.device}: {self.subject} ({self.precision}): {listed} = {self.needed / unit:.1f} {name} {free}"


def memory_plan(
    shape: ModelShape, *, subject: str, device: str, precision: Precision, demand: Demand, free: float | None
) -> MemoryPlan:
    """The plan of one replica. An image encoder has no language model, so what that would take is 0.

    Args:
        shape: sizes of the model.
        subject: its name, for messages.
        device: torch device.
        precision: how the weights are stored.
        demand: the most that is asked at once.
        free: free bytes of the device now; None if unknown.
    """
    words, tower = shape.language, shape.tower
    one = DTYPE_BYTES[precision.dtype]
    positions = demand.rows * (shape.image_tokens + demand.text_tokens)
    language = cache = answering = 0.0
    if words is not None:
        language = precision.layer_bytes * words.n_layer_weights + one * words.n_table_weights
        cache = float(positions * words.cache_bytes_per_token) / HALF_BYTES * one
        answering = _answering_bytes(words, positions, precision)
    # The tower runs before there is a cache.
    before = _tower_bytes(shape, demand.rows, one) - cache
    return MemoryPlan(
        subject=subject,
        device=device,
        precision=precision,
        rows=demand.rows,
        tower=float(one * tower.n_weights),
        language=language,
        cache=cache,
        activations=max(before, answering),
        sae=demand.sae_bytes + float(demand.kept_images * shape.n_patches * tower.width * FLOAT_BYTES),
        reserve=RESERVE_BYTES if device.startswith("cuda") else 0.0,
        free=free,
    )


def _tower_bytes(shape: ModelShape, rows: int, one: int) -> float:
    """Activations of the blocks after the hook point, or of the edit before them, whichever are more."""
    tower = shape.tower
    editing = EDIT_COPIES * FLOAT_BYTES * tower.width
    running = FLOAT_BYTES * tower.width + one * (BLOCK_COPIES * tower.width + 2 * tower.mlp_width)
    return float(rows * tower.n_tokens * max(editing, running))


def _answering_bytes(language: LanguageShape, positions: int, precision: Precision) -> float:
    """Activations of one layer over whole questions, and one quantised matrix unfolded to be multiplied."""
    one = DTYPE_BYTES[precision.dtype]
    unfolded = 0 if precision.quantize is None else one * language.width * language.mlp_width
    return float(positions * one * (BLOCK_COPIES * language.width + MLP_COPIES * language.mlp_width) + unfolded)


def require_fit(plan: MemoryPlan, shape: ModelShape, demand: Demand) -> None:
    """Raise SubjectError if the model does not fit, saying what takes how much and which option would fit."""
    if plan.fits:
        return
    cure = "Name a smaller model with --subject, or another device with --devices"
    for quantize in get_args(Quantization):
        precision = replace(plan.precision, quantize=quantize)
        smaller = memory_plan(
            shape, subject=plan.subject, device=plan.device, precision=precision, demand=demand, free=plan.free
        )
        if smaller.fits and smaller.needed < plan.needed:
            cure = f"With --quantize {quantize} it would take {smaller.needed / GB:.1f} GB"
            break
    raise SubjectError(f"Not enough memory on {plan}. {cure}.")


def free_bytes(device: str) -> float | None:
    """Free memory of a torch device, in bytes; None where the machine does not say. Imports torch for a GPU.

    Raises SubjectError if there is no such device.
    """
    if not device.startswith("cuda"):
        return _free_bytes_of_host()
    import torch

    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = torch.device(device).index or 0
    if index >= n_devices:
        raise SubjectError(f"There is no device {device}: {n_devices or 'no'} CUDA devices are visible here.")
    torch.cuda.empty_cache()
    return float(torch.cuda.mem_get_info(index)[0])


def _free_bytes_of_host() -> float | None:
    if not MEMORY_FILE.is_file():
        return None
    for line in MEMORY_FILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return 1024.0 * int(line.split()[1])
    return None
