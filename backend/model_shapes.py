"""Sizes of models, and what they make a machine compute: floating-point operations, weights and caches.

Read by the explorer before it loads a model and by ``iconoscope plan`` before a run. A model's shape is read from its
config.json; where that is not here, shapes of the models that shipped recipes name are facts from the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import SizesUnknown

HALF_BYTES = 2
"""bfloat16, the precision of inference on a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerShape:
    """A vision transformer. Operations count a multiplication and an addition as two."""

    width: int
    mlp_width: int
    n_blocks: int
    n_tokens: int
    """Tokens of one image inside the tower, CLS and registers included."""

    @property
    def block_flop(self) -> float:
        """Operations of one block for one image: four projections, the two MLP products, attention."""
        products = 2 * self.n_tokens * (4 * self.width**2 + 2 * self.width * self.mlp_width)
        return products + 4 * self.n_tokens**2 * self.width

    def flop(self, n_blocks: int) -> float:
        """Operations of ``n_blocks`` blocks for one image."""
        return n_blocks * self.block_flop

    @property
    def n_weights(self) -> int:
        return self.n_blocks * (4 * self.width**2 + 2 * self.width * self.mlp_width)


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageShape:
    """A decoder-only language model with a gated MLP and grouped keys and values."""

    width: int
    mlp_width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_width: int
    vocabulary: int
    tied: bool = True
    """One table of the vocabulary serves as embedding and as output layer."""

    @property
    def n_layer_weights(self) -> int:
        """Weights of the layers' dense products: those that can be quantised."""
        attention = self.width * self.head_width * (2 * self.n_heads + 2 * self.n_kv_heads)
        return self.n_layers * (attention + 3 * self.width * self.mlp_width)

    @property
    def n_table_weights(self) -> int:
        """Weights of the embedding and the output layer as they lie in memory."""
        return (1 if self.tied else 2) * self.vocabulary * self.width

    @property
    def n_weights(self) -> int:
        """Weights that a token passes, the output layer included."""
        return self.n_layer_weights + self.vocabulary * self.width

    @property
    def token_flop(self) -> float:
        return 2.0 * self.n_weights

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of one token in bfloat16."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_width * HALF_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A vision-language model, or a vision encoder alone (``language`` None)."""

    tower: TowerShape
    n_patches: int
    image_tokens: int
    """Tokens of one image as the language model reads it; 0 without one."""
    language: LanguageShape | None = None

    @property
    def weight_bytes(self) -> int:
        """Weights in bfloat16."""
        language = self.language
        n_language = language.n_layer_weights + language.n_table_weights if language else 0
        return HALF_BYTES * (self.tower.n_weights + n_language)


_SO400M_896 = TowerShape(width=1152, mlp_width=4304, n_blocks=27, n_tokens=4096)
_INTERN_300M = TowerShape(width=1024, mlp_width=4096, n_blocks=24, n_tokens=1025)


def _gemma(width: int, mlp_width: int, n_layers: int, n_heads: int, n_kv_heads: int, head_width: int) -> ModelShape:
    language = LanguageShape(
        width=width,
        mlp_width=mlp_width,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_width=head_width,
        vocabulary=262_208,
    )
    return ModelShape(tower=_SO400M_896, n_patches=4096, image_tokens=256, language=language)


KNOWN: Mapping[str, ModelShape] = {
    "google/gemma-3-4b-it": _gemma(2560, 10240, 34, 8, 4, 256),
    "google/gemma-3-12b-it": _gemma(3840, 15360, 48, 16, 8, 256),
    "google/gemma-3-27b-it": _gemma(5376, 21504, 62, 32, 16, 128),
    "OpenGVLab/InternVL3-14B-hf": ModelShape(
        tower=_INTERN_300M,
        n_patches=1024,
        image_tokens=256,
        language=LanguageShape(
            width=5120,
            mlp_width=13824,
            n_layers=48,
            n_heads=40,
            n_kv_heads=8,
            head_width=128,
            vocabulary=151_674,
            tied=False,
        ),
    ),
}


