"""Questions with answers for the subject's language model, over pictures already passed through the frozen tower.

A bank holds the tower's pooled outputs: whole scenes with their captions, and pictures highlighting one concept
(masked or under heat) ordered by concept. Multi-image questions are drawn from the bank, so one pass of the tower
serves many questions. No answer is ever about a steered activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from backend.heatmaps import HEATMAP_ALPHA, heatmap_image, masked_image
from precompute.world.captions import ASKED_GROUPS, NOTHING, caption, group_phrase, phrase
from precompute.world.concepts import CONCEPT_INDEX, CONCEPTS, N_OWNERS
from precompute.world.practice import shown_concepts, untidy
from precompute.world.prompts import DESCRIBE, HEATMAPS, HIGHLIGHTED, MASKS
from precompute.world.render import Rendered, render
from precompute.world.scenes import draw_scene, wallpaper

Pooled = Callable[[Sequence[Image.Image]], Float[Tensor, "image token d_model"]]
VARIANTS = ("masks", "heatmaps")
HIGHLIGHT_MIX = {"scene": 0.36, "packed": 0.30, "panel": 0.26, "wallpaper": 0.04, "studio": 0.04}
DESCRIBE_MIX = {"scene": 0.62, "panel": 0.28, "studio": 0.1}
CAPTIONS_PER_SCENE = 2
GROUP_FRACTION = 0.12
STRANGER_FRACTION = 0.1
NOTHING_FRACTION = 0.06
KINDS = {"describe": 0.4, "highlighted": 0.14, "masks": 0.16, "heatmaps": 0.3}
IMAGE_COUNTS = (1, 2, 3, 5, 5, 5)


@dataclass(slots=True)
class Bank:
    """Pooled tower outputs with what they show."""

    pooled: list[Tensor] = field(default_factory=list)
    scenes: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """Row and captions of whole scenes."""
    highlighted: dict[str, list[list[int]]] = field(
        default_factory=lambda: {variant: [[] for _ in CONCEPTS] for variant in VARIANTS}
    )
    """Rows by variant and concept."""
    whole: list[list[int]] = field(default_factory=lambda: [[] for _ in CONCEPTS])
    """Rows of pictures that show one concept everywhere."""
    blank: list[int] = field(default_factory=list)

    def stacked(self) -> Float[Tensor, "image token d_model"]:
        return torch.cat(self.pooled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Rows of one training batch: same prompt, same number of images."""

    prompt: str
    rows: list[list[int]]
    answers: list[str]


def highlighted_images(
    rng: np.random.Generator, rendered: Rendered, counts: np.ndarray, at_most: int = 3
) -> Iterator[tuple[int, str, Image.Image]]:
    """Yield (concept, variant, picture) for up to ``at_most`` of the concepts shown, the rarest so far first."""
    masks = rendered.patch_masks()
    choices = [index for index in shown_concepts(masks) if index < N_OWNERS or _many_owners(rendered, masks[index])]
    choices.sort(key=lambda index: (counts[index].sum(), index))
    for index in choices[:at_most]:
        variant = VARIANTS[int(np.argmin(counts[index]))]
        grid = untidy(rng, masks[index], faintest=rng.uniform(0.1, 0.7))
        image = (
            masked_image(rendered.image, grid)
            if variant == "masks"
            else heatmap_image(rendered.image, grid, HEATMAP_ALPHA)
        )
        counts[index, VARIANTS.index(variant)] += 1
        yield index, variant, image


def _many_owners(rendered: Rendered, mask: np.ndarray) -> bool:
    """A factor of light is only the answer where it is all that the highlighted patches share."""
    return len(np.unique(rendered.patch_owners()[mask])) >= 2


