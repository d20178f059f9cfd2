"""The vision half of an adapter: a checkpoint of transformers cut at one block of its vision tower.

The same for a tower that stands alone and for one inside a vision-language model. An adapter says where the blocks are
and how tokens reach them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

from einops import EinopsError
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from backend.errors import SubjectError, SubjectMismatch
from backend.models._checkpoint import Checkpoint
from backend.models._locate import model_fingerprint
from backend.models.base import ModelCard, VisionTower
from backend.types import HookPoint


class CheckpointTower(VisionTower):
    """A transformers model with its image processor, cut at one block of its vision tower."""

    image_options: ClassVar[Mapping[str, object]] = {}
    """Options of the family's image processor under which every image becomes one square, whole."""

    def __init__(self, checkpoint: Checkpoint, *, card: ModelCard, hook_point: HookPoint) -> None:
        """Cut it. Raises SubjectMismatch if the tower has no such hook point."""
        self._checkpoint = checkpoint
        self.model: Any = checkpoint.model
        self.card = card
        self.hook_point = hook_point
        self.device = self.model.device
        self._check_hook_point()

    @property
    @abstractmethod
    def _blocks(self) -> nn.ModuleList:
        """The blocks of the vision tower."""

    @property
    def vision_module(self) -> Any:
        """All of transformers' module that turns pixels into patches, without the projector behind it."""
        return self.model.get_encoder(modality="image")

    def _check_hook_point(self) -> None:
        point, n_blocks = self.hook_point, len(self._blocks)
        if point.tower != "vision" or point.stream != "residual" or not 0 <= point.layer < n_blocks:
            raise SubjectMismatch(
                f"{self.card.name} has no hook point {point}: choose vision.LAYER.residual, LAYER 0 to {n_blocks - 1}"
            )

    @cached_property
    def _fingerprint(self) -> str:
        return model_fingerprint(self._checkpoint.folder)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def hook_module(self) -> nn.Module:
        return self._blocks[self.hook_point.layer]

    def cut_at(self, hook_point: HookPoint) -> Self:
        return type(self)(self._checkpoint, card=self.card, hook_point=hook_point)

    def preprocess(self, images: Sequence[Image.Image]) -> Float[Tensor, "image 3 h w"]:
        rgb = [image if image.mode == "RGB" else image.convert("RGB") for image in images]
        try:
            pixels = self._pixels(rgb)
        except (AttributeError, EinopsError, KeyError, TypeError, ValueError) as error:
            raise SubjectError(
                f"the processor of {self.card.name} makes no pixels that its vision tower reads: it belongs to another "
                f"model ({error})"
            ) from error
        if pixels.shape != (len(rgb), 3, self.image_px, self.image_px):
            raise SubjectError(
                f"the processor of {self.card.name} made pixels of shape {tuple(pixels.shape)} from {len(rgb)} images, "
                f"but the vision tower reads {self.image_px} x {self.image_px}: the processor belongs to another model"
            )
        return pixels.float()

    def _pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "image 3 h w"]:
        """RGB images through the family's image processor, each as one square."""
        return self._checkpoint.image_processor(images=images, return_tensors="pt", **self.image_options)[
            "pixel_values"
        ]


def squeezed(image: Image.Image, side_px: int, resample: int) -> Image.Image:
    """The whole picture as a square, its sides scaled each by itself; for processors that would keep its shape."""
    return image if image.size == (side_px, side_px) else image.resize((side_px, side_px), Image.Resampling(resample))
