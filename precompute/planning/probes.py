"""Unit costs measured on this machine: each unit of work of a recipe done a few times, by the code that a run uses.

The SAE is random and the features are no ones that mean anything; sizes, models and images are the recipe's own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from backend.explainers import explainer_for
from backend.explainers.base import ExemplarInput, ExplainerContext, ExplanationRequest, PrefixCache
from backend.sae import SAEConfig, TopKSAE
from backend.text_encoders import load_text_encoder
from backend.types import Arm, Explanation, Method, Split, Variant
from precompute.arms import possible_arms
from precompute.datasets import open_image_set
from precompute.encoding import EncodedChunk, encode_images, fixed_threads
from precompute.judges import open_judges
from precompute.metrics import mask_overlap
from precompute.metrics.truth import average_precisions, precision_intervals
from precompute.planning.unit_costs import UnitCosts
from precompute.recipe import Recipe, Runtime
from precompute.sae_run import trainer_config
from precompute.sae_trainer import SAETrainer
from precompute.sparse_codes import by_feature
from precompute.stages.harvest import ShardSums
from precompute.subject import device_of, open_explainer, open_tower
from precompute.synthesis import draw, webp_bytes

N_IMAGES = 128
N_STEPS = 4
N_FEATURES = 64
N_TEXTS = 8
N_TRUTH = 24
STAND_IN = "a red circle"
"""Judged where the model said nothing in the probe: it may speak in the run, and that work is not free."""
KNOWN_SHARE = 0.3
"""Assumed share of features whose truth is known: only their average precision gets an interval."""
ACTIVE_SHARE = 0.1
"""Patches of an exemplar on which a feature is active."""
MAP_SECONDS = 0.012
"""A feature's share of UMAP and k-means; not measured, since UMAP compiles itself for ten seconds first."""
FIXED_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """Pictures that stand in for exemplars."""

    ids: tuple[str, ...]
    images: tuple[Image.Image, ...]
    grids: tuple[np.ndarray, ...]


