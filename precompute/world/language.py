"""Training of the subject's projector and language model on the frozen tower's outputs.

The tower runs once per picture; what is cached is its final normalised output, averaged to 4 x 4 cells as Gemma 3's
projector does first. Gaussian noise on these outputs keeps the language model from relying on their exact values.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import Gemma3ForConditionalGeneration, Gemma3Processor, SiglipVisionModel

from precompute.world.assembly import TOKENS_PER_IMAGE, build_processor, build_subject, build_tokenizer
from precompute.world.checkpoints import load_checkpoint, save_checkpoint
from precompute.world.optimizers import muon_and_adamw, set_learning_rate, step_and_clear
from precompute.world.questions import Bank, Question, build_bank, draw_question
from precompute.world.tower import block_outputs, load_tower, normalised

logger = logging.getLogger(__name__)

CHECKPOINT_EVERY_STEPS = 200
IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageTraining:
    """Science settings; about 20 minutes on two cores."""

    n_scenes: int = 7000
    n_highlight_scenes: int = 6000
    steps: int = 2300
    batch: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    noise: float = 0.15
    """Standard deviation of the noise, as a share of the outputs' own."""
    seed: int = 1


def pooled_outputs(
    tower: SiglipVisionModel, device: str, images: Sequence[Image.Image]
) -> Float[Tensor, "image token d_model"]:
    """The tower's normalised output averaged over 4 x 4 patches."""
    pixels = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images])).to(device)
    core: Any = getattr(tower, "vision_model", tower)
    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16):
        hidden = core.post_layernorm(block_outputs(tower, normalised(pixels))[-1]).float()
    side = int(hidden.shape[1] ** 0.5)
    grid = hidden.transpose(1, 2).reshape(len(images), -1, side, side)
    cells = F.avg_pool2d(grid, side // int(TOKENS_PER_IMAGE**0.5))
    return cells.flatten(2).transpose(1, 2).cpu()


class Speaker(nn.Module):
    """The parts that are trained: projector and language model, with the loss on the answer's words."""

    def __init__(self, subject: Gemma3ForConditionalGeneration) -> None:
        super().__init__()
        self.projector = subject.model.multi_modal_projector
        self.text = subject.model.language_model
        self.subject_head = subject.lm_head

    def forward(
        self,
        cells: Float[Tensor, "prompt cell d_model"],
        prompt: Tensor,
        image_positions: Tensor,
        answers: Tensor,
        masks: dict[str, Tensor],
    ) -> Tensor:
        projector = self.projector
        soft = projector.mm_soft_emb_norm(cells) @ projector.mm_input_projection_weight
        asked = self.text.embed_tokens(prompt)[None].expand(len(cells), -1, -1).clone()
        asked[:, image_positions] = soft.to(asked.dtype)
        said = self.text.embed_tokens(answers.clamp_min(0)[:, :-1])
        hidden = self.text(
            inputs_embeds=torch.cat([asked, said], 1), attention_mask=masks, use_cache=False
        ).last_hidden_state
        logits = self.subject_head(hidden[:, prompt.shape[0] - 1 :])
        return F.cross_entropy(logits.float().flatten(0, 1), answers.flatten(), ignore_index=IGNORED)


class Asker:
    """Turns questions into tensors: prompt ids, positions of the image tokens, answers, attention masks."""

    def __init__(self, subject: Gemma3ForConditionalGeneration, processor: Gemma3Processor) -> None:
        self.subject, self.processor = subject, processor
        self.tokenizer: Any = processor.tokenizer
        self.end = int(self.tokenizer.convert_tokens_to_ids("<end_of_turn>"))
        self.image_token = int(self.tokenizer.convert_tokens_to_ids("<image_soft_token>"))
        self._prompts: dict[tuple[str, int], Tensor] = {}

    def prompt_ids(self, prompt: str, n_images: int) -> Tensor:
        key = (prompt, n_images)
        if key not in self._prompts:
            blank = Image.new("RGB", (128, 128), "white")
            content: list[dict[str, object]] = [{"type": "image", "image": blank} for _ in range(n_images)]
            turn = [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]
            inputs: Any = self.processor.apply_chat_template(
                turn, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
            )
            self._prompts[key] = inputs["input_ids"][0]
        return self._prompts[key]

    def answer_ids(self, answers: list[str]) -> Tensor:
        rows = [[*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end] for text in answers]
        longest = -(-max(len(row) for row in rows) // 8) * 8
        return torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows])

    def tensors(self, question: Question) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        prompt = self.prompt_ids(question.prompt, len(question.rows[0]))
        answers = self.answer_ids(question.answers)
        is_image = prompt == self.image_token
        kinds = torch.cat([is_image.long(), torch.zeros(answers.shape[1] - 1, dtype=torch.long)])[None]
        masks: Any = self.subject.create_masks_for_generate(
            config=self.subject.config,
            inputs_embeds=torch.zeros(1, kinds.shape[1], 1),
            attention_mask=None,
            past_key_values=None,
            position_ids=None,
            token_type_ids=kinds,
        )
        return prompt, is_image.nonzero().squeeze(1), answers, dict(masks)


