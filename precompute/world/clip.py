"""A small CLIP for the world: open_clip's own model class, trained from scratch on the scenes.

Vision: 16 px patches, width 128, four blocks. Text: the world's words, width 128, two blocks. Pictures are resized
whole, never centre-cropped. Besides the contrastive loss, each patch token learns what owns its patch (a head thrown
away afterwards), which teaches sixty-four objects in minutes. It shares no weight with the subject.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from backend.errors import DependencyMissing
from precompute.judges.open_clip_encoder import SETTINGS, TOKENIZER, WEIGHTS, OpenClipEncoder
from precompute.world.captions import caption, phrase
from precompute.world.concepts import CONCEPTS, N_OWNERS, OUTSIDE
from precompute.world.fills import SIDE_PX
from precompute.world.parser import parse
from precompute.world.questions import DESCRIBE_MIX, HIGHLIGHT_MIX, highlighted_images
from precompute.world.render import PATCH_PX, patch_owners, render
from precompute.world.scenes import draw_scene

logger = logging.getLogger(__name__)

CONTEXT_TOKENS = 48
PATCH = 16
CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"layers": 4, "width": 128, "head_width": 32, "patch_size": PATCH, "image_size": SIDE_PX,
                   "output_tokens": True},
    "text_cfg": {"context_length": CONTEXT_TOKENS, "width": 128, "heads": 4, "layers": 2, "pad_id": 0, "eos_id": 1,
                 "pool_type": "eos"},
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTraining:
    """Science settings; about eight minutes on two cores."""

    n_scenes: int = 5000
    n_highlight_scenes: int = 5000
    epochs: int = 8
    batch: int = 128
    learning_rate: float = 2e-3
    seed: int = 2


def _build(vocabulary: int) -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise DependencyMissing("open_clip_torch is not installed: pip install open_clip_torch") from error
    text = {**CONFIG["text_cfg"], "vocab_size": vocabulary}
    make: Any = open_clip.CLIP
    return make(CONFIG["embed_dim"], CONFIG["vision_cfg"], text, output_dict=True)


def _tokens(tokenizer: Any, texts: Sequence[str], context_length: int = CONTEXT_TOKENS) -> Tensor:
    """Ids [text, context_length]: words, <eos>, padding; a long text keeps its first words."""
    rows = torch.zeros(len(texts), context_length, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False)
        ids = (ids if isinstance(ids, list) else ids.ids)[: context_length - 1]
        row[: len(ids) + 1] = torch.tensor([*ids, 1])
    return rows


def _scaled(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0


@dataclass(slots=True)
class _Lessons:
    """Pictures with their words and patch owners."""

    pixels: Tensor
    texts: list[str]
    owners: Tensor
    """Soft labels [image, patch, owner]: shares of each 16 px patch."""


def _lessons(settings: ClipTraining) -> _Lessons:
    rng = np.random.default_rng([settings.seed, 21])
    counts = np.zeros((len(CONCEPTS), 2), int)
    images: list[np.ndarray] = []
    texts: list[str] = []
    owners: list[np.ndarray] = []
    for _ in range(settings.n_scenes):
        rendered = render(draw_scene(rng, DESCRIBE_MIX))
        images.append(rendered.pixels)
        texts.append(caption(rng, rendered))
        owners.append(_soft_owners(rendered.owners, None))
    for _ in range(settings.n_highlight_scenes):
        rendered = render(draw_scene(rng, HIGHLIGHT_MIX))
        for index, variant, image in highlighted_images(rng, rendered, counts, at_most=2):
            if variant == "masks":
                images.append(np.asarray(image))
                texts.append(phrase(rng, CONCEPTS[index].id))
                owners.append(_soft_owners(rendered.owners, np.asarray(np.asarray(image).any(-1))))
    return _Lessons(torch.from_numpy(np.stack(images)), texts, torch.from_numpy(np.stack(owners)))


def _soft_owners(owners: np.ndarray, shown: np.ndarray | None) -> np.ndarray:
    visible = owners if shown is None else np.where(shown, owners, OUTSIDE)
    patches = patch_owners(visible).astype(int)
    patches[patches == OUTSIDE] = N_OWNERS
    side, ratio = SIDE_PX // PATCH, PATCH // PATCH_PX
    tiles = patches.reshape(side, ratio, side, ratio).transpose(0, 2, 1, 3).reshape(side * side, -1)
    soft = np.zeros((side * side, N_OWNERS + 1), np.float16)
    for slot in range(tiles.shape[1]):
        soft[np.arange(side * side), tiles[:, slot]] += 1 / tiles.shape[1]
    return soft


def _same_meaning(texts: Sequence[str]) -> Tensor:
    """Rows of a target distribution: texts naming the same concepts are one another's positives."""
    named = [frozenset((*parse(text).concepts, *parse(text).groups)) for text in texts]
    same = torch.tensor([[float(a == b) for b in named] for a in named])
    return same / same.sum(1, keepdim=True)


