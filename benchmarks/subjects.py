"""The subject and SAE that the benchmarks run on: the world's if it is there, else small random ones."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from backend.models import load_subject
from backend.models.base import SubjectModel
from backend.sae import SAEConfig, TopKSAE
from backend.types import HookPoint

ROOT = Path(__file__).resolve().parent.parent
WORLD_SUBJECT = ROOT / "assets" / "world" / "subject"
ATLAS = ROOT / "assets" / "atlas"


def open_benchmark_subject(device: str, layer: int | None) -> SubjectModel:
    """The world's subject, cut at the atlas's hook point unless told otherwise; else a shrunken random Gemma 3."""
    if (WORLD_SUBJECT / "config.json").is_file():
        point = HookPoint(layer=_shipped_layer() if layer is None else layer)
        return load_subject(WORLD_SUBJECT, point, device=device)
    from precompute.shrunken import gemma3

    with tempfile.TemporaryDirectory() as folder:
        return load_subject(gemma3.build(Path(folder)), HookPoint(layer=layer or 1), device=device)


def open_benchmark_pair(device: str, layer: int | None, shape: str | None) -> tuple[SubjectModel, TopKSAE]:
    """Subject and SAE: random ones of a true shape if one is named, else as the two functions below choose."""
    if shape is None:
        subject = open_benchmark_subject(device, layer)
        return subject, open_benchmark_sae(subject)
    from benchmarks.true_shapes import SHAPES, open_true_shape

    subject = open_true_shape(shape, device, layer=layer)
    return subject, open_benchmark_sae(subject, d_sae=SHAPES[shape].d_sae, k=SHAPES[shape].k)


def open_benchmark_sae(subject: SubjectModel, *, d_sae: int = 2048, k: int = 16) -> TopKSAE:
    """The atlas's SAE where it fits the subject's hook point, else a random one of the given size."""
    folder = ATLAS / "sae"
    if folder.is_dir():
        sae = TopKSAE.load(folder, device=subject.device)
        if sae.d_model == subject.d_model and sae.config.hook_point in {None, subject.hook_point}:
            return sae
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(d_sae, subject.d_model, generator=generator)
    directions = directions / directions.norm(dim=1, keepdim=True)
    config = SAEConfig(d_model=subject.d_model, d_sae=d_sae, k=k)
    zeros = {"b_enc": torch.zeros(d_sae), "b_dec": torch.zeros(subject.d_model)}
    return TopKSAE(config, W_enc=directions.T, W_dec=directions, **zeros).to(subject.device)


def describe(subject: SubjectModel, sae: TopKSAE) -> str:
    """One line for the head of a table."""
    shape = f"{subject.grid.rows}x{subject.grid.cols} patches, d_model {subject.d_model}, d_sae {sae.d_sae}, k {sae.k}"
    return f"{subject.card.name} at {subject.hook_point} on {subject.device}: {shape}"


def _shipped_layer() -> int:
    meta = ATLAS / "meta.json"
    if not meta.is_file():
        return 4
    return int(json.loads(meta.read_text(encoding="utf-8"))["hook_point"]["layer"])
