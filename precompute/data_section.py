"""The recipe's [data] section: which images there are, how they are divided among the splits, what may be shown."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from backend.types import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class SharesSection:
    """Shares of one source of images that several splits read, relative to one another."""

    train: float = 0.5
    explain: float = 0.25
    select: float = 0.05
    score: float = 0.2

    def __post_init__(self) -> None:
        for split in Split:
            if self.of(split) < 0:
                raise ValueError(f"shares.{split.value} must not be negative")

    def of(self, split: Split) -> float:
        return float(getattr(self, split.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesSection:
    """Where each split's images are within the set: a subfolder, a split of a dataset, or a pattern of shards.

    Splits that name the same source divide it among them by rule; see [data.shares].
    """

    train: str
    explain: str
    select: str
    score: str

    def of(self, split: Split) -> str:
        return str(getattr(self, split.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """The images and their four disjoint splits."""

    kind: str
    """A module of precompute/data/: ``world``, ``folder``, ``huggingface`` or ``webdataset``."""
    path: str = field(metadata={"place": True})
    """Folder, or for ``huggingface`` a repository id."""
    n_train_images: int
    """Images of the SAE training split, at most."""
    n_explain_images: int | None = None
    """At most so many images of the explain split, drawn by rule; all of them if left out."""
    n_select_images: int | None = None
    n_score_images: int | None = None
    sources: SourcesSection | None = None
    """Left out: as the kind says."""
    shares: SharesSection | None = None
    image_column: str = "image"
    """``huggingface`` only."""
    streaming: bool = False
    """``huggingface`` only: fetch no more images than the limits ask for, and keep them."""
    download: bool = False
    """``huggingface`` only: whether the network may be used at all."""
    share: Literal["thumbnails", "ids"] = "thumbnails"
    """What an atlas carries of the images: small pictures, or their ids alone where the licence allows no more."""

    def __post_init__(self) -> None:
        if self.kind != "huggingface" and (self.streaming or self.download):
            raise ValueError(f"streaming and download mean nothing to kind {self.kind}")
        for split in Split:
            limit = self.limit(split)
            if limit is not None and limit < 1:
                raise ValueError(f"n_{split.value}_images must be greater than 0")

    def limit(self, split: Split) -> int | None:
        """At most so many images of a split."""
        return getattr(self, f"n_{split.value}_images")


def limited(places: Sequence[int], keys: Sequence[str], limit: int | None) -> Sequence[int]:
    """At most ``limit`` of the places: those whose ids have the smallest hashes."""
    if limit is None or len(places) <= limit:
        return places
    return sorted(places, key=lambda place: hashlib.sha256(keys[place].encode()).digest())[:limit]
