"""What the world's models can do, measured on held-out scenes and stored in assets/world/evaluation.json.

Everything goes through the Gemma 3 adapter and the saved checkpoint, as any subject would. Seeds are used nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from backend.errors import UnparsableExplanation
from backend.heatmaps import HEATMAP_ALPHA, heatmap_image, masked_image
from backend.models import load_subject
from backend.models.base import SubjectModel
from backend.types import HookPoint, Split
from precompute.statistics import wilson
from precompute.world.captions import NOTHING, visible_concepts
from precompute.world.concepts import CONCEPTS, N_OWNERS, OBJECTS
from precompute.world.corpus import WorldCorpus, open_corpus
from precompute.world.parser import parse
from precompute.world.practice import untidy
from precompute.world.prompts import DESCRIBE, HEATMAPS, HIGHLIGHTED, MASKS
from precompute.world.questions import DESCRIBE_MIX, HIGHLIGHT_MIX
from precompute.world.render import Rendered, patch_owners, render
from precompute.world.scenes import draw_scene

SEED = 4242
NAMED_PER_CONCEPT = 6
N_CAPTIONS = 400
N_MULTI = 186
SMALLEST_PATCHES = 6
N_BOOTSTRAP = 1000
PROBE_IMAGES = (600, 300)
"""Images that fit and that test the linear probe."""


def evaluate_world(world_dir: Path, *, layer: int) -> Path:
    """Measure and write ``evaluation.json``; returns its path."""
    subject = load_subject(world_dir / "subject", HookPoint(layer=layer))
    rng = np.random.default_rng(SEED)
    report: dict[str, Any] = {
        "naming": _naming(subject, rng),
        "caption_f1": _caption_f1(subject, rng),
        "blank": _blank(subject),
        "two_images": _several(subject, rng, 2),
        "five_images": _several(subject, rng, 5),
        "object_probe": object_probes(world_dir),
    }
    path = world_dir / "evaluation.json"
    path.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def share(right: Sequence[bool]) -> dict[str, float | int | None]:
    """A share with its Wilson 95 % interval."""
    return wilson(sum(right), len(right)).as_dict()


def answers(subject: SubjectModel, pictures: Sequence[Sequence[Image.Image]], prompt: str) -> list[str]:
    """The subject's greedy answers to one prompt over rows of equally many pictures."""
    count, texts = len(pictures[0]), list[str]()
    for start in range(0, len(pictures), 64):
        rows = pictures[start : start + 64]
        pixels = subject.preprocess([picture for row in rows for picture in row])
        state = subject.state_at_hook(pixels)
        embeddings = subject.from_hook(state.patches, state.prefix_tokens)
        shaped = embeddings.reshape(len(rows), count, *embeddings.shape[1:])
        texts += subject.generate(shaped, prompt, max_new_tokens=48)
    return texts


def single_concept_image(rng: np.random.Generator, concept: int, variant: str) -> Image.Image:
    """A held-out scene showing nothing but one concept: the rest is masked away, or the concept lies under heat."""
    wanted = CONCEPTS[concept].id
    while True:
        spec = draw_scene(rng, HIGHLIGHT_MIX)
        held = {placed.object for placed in spec.objects} | {area.fill for area in spec.areas}
        if wanted not in held or spec.blurred or spec.dark or spec.monochrome:
            continue
        rendered = render(spec)
        mask = rendered.patch_masks()[concept]
        if mask.sum() < SMALLEST_PATCHES:
            continue
        if variant == "masks":
            return masked_image(rendered.image, mask.astype(float))
        return heatmap_image(rendered.image, untidy(rng, mask), HEATMAP_ALPHA)


def names(text: str, concept_id: str) -> bool:
    """Whether the text names exactly this concept."""
    try:
        return parse(text).concepts == (concept_id,)
    except UnparsableExplanation:
        return False


def _naming(subject: SubjectModel, rng: np.random.Generator) -> dict[str, Any]:
    """Masked images showing a single concept, six per concept that can own a patch."""
    wanted = np.repeat(np.arange(N_OWNERS), NAMED_PER_CONCEPT)
    pictures = [[single_concept_image(rng, int(index), "masks")] for index in wanted]
    texts = answers(subject, pictures, HIGHLIGHTED[0])
    right = [names(text, CONCEPTS[index].id) for index, text in zip(wanted, texts, strict=True)]
    kinds: dict[str, list[bool]] = {}
    for index, one in zip(wanted, right, strict=True):
        kinds.setdefault(CONCEPTS[index].kind, []).append(one)
    return {"all": share(right), "by_kind": {kind: share(values) for kind, values in kinds.items()}}


