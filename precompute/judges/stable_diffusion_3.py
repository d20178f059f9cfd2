"""Stable Diffusion 3.5 draws images of an explanation, through diffusers.

Source: arXiv 2603.22593, section 4, and its code: "A realistic image of " and the explanation in lower case, 512 px, 30
steps, guidance 7.5, no negative prompt. The paper's images cannot be drawn again, because no seed was set; here every
image has its own, from text, seed and index.

The model has no safety checker and none is added: an explanation that names something unpleasant may be drawn. Images
are for measuring; whoever publishes them should look at them first.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from backend.artifacts import fingerprint
from backend.batching import in_batches
from backend.errors import DependencyMissing, UnparsableExplanation
from backend.weights import files_fingerprint
from precompute.judges.base import JudgeKind, NeededWeights, n_longer

if TYPE_CHECKING:
    from pathlib import Path

    from precompute.recipe import JudgesSection, Runtime

MODEL = "stabilityai/stable-diffusion-3.5-medium"
INDEX = "model_index.json"
COMPONENTS = ("scheduler", "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "transformer", "vae")
T5_COMPONENTS = ("tokenizer_3", "text_encoder_3")
_WEIGHTED = {"text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae"}
PROMPT = "A realistic image of {text}"
T5_TOKENS = 256
"""What diffusers gives the third text encoder to read."""
VERSION = 1
"""Bumped when the way from text to pixels changes."""


def components(t5: bool) -> tuple[str, ...]:
    """Folders of the pipeline that are loaded."""
    return (*COMPONENTS, *(T5_COMPONENTS if t5 else ()))


def patterns(t5: bool) -> tuple[str, ...]:
    """Globs of the files that are loaded; the repository has further copies of the weights, of gigabytes."""
    endings = ("*.json", "*.txt", "*.model", "model*.safetensors", "diffusion_pytorch_model*.safetensors")
    return (INDEX, *(f"{name}/{ending}" for name in components(t5) for ending in endings))


def image_seed(text: str, seed: int, index: int) -> int:
    """Seed of one image (63 bits): the same wherever and with whatever else the image is drawn."""
    digest = hashlib.sha256(f"{seed}:{index}:{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class StableDiffusion3:
    """An ImageGenerator. The pipeline is loaded at the first text."""

    def __init__(
        self,
        folder: Path,
        *,
        prompt: str = PROMPT,
        steps: int = 30,
        guidance: float = 7.5,
        image_px: int = 512,
        t5: bool = True,
        device: str = "cpu",
        dtype: str = "float32",
        images_per_batch: int = 4,
        compiled: bool = False,
    ) -> None:
        """A folder as diffusers' ``save_pretrained`` writes it.

        Args:
            prompt: what is asked for; ``{text}`` stands for the explanation in lower case.
            image_px: side of the images, a multiple of 16.
            t5: use the third text encoder; without it prompts are cut after 77 tokens, and 9.5 GB less are loaded.
            images_per_batch: images of one text that are drawn at once; with guidance twice as many rows.
            compiled: compile the transformer; pays off after some hundred images.
        """
        self._folder = folder
        self._settings = {
            "prompt": prompt,
            "steps": steps,
            "guidance": guidance,
            "image_px": image_px,
            "t5": t5,
        }
        self._device = device
        self._dtype = getattr(torch, dtype)
        self._images_per_batch = images_per_batch
        self._compiled = compiled

    @property
    def fingerprint(self) -> str:
        """Of weights and settings; not of the place, device, precision or batch size."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        weights = files_fingerprint(self._folder, patterns(bool(self._settings["t5"])))
        return fingerprint({"judge": f"stable_diffusion_3 {VERSION}", "weights": weights, **self._settings})

    @cached_property
    def pipeline(self) -> Any:
        try:
            import diffusers
        except ImportError as error:
            raise DependencyMissing(
                f'diffusers cannot be imported ({error}): pip install "iconoscope[paper]"'
            ) from error
        left_out = {} if self._settings["t5"] else dict.fromkeys(T5_COMPONENTS)
        library: Any = diffusers  # its names are made when asked for, which no type checker sees
        library.utils.logging.disable_progress_bar()
        pipeline = library.StableDiffusion3Pipeline.from_pretrained(
            str(self._folder), dtype=self._dtype, local_files_only=True, use_safetensors=True, **left_out
        )
        pipeline.set_progress_bar_config(disable=True)
        # It would print every prompt that is longer than CLIP reads; cut_texts counts them.
        logging.getLogger(type(pipeline).__module__).setLevel(logging.ERROR)
        for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2, pipeline.tokenizer_3):
            if tokenizer is not None:
                tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        pipeline.to(self._device)
        if self._compiled:
            pipeline.transformer.compile(mode="max-autotune-no-cudagraphs")
        return pipeline

    def cut_texts(self, texts: Sequence[str]) -> dict[str, int]:
        """See :class:`precompute.judges.base.CutsTexts`; words of the prompt around a text count as well."""
        from transformers import AutoTokenizer

        prompts, counts = [self._prompt(text) for text in texts], dict[str, int]()
        # Both CLIPs have the same words and the same limit.
        for folder, name, tokens in (("tokenizer", "CLIP", None), ("tokenizer_3", "T5", T5_TOKENS)):
            if folder in components(bool(self._settings["t5"])):
                tokenizer: Any = AutoTokenizer.from_pretrained(self._folder / folder, local_files_only=True)
                limit = tokens or tokenizer.model_max_length
                counts[f"image generator's {name} ({limit} tokens)"] = n_longer(tokenizer, prompts, limit)
        return counts

    def _prompt(self, text: str) -> str:
        return str(self._settings["prompt"]).replace("{text}", text.strip().lower())

    def generate(self, text: str, n: int, seed: int) -> list[Image.Image]:
        """``n`` RGB images; image ``i`` is the same for every ``n`` above it. Raises UnparsableExplanation."""
        if not any(letter.isalnum() for letter in text):
            raise UnparsableExplanation(f"there is no word in {text!r}")
        prompt = self._prompt(text)
        seeds = [image_seed(text, seed, index) for index in range(n)]
        parts = in_batches("generated images", n, self._images_per_batch, lambda part: self._draw(prompt, seeds[part]))
        return [image for part in parts for image in part]

    def _draw(self, prompt: str, seeds: Sequence[int]) -> list[Image.Image]:
        """One image per seed. The noise comes from the CPU's generators, so that it is the same on every device."""
        drawn = self.pipeline(
            prompt=prompt,
            num_images_per_prompt=len(seeds),
            height=self._settings["image_px"],
            width=self._settings["image_px"],
            num_inference_steps=self._settings["steps"],
            guidance_scale=self._settings["guidance"],
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        )
        return [image.convert("RGB") for image in drawn.images]


def _weights(section: JudgesSection) -> tuple[NeededWeights, ...]:
    loaded = components(section.generator_t5)
    return (
        NeededWeights(
            part="generator: weights",
            model=section.generator_model or MODEL,
            needed=(INDEX, *(f"{name}/*.safetensors" if name in _WEIGHTED else f"{name}/*" for name in loaded)),
            patterns=patterns(section.generator_t5),
        ),
    )


def _open(section: JudgesSection, runtime: Runtime) -> StableDiffusion3:
    from precompute.subject import device_of

    (weights,) = _weights(section)
    return StableDiffusion3(
        weights.folder(),
        prompt=section.generator_prompt,
        steps=section.generator_steps,
        guidance=section.generator_guidance,
        image_px=section.image_px,
        t5=section.generator_t5,
        device=device_of(runtime),
        dtype=runtime.dtype,
        images_per_batch=min(runtime.images_per_batch, 4),
        compiled=runtime.compile_models,
    )


JUDGE = JudgeKind(role="generator", packages=("diffusers",), weights=_weights, open=_open)
