"""Training of the subject's vision tower: a SigLIP encoder that names the owner of every patch.

The tower is transformers' own ``SiglipVisionModel`` in the configuration that ``Gemma3Config`` will hold. It is
trained with a cross-entropy per patch on the output of the last blocks (linear heads thrown away afterwards), so
that what a patch shows is linearly present in the residual stream of the later half, where SAEs are trained.
Matrices are trained with Muon, the rest with AdamW.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from precompute.world.checkpoints import load_checkpoint, save_checkpoint
from precompute.world.concepts import N_OWNERS, OBJECTS
from precompute.world.fills import SIDE_PX
from precompute.world.optimizers import muon_and_adamw, set_learning_rate, step_and_clear
from precompute.world.practice import N_FACTORS, PracticeBatch, practice_batches
from precompute.world.render import PATCH_PX

logger = logging.getLogger(__name__)

SUPERVISED_BLOCKS: dict[int, float] = {3: 0.25, 4: 0.5, 5: 1.0}
"""Block index -> weight of its patch loss."""
FACTOR_WEIGHT = 0.3
CHECKPOINT_EVERY_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerTraining:
    """Science settings of the run; 2,200 steps of 32 pictures take about 35 minutes on two cores."""

    steps: int = 2200
    batch: int = 32
    learning_rate: float = 2.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.02
    seed: int = 0


def tower_config() -> SiglipVisionConfig:
    """Width 128, six blocks, 16 x 16 patches."""
    return SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        vision_use_head=False,
    )


def normalised(pixels: UInt8[Tensor, "image row col 3"]) -> Float[Tensor, "image 3 row col"]:
    """Bytes to the range [-1, 1] that SigLIP's image processor produces (mean and std 0.5)."""
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def block_outputs(tower: SiglipVisionModel, pixels: Float[Tensor, "image 3 row col"]) -> list[Tensor]:
    """The residual stream after every block, [image, patch, d_model] each."""
    core = getattr(tower, "vision_model", tower)
    hidden, outputs = core.embeddings(pixels), []
    for block in core.encoder.layers:
        hidden = block(hidden, attention_mask=None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        outputs.append(hidden)
    return outputs


class PatchReader(nn.Module):
    """The tower with a throw-away linear reader on each supervised block."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.tower = SiglipVisionModel(config)
        width = config.hidden_size
        core = getattr(self.tower, "vision_model", self.tower)
        last = config.num_hidden_layers - 1
        self.norms = nn.ModuleDict(
            {str(block): nn.Identity() if block == last else nn.LayerNorm(width) for block in SUPERVISED_BLOCKS}
        )
        self.readers = nn.ModuleDict(
            {str(block): nn.Linear(width, N_OWNERS + 1 + N_FACTORS) for block in SUPERVISED_BLOCKS}
        )
        self.post_layernorm = core.post_layernorm
        self.last = last

    def forward(self, pixels: Float[Tensor, "image 3 row col"]) -> dict[int, Float[Tensor, "image patch label"]]:
        outputs = block_outputs(self.tower, pixels)
        logits = {}
        for block in SUPERVISED_BLOCKS:
            hidden = (
                self.post_layernorm(outputs[block]) if block == self.last else self.norms[str(block)](outputs[block])
            )
            logits[block] = self.readers[str(block)](hidden)
        return logits


def patch_loss(logits: dict[int, Tensor], batch: PracticeBatch) -> Tensor:
    """Weighted sum over blocks of the owner cross-entropy and the factors' binary cross-entropy."""
    total = torch.zeros((), device=batch.owners.device)
    for block, weight in SUPERVISED_BLOCKS.items():
        owner, factor = logits[block].float().split([N_OWNERS + 1, N_FACTORS], dim=-1)
        owner_loss = F.cross_entropy(owner.flatten(0, 1), batch.owners.flatten())
        factor_loss = F.binary_cross_entropy_with_logits(factor, batch.factors)
        total = total + weight * (owner_loss + FACTOR_WEIGHT * factor_loss)
    return total


def learning_rate_at(step: int, settings: TowerTraining) -> float:
    """Linear warm-up, flat, then linear decay to zero over the last 60 % of the steps."""
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    left = (settings.steps - step) / (0.6 * settings.steps)
    return settings.learning_rate * min(warm, left, 1.0)


def train_tower(out_dir: Path, settings: TowerTraining | None = None) -> Path:
    """Train (or go on training) the tower; returns the path of its weights ``tower.safetensors``."""
    settings = settings or TowerTraining()
    torch.manual_seed(settings.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reader = PatchReader(tower_config())
    optimizers = muon_and_adamw(reader, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    checkpoint = out_dir / "tower.checkpoint.safetensors"
    done = load_checkpoint(checkpoint, reader, optimizers)
    reader.to(device)
    forward: Callable[..., Tensor] = torch.compile(_step_loss(reader, device))
    started = time.monotonic()
    for offset, batch in enumerate(practice_batches(done, settings.steps, settings.batch, settings.seed)):
        step = done + offset
        rate = learning_rate_at(step, settings)
        set_learning_rate(optimizers, rate)
        loss = forward(normalised(batch.pixels.to(device)), batch.owners.to(device), batch.factors.to(device))
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        step_and_clear(optimizers)
        if (step + 1) % CHECKPOINT_EVERY_STEPS == 0 or step + 1 == settings.steps:
            save_checkpoint(checkpoint, step + 1, reader, optimizers)
            accuracy = patch_accuracy(reader, batch)
            speed = (offset + 1) * settings.batch / (time.monotonic() - started)
            logger.info("step %d loss %.3f accuracy %s %.1f images/s", step + 1, loss.item(), accuracy, speed)
    weights = out_dir / "tower.safetensors"
    save_file({name: value.detach().cpu().contiguous() for name, value in reader.tower.state_dict().items()}, weights)
    return weights


def _step_loss(reader: PatchReader, device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def step_loss(pixels: Tensor, owners: Tensor, factors: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = reader(pixels)
        return patch_loss(logits, PracticeBatch(pixels=pixels, owners=owners, factors=factors))

    return step_loss


@torch.no_grad()
def patch_accuracy(reader: PatchReader, batch: PracticeBatch) -> dict[str, float]:
    """Share of patches whose owner is named, by block: all patches, and patches of objects."""
    device = next(reader.parameters()).device
    owners = batch.owners.to(device)
    logits = reader(normalised(batch.pixels.to(device)))
    objects = owners < len(OBJECTS)
    result = {}
    for block, values in logits.items():
        right = values[..., : N_OWNERS + 1].argmax(-1) == owners
        result[f"{block}"] = round(right.float().mean().item(), 3)
        result[f"{block} objects"] = round(right[objects].float().mean().item(), 3)
    return result


def load_tower(weights: Path) -> SiglipVisionModel:
    """The trained tower from its weights."""
    tower = SiglipVisionModel(tower_config())
    tower.load_state_dict(load_file(weights))
    return tower.eval()