def _rate(step: int, settings: LanguageTraining) -> float:
    left = (settings.steps - step) / (0.7 * settings.steps)
    return settings.learning_rate * min((step + 1) / settings.warmup_steps, left, 1.0)


def train_language(tower_weights: Path, out_dir: Path, settings: LanguageTraining | None = None) -> Path:
    """Train (or go on training) the language model; saves the whole subject to ``out_dir/subject``."""
    settings = settings or LanguageTraining()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tower: Any = load_tower(tower_weights)
    tower.to(device)
    tokenizer = build_tokenizer()
    processor = build_processor(tokenizer)
    subject: Any = build_subject(tokenizer, tower, settings.seed)
    started = time.monotonic()
    bank = build_bank(settings.seed, settings.n_scenes, settings.n_highlight_scenes,
                      lambda images: pooled_outputs(tower, device, images))  # fmt: skip
    logger.info("bank of %d pictures in %.0f s", sum(len(rows) for rows in bank.pooled), time.monotonic() - started)
    _teach(subject, processor, bank, out_dir, settings, device)
    folder = out_dir / "subject"
    subject.cpu().to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _teach(subject: Gemma3ForConditionalGeneration, processor: Gemma3Processor, bank: Bank, out_dir: Path,
           settings: LanguageTraining, device: str) -> None:  # fmt: skip
    speaker = Speaker(subject).to(device)
    optimizers = muon_and_adamw(speaker, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    checkpoint = out_dir / "language.checkpoint.safetensors"
    done = load_checkpoint(checkpoint, speaker, optimizers)
    asker, cells = Asker(subject, processor), bank.stacked()
    spread = cells.flatten(0, 1).std(0)
    started = time.monotonic()
    for step in range(done, settings.steps):
        rng = np.random.default_rng([settings.seed, 7, step])
        question = draw_question(rng, bank, settings.batch)
        prompt, positions, answers, masks = asker.tensors(question)
        shown = cells[torch.tensor(question.rows)].flatten(1, 2)
        noise = torch.from_numpy(rng.standard_normal(shown.shape, dtype=np.float32))
        shown = shown + noise * spread * settings.noise * float(rng.random())
        set_learning_rate(optimizers, _rate(step, settings))
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = speaker(shown.to(device), prompt.to(device), positions.to(device), answers.to(device),
                           {name: mask.to(device) for name, mask in masks.items()})  # fmt: skip
        loss.backward()
        nn.utils.clip_grad_norm_(speaker.parameters(), 1.0)
        step_and_clear(optimizers)
        if (step + 1) % CHECKPOINT_EVERY_STEPS == 0 or step + 1 == settings.steps:
            save_checkpoint(checkpoint, step + 1, speaker, optimizers)
            speed = (step + 1 - done) * settings.batch / (time.monotonic() - started)
            logger.info("step %d loss %.3f %.1f questions/s", step + 1, loss.item(), speed)