def build_bank(seed: int, n_scenes: int, n_highlight_scenes: int, pool: Pooled, chunk: int = 64) -> Bank:
    """Draw pictures and pass them through the tower, ``chunk`` at a time."""
    rng = np.random.default_rng(seed)
    bank, waiting = Bank(), list[Image.Image]()
    n_rows = 0

    def add(image: Image.Image) -> int:
        nonlocal n_rows
        waiting.append(image)
        if len(waiting) == chunk:
            bank.pooled.append(pool(waiting))
            waiting.clear()
        n_rows += 1
        return n_rows - 1

    for _ in range(n_scenes):
        rendered = render(draw_scene(rng, DESCRIBE_MIX))
        texts = tuple(caption(rng, rendered) for _ in range(CAPTIONS_PER_SCENE))
        bank.scenes.append((add(rendered.image), texts))
    counts = np.zeros((len(CONCEPTS), len(VARIANTS)), int)
    for _ in range(n_highlight_scenes):
        for index, variant, image in highlighted_images(rng, render(draw_scene(rng, HIGHLIGHT_MIX)), counts):
            bank.highlighted[variant][index].append(add(image))
    for index in np.tile(np.arange(N_OWNERS), 8):
        bank.whole[index].append(add(render(wallpaper(rng, CONCEPTS[index].id)).image))
    for _ in range(24):
        bank.blank.append(add(_blank(rng)))
    if waiting:
        bank.pooled.append(pool(waiting))
    return bank


def _blank(rng: np.random.Generator) -> Image.Image:
    """White, black, or white under an even heatmap."""
    draw = int(rng.integers(4))
    paper = Image.new("RGB", (128, 128), "black" if draw == 1 else "white")
    return heatmap_image(paper, rng.uniform(0, 1, (16, 16)), HEATMAP_ALPHA) if draw == 2 else paper


def draw_question(rng: np.random.Generator, bank: Bank, batch: int) -> Question:
    """One batch of questions of one kind, one wording and one number of images."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    if kind == "describe":
        rows, answers = zip(*(_describe(rng, bank) for _ in range(batch)), strict=True)
        return Question(prompt=_wording(rng, DESCRIBE), rows=list(rows), answers=list(answers))
    count = 1 if kind == "highlighted" else int(rng.choice(IMAGE_COUNTS))
    prompts = {"highlighted": HIGHLIGHTED, "masks": MASKS, "heatmaps": HEATMAPS}[kind]
    drawn = [_name(rng, bank, kind, count) for _ in range(batch)]
    return Question(
        prompt=_wording(rng, prompts), rows=[rows for rows, _ in drawn], answers=[text for _, text in drawn]
    )


def _wording(rng: np.random.Generator, prompts: tuple[str, ...]) -> str:
    return prompts[0] if rng.random() < 0.6 else prompts[int(rng.integers(len(prompts)))]


def _describe(rng: np.random.Generator, bank: Bank) -> tuple[list[int], str]:
    if rng.random() < NOTHING_FRACTION:
        return [_pick(rng, bank.blank)], NOTHING
    row, texts = bank.scenes[int(rng.integers(len(bank.scenes)))]
    return [row], texts[int(rng.integers(len(texts)))]


def _name(rng: np.random.Generator, bank: Bank, kind: str, count: int) -> tuple[list[int], str]:
    """Rows that highlight one concept (or one group), and its name."""
    variant = kind if kind in VARIANTS else VARIANTS[int(rng.random() < 0.35)]
    if rng.random() < NOTHING_FRACTION:
        return [_pick(rng, bank.blank) for _ in range(count)], NOTHING
    pools = bank.highlighted[variant]
    if count >= 3 and rng.random() < GROUP_FRACTION:
        return _group(rng, pools, count)
    known = [index for index, rows in enumerate(pools) if rows]
    concept = known[int(rng.integers(len(known)))]
    if kind == "highlighted" and bank.whole[concept] and rng.random() < 0.25:
        return [_pick(rng, bank.whole[concept])], phrase(rng, CONCEPTS[concept].id)
    rows = [_pick(rng, pools[concept]) for _ in range(count)]
    if count >= 3 and rng.random() < 4 * STRANGER_FRACTION:
        rows[int(rng.integers(count))] = _pick(rng, pools[known[int(rng.integers(len(known)))]])
    return rows, phrase(rng, CONCEPTS[concept].id)


def _group(rng: np.random.Generator, pools: list[list[int]], count: int) -> tuple[list[int], str]:
    """Different members of one group, evenly mixed: the answer is the group."""
    group = ASKED_GROUPS[int(rng.integers(len(ASKED_GROUPS)))]
    members = [
        CONCEPT_INDEX[c.id] for c in CONCEPTS if group in (c.family, *c.hypernyms) and pools[CONCEPT_INDEX[c.id]]
    ]
    order = rng.permutation(len(members))
    rows = [_pick(rng, pools[members[int(order[slot % len(members)])]]) for slot in range(count)]
    return rows, group_phrase(group)


def _pick(rng: np.random.Generator, rows: list[int]) -> int:
    return rows[int(rng.integers(len(rows)))]