def measure(recipe: Recipe, runtime: Runtime) -> UnitCosts:
    """Do every unit of work a few times. Raises what loading the recipe's models and images raises."""
    with fixed_threads(runtime.workers):
        return _Probes(recipe, runtime).unit_costs()


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class _Probes:
    """One measurement, part by part; later parts use what earlier ones made."""

    def __init__(self, recipe: Recipe, runtime: Runtime) -> None:
        self.recipe = recipe
        self.runtime = runtime
        self.subject = open_tower(recipe, runtime)
        self.images = open_image_set(recipe, Split.EXPLAIN)
        self.judges = open_judges(recipe, runtime)
        self.sae = self._random_sae()
        self.n_features = min(N_FEATURES, recipe.explain.features_per_shard, recipe.sae.d_sae)

    def unit_costs(self) -> UnitCosts:
        encode = self._encode()
        blank, picture, shown = self._answers()
        return UnitCosts(
            encode_image=encode,
            count_image=self._count(),
            train_step=self._train_step(),
            blank_answer=blank,
            shown_picture=picture,
            shown_answer=shown,
            region=self._region(),
            embed_picture=self._embed_picture(),
            generate_image=self._generate(),
            truth_feature=self._truth(),
            embed_text=self._embed_text(),
            map_feature=MAP_SECONDS,
            thumbnail=self._thumbnail(),
            fixed=FIXED_SECONDS,
        )

    def _random_sae(self) -> TopKSAE:
        generator = torch.Generator().manual_seed(0)
        sae, d_model = self.recipe.sae, self.subject.d_model
        rows = torch.nn.functional.normalize(torch.randn(sae.d_sae, d_model, generator=generator), dim=1)
        config = SAEConfig(d_model=d_model, d_sae=sae.d_sae, k=sae.k, hook_point=self.subject.hook_point)
        zeros = torch.zeros(sae.d_sae)
        return TopKSAE(config, W_enc=rows.T, b_enc=zeros, W_dec=rows, b_dec=torch.zeros(d_model)).to(
            torch.device(device_of(self.runtime))
        )

    # encoder and SAE -------------------------------------------------------------------------------------------------

    def _chunks(self, ids: Sequence[str]) -> list[EncodedChunk]:
        size = min(self.runtime.images_per_batch, max(1, len(ids) // 4))
        return list(encode_images(self.subject, self.images, ids, images_per_batch=size))

    def _encode(self) -> float:
        ids = self.images.ids[:N_IMAGES]
        self._chunks(ids[:4])  # the first pass through a model allocates
        started = time.perf_counter()
        self.chunks = self._chunks(ids)
        return (time.perf_counter() - started) / len(ids)

    def _count(self) -> float:
        sums = ShardSums(Split.EXPLAIN, self.sae.d_sae, self.recipe, torch.device(device_of(self.runtime)))
        chunk = self.chunks[-1]
        return _seconds(lambda: sums.add(self.sae, chunk.residuals, chunk.positions)) / len(chunk.positions)

    def _train_step(self) -> float:
        config = trainer_config(self.recipe, self.subject.d_model)
        trainer = SAETrainer(config, device_of(self.runtime))
        tokens = torch.cat([chunk.residuals.flatten(0, 1) for chunk in self.chunks])
        tokens = tokens[torch.arange(config.batch_tokens) % len(tokens)]
        trainer.initialise(tokens[:1024])
        trainer.step(tokens)
        return min(_seconds(lambda: trainer.step(tokens)) for _ in range(N_STEPS))

    # explanations ----------------------------------------------------------------------------------------------------

    def _context(self) -> ExplainerContext:
        explain = self.recipe.explain
        prompts = explain.prompts
        named = {name: getattr(prompts, name) for name in ("steering", "top_k_masks", "top_k_heatmaps")}
        return ExplainerContext(
            subject=open_explainer(self.recipe, self.runtime),
            sae=self.sae,
            prompts=named,
            max_new_tokens=explain.max_new_tokens,
            answer_prefixes=explain.answer_prefixes,
            alive_features=tuple(range(self.sae.d_sae)),
            batch_size=self.runtime.prompts_per_batch,
            image_batch_size=self.runtime.images_per_batch,
            prefixes=PrefixCache(),
        )

    @cached_property
    def _shown(self) -> _Shown:
        rng = np.random.default_rng(0)
        ids = tuple(self.images.ids[: self.n_features * self.recipe.explain.n_images])
        grid = self.subject.grid
        values = rng.random((len(ids), grid.rows, grid.cols), dtype=np.float32)
        return _Shown(
            ids=ids,
            images=tuple(self.images.load(image_id) for image_id in ids),
            grids=tuple(np.where(values < ACTIVE_SHARE, values, 0.0).astype(np.float32)),
        )

    def _requests(self, strength: float | None) -> list[ExplanationRequest]:
        shown, n = self._shown, self.recipe.explain.n_images
        every = itertools.cycle(zip(shown.ids, shown.images, shown.grids, strict=True))
        return [
            ExplanationRequest(
                feature=feature,
                strength=strength,
                exemplars=tuple(
                    ExemplarInput(image_id=f"{feature}:{name}", image=image, grid=grid)
                    for name, image, grid in itertools.islice(every, n)
                ),
            )
            for feature in range(self.n_features)
        ]

    def _answers(self) -> tuple[float, float, float]:
        """Seconds per answer about the blank image, per exemplar picture, and per answer about exemplars."""
        context, n = self._context(), self.n_features
        strength, informed = (
            self._middle(self.recipe.explain.strengths),
            self._middle(self.recipe.explain.informed_strengths),
        )
        possible = {arm.method for arm in possible_arms(self.recipe)}
        per_blank, said = 0.0, []
        if Method.STEERING in possible:
            blank = [ExplanationRequest(feature=feature, strength=strength) for feature in range(n)]
            steered = explainer_for(Arm(method=Method.STEERING))
            steered.explain(blank[:1], context)
            started = time.perf_counter()
            said = steered.explain(blank, context)
            per_blank = (time.perf_counter() - started) / n
        top_k = explainer_for(Arm(method=Method.TOP_K, variant=Variant.MASKS))
        started = time.perf_counter()
        said += top_k.explain(self._requests(None), context)
        cold = time.perf_counter() - started
        again = top_k
        if Method.STEERING_INFORMED_TOP_K in possible:
            again = explainer_for(Arm(method=Method.STEERING_INFORMED_TOP_K, variant=Variant.MASKS))
        warm = _seconds(lambda: again.explain(self._requests(informed), context))
        texts = sorted({one.text for one in said if isinstance(one, Explanation)})[:N_TEXTS]
        self.texts = texts or [STAND_IN]
        return per_blank, max(0.0, cold - warm) / (n * self.recipe.explain.n_images), warm / n

    def _middle(self, strengths: Sequence[float]) -> float:
        """The middle one of the candidates, in L2 units."""
        chosen = sorted(strengths)[len(strengths) // 2]
        if self.recipe.explain.strength_unit == "l2":
            return chosen
        return chosen * float(torch.cat([chunk.residuals for chunk in self.chunks]).norm(dim=-1).mean())

    # judges ----------------------------------------------------------------------------------------------------------

    def _per_text(self, work: Callable[[str], Any]) -> float:
        """Seconds of ``work`` per text."""
        return sum(_seconds(lambda text=text: work(text)) for text in self.texts) / len(self.texts)

    def _region(self) -> float:
        n, shown = self.recipe.score.n_images, self._shown
        pictures = (shown.ids[:n], shown.images[:n], shown.grids[:n])
        return self._per_text(lambda text: mask_overlap.score(text, *pictures, self.judges.segmenter)) / n

    def _embed_picture(self) -> float:
        pictures = self._shown.images[:32]
        self.judges.image_text.encode_images(pictures[:1])
        return _seconds(lambda: self.judges.image_text.encode_images(pictures)) / len(pictures)

    def _generate(self) -> float:
        score = self.recipe.score
        seconds = _seconds(lambda: draw(self.judges.generator, self.texts, score.n_synthetic, score.seed))
        return seconds / (len(self.texts) * score.n_synthetic)

    def _truth(self) -> float:
        """Per feature on all scoring images; the work grows with their number."""
        oracle = self.judges.truth
        if oracle is None:
            return 0.0
        ids = [image_id for chunk in self.chunks for image_id in chunk.image_ids]
        codes = [self.sae.encode(chunk.residuals) for chunk in self.chunks]
        found = by_feature(torch.cat([one.values for one in codes]), torch.cat([one.indices for one in codes]))
        exact = oracle.masks(self.images, ids)
        masks = np.moveaxis(exact.reshape(*exact.shape[:2], -1), 1, 2)
        score = self.recipe.score
        started = time.perf_counter()
        table = average_precisions(found, masks, self.sae.d_sae)
        precision = (time.perf_counter() - started) / self.sae.d_sae
        settings = {"n_bootstrap": score.n_bootstrap, "seed": score.seed}
        intervals = _seconds(lambda: precision_intervals(found, masks, table[:N_TRUTH], -1.0, **settings)) / N_TRUTH
        growth = len(open_image_set(self.recipe, Split.SCORE).ids) / len(ids)
        return growth * (precision + KNOWN_SHARE * intervals)

    def _embed_text(self) -> float:
        encoder, texts = load_text_encoder(self.recipe.judges.text_encoder), self.texts
        encoder.encode(texts[:1])
        return _seconds(lambda: encoder.encode(texts)) / len(texts)

    def _thumbnail(self) -> float:
        pictures = self._shown.images[:16]
        side = self.recipe.atlas.thumbnail_px
        return sum(_seconds(lambda one=one: webp_bytes(one.resize((side, side)))) for one in pictures) / len(pictures)
