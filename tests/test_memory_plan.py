"""The memory plan: what fits a card is foreseen, what does not is refused with the option that would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from backend import memory_plan as module
from backend.errors import SubjectError
from backend.memory_plan import GB, Demand, MemoryPlan, Precision, free_bytes, memory_plan, require_fit
from backend.model_shapes import KNOWN, LanguageShape, ModelShape, TowerShape, shape_of
from backend.models import load_subject
from backend.settings import load_settings
from backend.types import HookPoint

RTX_4090 = 24_564 * 2**20 * 0.98
"""Bytes that are free on an idle card once CUDA runs on it."""
LARGEST = Demand(rows=21, text_tokens=186, kept_images=16, sae_bytes=75_000_000)
WORLD = load_settings().world_dir / "subject"


def planned(name: str, quantize: Any, free: float | None = RTX_4090, demand: Demand = LARGEST) -> MemoryPlan:
    return memory_plan(
        KNOWN[name],
        subject=name,
        device="cuda:0",
        precision=Precision(dtype="bfloat16", quantize=quantize),
        demand=demand,
        free=free,
    )


@pytest.mark.parametrize(
    ("name", "quantize", "fits"),
    [
        ("google/gemma-3-27b-it", None, False),
        ("google/gemma-3-27b-it", "int8", False),
        ("google/gemma-3-27b-it", "int4", True),
        ("google/gemma-3-12b-it", None, False),
        ("google/gemma-3-12b-it", "int8", True),
        ("google/gemma-3-12b-it", "int4", True),
        ("google/gemma-3-4b-it", None, True),
    ],
)
def test_what_fits_a_card_of_24_gb(name: str, quantize: Any, fits: bool) -> None:
    assert planned(name, quantize).fits is fits


def test_27b_in_4_bits_takes_17_gb_of_weights_and_leaves_room_for_its_answers() -> None:
    plan = planned("google/gemma-3-27b-it", "int4")
    assert plan.tower + plan.language == pytest.approx(17.2e9, rel=0.03)  # decision 019: 17.2 GB
    assert plan.cache == pytest.approx(21 * 442 * 508e3, rel=0.01)
    assert 0.3e9 < RTX_4090 - plan.needed < 3e9
    assert planned("google/gemma-3-27b-it", None).language == pytest.approx(54e9, rel=0.02)


def test_a_refusal_names_the_parts_and_the_option_that_fits() -> None:
    shape = KNOWN["google/gemma-3-27b-it"]
    with pytest.raises(SubjectError) as refused:
        require_fit(planned("google/gemma-3-27b-it", None), shape, LARGEST)
    message = str(refused.value)
    assert (
        "Not enough memory on cuda:0: google/gemma-3-27b-it (bfloat16): vision tower 0.8 + language model 54."
        in message
    )
    assert "keys and values of 21 answers 4.7" in message and "of 25.2 GB free" in message
    assert message.endswith("With --quantize int4 it would take 24.5 GB.")
    with pytest.raises(SubjectError, match="Name a smaller model with --subject, or another device with --devices"):
        require_fit(planned("google/gemma-3-27b-it", "int4", free=12e9), shape, LARGEST)
    with pytest.raises(SubjectError, match="With --quantize int8 it would take"):
        require_fit(planned("google/gemma-3-12b-it", None), KNOWN["google/gemma-3-12b-it"], LARGEST)


def test_what_the_machine_does_not_say_refuses_nothing() -> None:
    plan = planned("google/gemma-3-27b-it", None, free=None)
    assert plan.fits and "what is free is unknown" in str(plan)
    require_fit(plan, KNOWN["google/gemma-3-27b-it"], LARGEST)


def test_an_exactly_full_card_fits_and_a_byte_less_does_not() -> None:
    needed = planned("google/gemma-3-12b-it", "int8").needed
    assert planned("google/gemma-3-12b-it", "int8", free=needed).fits
    assert not planned("google/gemma-3-12b-it", "int8", free=needed - 1).fits


def test_the_plan_grows_with_what_is_asked() -> None:
    more = Demand(rows=42, text_tokens=186, kept_images=16, sae_bytes=75_000_000)
    one, two = (planned("google/gemma-3-12b-it", "int4", demand=demand) for demand in (LARGEST, more))
    assert two.cache == 2 * one.cache
    assert two.activations > one.activations and two.language == one.language


def test_an_image_encoder_takes_nothing_for_words() -> None:
    tower = TowerShape(width=8, mlp_width=8, n_blocks=1, n_tokens=4)
    shape = ModelShape(tower=tower, n_patches=4, image_tokens=0)
    precision, one = Precision(dtype="float32"), Demand(rows=1, text_tokens=186, kept_images=16, sae_bytes=7)
    plan = memory_plan(shape, subject="siglip", device="cpu", precision=precision, demand=one, free=None)
    assert (plan.language, plan.cache) == (0, 0)
    assert plan.tower == 4 * 6 * 64 and plan.activations == 4 * 4 * (7 * 8 + 2 * 8)
    assert "language model" not in str(plan) and "keys and values" not in str(plan)
    full = memory_plan(shape, subject="siglip", device="cpu", precision=precision, demand=one, free=plan.needed - 1)
    with pytest.raises(SubjectError, match=r"Not enough memory on cpu: siglip .* Name a smaller model"):
        require_fit(full, shape, one)


def test_untied_tables_are_counted_twice() -> None:
    sizes: Any = {"width": 8, "mlp_width": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_width": 4}
    tied, untied = (LanguageShape(**sizes, vocabulary=100, tied=one) for one in (True, False))
    assert (tied.n_table_weights, untied.n_table_weights) == (800, 1600)
    assert tied.n_layer_weights == untied.n_layer_weights == 8 * 4 * (2 * 2 + 2) + 3 * 64


# ---------------------------------------------------------------------------------------- against the models themselves


def test_the_shape_of_12b_counts_the_weights_that_transformers_makes() -> None:
    text = {
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_attention_heads": 16,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
    }
    vision = {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "num_attention_heads": 16}
    vision |= {"num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False}
    with torch.device("meta"):
        model: Any = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision))
    plan = planned("google/gemma-3-12b-it", None)
    assert plan.tower == pytest.approx(2 * n_weights(model.model.vision_tower), rel=0.02)
    assert plan.language == pytest.approx(2 * n_weights(model.model.language_model), rel=0.005)


def n_weights(model: torch.nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_the_worlds_subject_takes_what_is_planned(quantize: Any) -> None:
    if quantize:
        pytest.importorskip("bitsandbytes")
    shape = shape_of("world", WORLD)
    precision = Precision(dtype="float32", quantize=quantize)
    plan = memory_plan(
        shape, subject="world", device="cpu", precision=precision, demand=LARGEST, free=free_bytes("cpu")
    )
    subject: Any = load_subject(WORLD, HookPoint(layer=4), quantize=quantize)
    # Scales of 64 weights each are part of the plan, and of no parameter.
    taken = sum(one.numel() * one.element_size() for one in subject.model.model.language_model.parameters())
    assert plan.language == pytest.approx(taken, rel=0.05)
    assert plan.fits


# --------------------------------------------------------------------------------------------------- what is free


def test_free_memory_of_this_machine_is_told_or_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_FILE", tmp_path / "meminfo")
    assert free_bytes("cpu") is None
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   2048 kB\n", encoding="utf-8")
    assert free_bytes("cpu") == 2 * 2**20


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SubjectError, match="There is no device cuda:1: no CUDA devices are visible here"):
        free_bytes("cuda:1")


def test_free_memory_of_a_gpu_is_asked_of_that_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ((index + 1) * GB, 9 * GB))
    assert free_bytes("cuda:1") == 2 * GB
    assert free_bytes("cuda") == GB