def train_clip(out_dir: Path, settings: ClipTraining | None = None) -> Path:
    """Train the CLIP and save it (weights, config, tokenizer) to ``out_dir/clip``."""
    from precompute.world.assembly import build_tokenizer  # transformers: slow to import, needed for training only

    settings = settings or ClipTraining()
    torch.manual_seed(settings.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = build_tokenizer()
    model, reader = _build(len(tokenizer)).to(device), nn.Linear(128, N_OWNERS + 1).to(device)
    lessons = _lessons(settings)
    parameters = [*model.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    per_epoch = len(lessons.texts) // settings.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=per_epoch * settings.epochs
    )
    logger.info("%d lessons, %d steps", len(lessons.texts), per_epoch * settings.epochs)
    for epoch in range(settings.epochs):
        order = torch.from_numpy(np.random.default_rng([settings.seed, epoch]).permutation(len(lessons.texts)))
        losses: list[float] = []
        shares: list[float] = []
        for step in range(per_epoch):
            rows = order[step * settings.batch : (step + 1) * settings.batch]
            loss, matched = _loss(model, reader, lessons, rows, tokenizer, device)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.item())
            shares.append(matched)
        logger.info("epoch %d loss %.3f matched %.3f", epoch + 1, np.mean(losses), np.mean(shares))
    return _save(model, tokenizer, settings, out_dir / "clip")


def _loss(
    model: Any, reader: nn.Linear, lessons: _Lessons, rows: Tensor, tokenizer: Any, device: str
) -> tuple[Tensor, float]:
    texts = [lessons.texts[row] for row in rows.tolist()]
    with torch.autocast(device, dtype=torch.bfloat16):
        pooled, patches = model.visual(_scaled(lessons.pixels[rows].to(device)))
        words = model.encode_text(_tokens(tokenizer, texts).to(device), normalize=True)
        logits = model.logit_scale.exp().clamp(max=100) * F.normalize(pooled.float(), dim=-1) @ words.float().T
        owners = reader(patches)
    target = _same_meaning(texts).to(device)
    contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    patch_loss = F.cross_entropy(owners.float().flatten(0, 1), lessons.owners[rows].to(device).float().flatten(0, 1))
    matched = target[torch.arange(len(rows)), logits.argmax(1).cpu()].gt(0).float().mean().item()
    return contrast + patch_loss, matched


def _save(model: Any, tokenizer: Any, settings: ClipTraining, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    config = {"model_cfg": CONFIG, "vocab_size": len(tokenizer), "training": asdict(settings)}
    (folder / SETTINGS).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    return folder


class WorldClipEncoder(OpenClipEncoder):
    """The world's image-text judge: the same encoder with one token for a word, and pixels from -1 to 1."""

    def __init__(self, folder: Path) -> None:
        """Raises SubjectMissing."""
        super().__init__(folder, mend="Restore it with `git checkout -- assets/world/clip`.")

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in (SETTINGS, TOKENIZER, WEIGHTS):
            digest.update((self._folder / name).read_bytes())
        return digest.hexdigest()

    @cached_property
    def _preprocessing(self) -> dict[str, Any]:
        return {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    @cached_property
    def _tokenize(self) -> Any:
        from tokenizers import Tokenizer

        return partial(_tokens, Tokenizer.from_file(str(self._folder / TOKENIZER)))

    def _layout(self) -> dict[str, Any]:
        return {"text_cfg": {**self._settings["model_cfg"]["text_cfg"], "vocab_size": self._settings["vocab_size"]}}
