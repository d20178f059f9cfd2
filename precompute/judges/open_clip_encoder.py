"""CLIP through open_clip: images and texts in one space, for the world's small model and for ViT-L/14 alike.

Source: arXiv 2603.22593, section 4 (CLIP score with ``openai/clip-vit-large-patch14``, whose weights open_clip has as
``timm/vit_large_patch14_clip_224.openai``). The paper's code crops the centre of every picture, and active patches
outside of it are lost; by default a picture here keeps all its pixels and its proportions, on black, which is also
what inactive patches are painted with (decision 014).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from backend.artifacts import fingerprint
from backend.errors import DependencyMissing, SubjectMissing
from backend.weights import files_fingerprint, missing_files
from precompute.judges.base import JudgeKind, NeededWeights

if TYPE_CHECKING:
    from precompute.recipe import JudgesSection, Runtime

SETTINGS, TOKENIZER, WEIGHTS = "open_clip_config.json", "tokenizer.json", "open_clip_model.safetensors"
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NEEDED = (SETTINGS, f"{WEIGHTS}|*.safetensors")
PATTERNS = (SETTINGS, "*.safetensors", "tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json")
TEXTS_PER_BATCH = 256
VERSION = 1
"""Bumped when the way from pictures and words to rows changes."""

Crop = Literal["whole", "centre"]


class OpenClipEncoder:
    """An ImageTextEncoder. The model is loaded when it is first used."""

    def __init__(
        self, folder: Path, *, crop: Crop = "whole", device: str = "cpu", images_per_batch: int = 64, mend: str = ""
    ) -> None:
        """A folder as open_clip's ``save_pretrained`` writes it.

        Args:
            crop: ``whole`` fits a picture into the square on black, ``centre`` cuts its middle out (the paper's).
            images_per_batch: pictures per forward pass.
            mend: how to get the model, for the error.

        Raises SubjectMissing.
        """
        if absent := missing_files(folder, NEEDED):
            raise SubjectMissing(f"There is no CLIP model in {folder}: missing {', '.join(absent)}. {mend}".rstrip())
        self._folder = folder
        self._crop: Crop = crop
        self._device = device
        self._images_per_batch = images_per_batch

    @property
    def fingerprint(self) -> str:
        """Of weights and settings; not of the place, device or batch size."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(
            {
                "judge": f"open_clip_encoder {VERSION}",
                "weights": files_fingerprint(self._folder, PATTERNS),
                "crop": self._crop,
            }
        )

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return json.loads((self._folder / SETTINGS).read_text(encoding="utf-8"))

    @cached_property
    def _preprocessing(self) -> dict[str, Any]:
        return {"mean": OPENAI_MEAN, "std": OPENAI_STD, **self._settings.get("preprocess_cfg", {})}

    @cached_property
    def model(self) -> Any:
        try:
            import open_clip
        except ImportError as error:
            raise DependencyMissing("open_clip_torch is not installed: pip install open_clip_torch") from error
        model: Any = open_clip.create_model(f"local-dir:{self._folder}", device=self._device, **self._layout())
        return model.eval()

    def _layout(self) -> dict[str, Any]:
        """What must be added to the layout in the settings before open_clip can build it."""
        return {}

    @cached_property
    def _tokenize(self) -> Any:
        import open_clip

        return open_clip.get_tokenizer(f"local-dir:{self._folder}")

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids [text token], padded; a long text keeps its first words."""
        return self._tokenize(list(texts))

    def cut_texts(self, texts: Sequence[str]) -> dict[str, int]:
        """See :class:`precompute.judges.base.CutsTexts`."""
        if not texts:
            return {}
        read = self.tokens(texts)
        limit = read.shape[1]
        # With room for one token more, a text that was cut has a word where its end stood; no other row changes.
        roomy = self._tokenize(list(texts), context_length=limit + 1)[:, :limit]
        return {f"CLIP score's CLIP ({limit} tokens)": int((read != roomy).any(dim=1).sum())}

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Normalised pictures [image 3 side side], bicubic as CLIP was trained."""
        side = self.model.visual.image_size
        side = side if isinstance(side, int) else side[0]
        squares = np.stack([(whole if self._crop == "whole" else centre)(image, side) for image in images])
        mean, std = (torch.tensor(self._preprocessing[name], dtype=torch.float64) for name in ("mean", "std"))
        # One division and one subtraction, with constants rounded once.
        scale, shift = (255 * std).float(), (mean / std).float()
        return (torch.from_numpy(squares).float() / scale - shift).permute(0, 3, 1, 2)

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Float32[np.ndarray, "image d"]:
        rows = [
            self._pooled(self.pixels(images[start : start + self._images_per_batch]).to(self._device))
            for start in range(0, len(images), self._images_per_batch)
        ]
        return self._rows(rows)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d"]:
        rows = [
            self.model.encode_text(self.tokens(texts[start : start + TEXTS_PER_BATCH]).to(self._device))
            for start in range(0, len(texts), TEXTS_PER_BATCH)
        ]
        return self._rows(rows)

    def _pooled(self, pixels: Tensor) -> Tensor:
        found = self.model.visual(pixels)
        return found[0] if isinstance(found, tuple) else found  # a tower may return its patch tokens too

    def _rows(self, parts: Sequence[Tensor]) -> Float32[np.ndarray, "row d"]:
        if not parts:
            layout = self._settings.get("model_cfg", self._settings)
            return np.zeros((0, int(layout["embed_dim"])), np.float32)
        return F.normalize(torch.cat(list(parts)), dim=-1).cpu().numpy().astype(np.float32)


def whole(image: Image.Image, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """All of the picture, in proportion, in the middle of a black square."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    square = Image.new("RGB", (side, side))
    sized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    square.paste(sized, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)


def centre(image: Image.Image, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The middle square of the picture; what lies outside is lost."""
    width, height = (max(side, int(side * length / min(image.size))) for length in image.size)
    sized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(sized.crop((left, top, left + side, top + side)))


def _weights(section: JudgesSection) -> tuple[NeededWeights, ...]:
    return (NeededWeights(part="image_text: weights", model=section.clip, needed=NEEDED, patterns=PATTERNS),)


def _open(section: JudgesSection, runtime: Runtime) -> OpenClipEncoder:
    from precompute.subject import device_of

    (weights,) = _weights(section)
    return OpenClipEncoder(
        weights.folder(),
        crop=section.clip_crop,
        device=device_of(runtime),
        images_per_batch=runtime.images_per_batch,
    )


JUDGE = JudgeKind(role="image_text", packages=("open_clip",), weights=_weights, open=_open)
