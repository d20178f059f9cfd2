"""What a row is steered along: each feature's own direction, or what stands in for it in a control.

The two stand-ins are norm-matched to every decoder row (unit length): a random direction means nothing at all, and the
direction of another feature means something else.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from backend.sae import TopKSAE


def random_direction(seed: int, d_model: int) -> Float[Tensor, " d_model"]:
    """A Gaussian direction scaled to unit norm, hence norm-matched to every decoder row. Same seed, same direction."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(d_model, generator=generator)
    return direction / direction.norm()


def control_seed(seed: int, feature: int) -> int:
    """Seed of the random direction that stands in for a feature; differs between features and between seeds."""
    digest = hashlib.sha256(f"random direction {seed} {feature}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def permuted_feature(feature: int, alive: Sequence[int]) -> int:
    """The feature whose direction stands in for ``feature``: the alive list rotated by half its length.

    Raises:
        ValueError: the feature is not in the list, or the list is too short to give another one.
    """
    if len(alive) < 2:
        raise ValueError("a permutation needs at least two alive features")
    if feature not in alive:
        raise ValueError(f"feature {feature} is not in the list of alive features")
    return alive[(alive.index(feature) + len(alive) // 2) % len(alive)]


class Direction(ABC):
    """Gives the unit vector that a row uses for a feature."""

    @abstractmethod
    def of(self, feature: int, sae: TopKSAE) -> Float[Tensor, " d_model"]:
        """The unit vector, on the SAE's device. Raises UnknownFeature."""


@dataclass(frozen=True, slots=True)
class Own(Direction):
    """The feature's own decoder row: steering proper."""

    def of(self, feature: int, sae: TopKSAE) -> Float[Tensor, " d_model"]:
        return sae.direction(feature)


@dataclass(frozen=True, slots=True)
class Random(Direction):
    """A random direction per feature and seed: the control RANDOM_DIRECTION."""

    seed: int

    def of(self, feature: int, sae: TopKSAE) -> Float[Tensor, " d_model"]:
        # Asked for first, so that an unknown feature is refused here too.
        own = sae.direction(feature)
        return random_direction(control_seed(self.seed, feature), sae.d_model).to(own.device)


@dataclass(frozen=True, slots=True)
class Permuted(Direction):
    """The direction of another alive feature: the control PERMUTED_DIRECTION."""

    alive: tuple[int, ...]

    def of(self, feature: int, sae: TopKSAE) -> Float[Tensor, " d_model"]:
        return sae.direction(permuted_feature(feature, self.alive))


OWN = Own()