def _several(subject: SubjectModel, rng: np.random.Generator, count: int) -> dict[str, Any]:
    """Prompts with several images of one concept: masked, and under heat."""
    report = {}
    for variant, prompt in (("masks", MASKS[0]), ("heatmaps", HEATMAPS[0])):
        wanted = rng.permutation(np.resize(np.arange(N_OWNERS), N_MULTI))
        pictures = [[single_concept_image(rng, int(index), variant) for _ in range(count)] for index in wanted]
        texts = answers(subject, pictures, prompt)
        report[variant] = share([names(text, CONCEPTS[i].id) for i, text in zip(wanted, texts, strict=True)])
    return report


def _caption_f1(subject: SubjectModel, rng: np.random.Generator) -> dict[str, Any]:
    """Micro-averaged F1 of the concepts named in descriptions of held-out scenes; interval by bootstrap over scenes."""
    scenes = [render(draw_scene(rng, DESCRIBE_MIX)) for _ in range(N_CAPTIONS)]
    texts = answers(subject, [[rendered.image] for rendered in scenes], DESCRIBE[0])
    counts = np.array([_matches(text, rendered) for text, rendered in zip(texts, scenes, strict=True)], float)

    def f1(rows: np.ndarray) -> float:
        both, said, shown = rows.sum(0)
        return float(2 * both / (said + shown))

    resampled = np.random.default_rng(SEED).integers(0, len(counts), (N_BOOTSTRAP, len(counts)))
    low, high = np.quantile([f1(counts[rows]) for rows in resampled], [0.025, 0.975])
    return {"value": f1(counts), "low": float(low), "high": float(high), "n": len(scenes)}


def _matches(text: str, rendered: Rendered) -> tuple[int, int, int]:
    shown = set(visible_concepts(rendered))
    try:
        said = set(parse(text).concepts)
    except UnparsableExplanation:
        said = set()
    return len(shown & said), len(said), len(shown)


def _blank(subject: SubjectModel) -> dict[str, Any]:
    """The answer to blank paper, for every wording of the single-image prompts."""
    texts = [answers(subject, [[subject.blank_image()]], prompt)[0] for prompt in (*HIGHLIGHTED, *DESCRIBE)]
    return {"answer": texts[0], "says_nothing": share([text == NOTHING for text in texts])}


def object_probes(world_dir: Path) -> dict[str, Any]:
    """Accuracy of a linear probe for the object owning a patch, after every block, on the score corpus."""
    blocks = json.loads((world_dir / "subject" / "config.json").read_text())["vision_config"]["num_hidden_layers"]
    fit, test = (open_corpus(world_dir / "corpus", split) for split in (Split.EXPLAIN, Split.SCORE))
    report = {}
    for block in range(blocks):
        subject = load_subject(world_dir / "subject", HookPoint(layer=block))
        probe = _fit_probe(*_object_patches(subject, fit, PROBE_IMAGES[0]))
        inputs, labels = _object_patches(subject, test, PROBE_IMAGES[1])
        report[f"block_{block}"] = share((probe(inputs).argmax(-1) == labels).tolist())
    return report


def _object_patches(
    subject: SubjectModel, corpus: WorldCorpus, n_images: int
) -> tuple[Float[Tensor, "token d_model"], Int[Tensor, " token"]]:
    ids = corpus.ids[:n_images]
    residuals = torch.cat(
        [
            subject.to_hook(subject.preprocess([corpus.load(one) for one in ids[start : start + 50]]))
            for start in range(0, n_images, 50)
        ]
    ).flatten(0, 1)
    owners = torch.from_numpy(np.stack([patch_owners(corpus.owners(one)) for one in ids]).astype(int)).flatten()
    shown = owners < len(OBJECTS)
    return residuals[shown], owners[shown]


def _fit_probe(inputs: Float[Tensor, "token d_model"], labels: Int[Tensor, " token"]) -> torch.nn.Module:
    """Multinomial logistic regression on standardised inputs."""
    torch.manual_seed(0)
    mean, spread = inputs.mean(0), inputs.std(0) + 1e-6
    linear = torch.nn.Linear(inputs.shape[1], len(OBJECTS))
    optimizer = torch.optim.AdamW(linear.parameters(), lr=0.01, weight_decay=1e-3)
    scaled = (inputs - mean) / spread
    for epoch in range(8):
        for rows in torch.randperm(len(scaled), generator=torch.Generator().manual_seed(epoch)).split(2048):
            loss = F.cross_entropy(linear(scaled[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    linear.requires_grad_(False)
    return torch.nn.Sequential(_Standardise(mean, spread), linear)


class _Standardise(torch.nn.Module):
    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.mean, self.spread = mean, spread

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.spread