SQUARE_PX: Mapping[str, int] = {"qwen2_5_vl": 448}
"""Families whose config.json names no image size, since they read any: the side of the square that their adapter makes
of every picture, in pixels."""


def nearest_square(wanted: int, step: int, least: int, most: int) -> int | None:
    """Side of the square nearest to ``wanted`` that an image processor makes, in pixels; None if it makes none.

    Args:
        step: the side is a multiple of it.
        least: fewest pixels of an image.
        most: most pixels of an image.
    """
    if math.isqrt(most) < step:
        return None
    return step * min(max(wanted // step, math.ceil(math.isqrt(least - 1) / step)), math.isqrt(most) // step)


def shape_of(name: str, folder: Path | None) -> ModelShape:
    """The shape of a model, from its config.json if that is here, else from the known ones.

    Raises:
        SizesUnknown: the model is neither here nor known, or its config.json tells no sizes.
    """
    if folder is not None and (folder / "config.json").is_file():
        config = _description(folder, name)
        return _from_config(_with_square(config, folder), name)
    if name in KNOWN:
        return KNOWN[name]
    raise SizesUnknown(
        f"The sizes of {name} are not known here, so its cost cannot be told: "
        f"fetch its description with `hf download {name} config.json`."
    )


def _description(folder: Path, name: str) -> dict[str, Any]:
    """config.json with what it leaves out: a released one may give only what differs from its class's defaults."""
    from transformers import AutoConfig  # takes seconds to import

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).to_dict()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SizesUnknown(f"The config.json of {name} does not tell its sizes ({error}).") from error


def _with_square(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The description with the square that our adapter fixes, and the tokens it makes, where the model fixes none."""
    wanted, vision = SQUARE_PX.get(str(config.get("model_type"))), config.get("vision_config")
    if wanted is None or not vision:
        return config
    merge = vision["spatial_merge_size"]
    side = _processors_square(wanted, vision["patch_size"] * merge, folder)
    # This tower's MLP is gated: three matrices where a plain one has two.
    vision = {**vision, "image_size": side, "intermediate_size": vision["intermediate_size"] * 3 // 2}
    return {**config, "vision_config": vision, "image_seq_length": (side // vision["patch_size"] // merge) ** 2}


def _processors_square(wanted: int, step: int, folder: Path) -> int:
    """As :func:`nearest_square` by the image processor in ``folder``; without one there, it is the released one."""
    from transformers import AutoImageProcessor  # takes seconds to import

    try:
        processor: Any = AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
        least, most = (int(processor.size[edge]) for edge in ("shortest_edge", "longest_edge"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError):
        return wanted
    return nearest_square(wanted, step, least, most) or wanted


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, list) else value)


def _from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    vision: Mapping[str, Any] = config.get("vision_config") or config
    text: Mapping[str, Any] | None = config.get("text_config") if "vision_config" in config else None
    try:
        width = int(vision["hidden_size"])
        n_patches = (_side(vision["image_size"]) // _side(vision["patch_size"])) ** 2
        tower = TowerShape(
            width=width,
            mlp_width=int(vision.get("intermediate_size") or 4 * width),
            n_blocks=int(vision.get("num_hidden_layers") or vision["depth"]),
            n_tokens=n_patches,
        )
        image_tokens = int(config.get("mm_tokens_per_image") or config.get("image_seq_length") or n_patches)
        tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True))) if text else True
        language = None if text is None or "num_key_value_heads" not in text else _language(text, tied)
    except (KeyError, TypeError, ValueError) as error:
        raise SizesUnknown(f"The config.json of {name} does not tell its sizes ({error!r}).") from error
    return ModelShape(tower=tower, n_patches=n_patches, image_tokens=image_tokens if language else 0, language=language)


def _language(text: Mapping[str, Any], tied: bool) -> LanguageShape:
    width, n_heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    return LanguageShape(
        width=width,
        mlp_width=int(text["intermediate_size"]),
        n_layers=int(text["num_hidden_layers"]),
        n_heads=n_heads,
        n_kv_heads=int(text["num_key_value_heads"]),
        head_width=int(text.get("head_dim") or width // n_heads),
        vocabulary=int(text["vocab_size"]),
        tied=tied,
    )
