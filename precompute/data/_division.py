"""From sources of pictures to disjoint splits, by rule.

A split that reads a source alone takes all of it. Splits that read the same source divide it by content: the hash of
a picture's bytes, as a number in [0, 1), falls into the share of one split. So the same picture is in the same split on
every machine, whatever it is called and whatever is added later, and two copies of one picture land in one split, where
only the first is kept. Copies in two sources that are both used for explaining, selecting or scoring are refused.

A limit takes the images whose ids have the smallest hashes: a fair draw, the first 1,000 among the first 10,000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from backend.errors import DataError, DatasetMissing, ImageUnreadable
from backend.images import open_image
from backend.types import Split
from precompute.data._sources import PictureSource, content_hashes, digest
from precompute.data_section import DataSection, SharesSection, limited

if TYPE_CHECKING:
    from PIL import Image

HASHED = (Split.EXPLAIN, Split.SELECT, Split.SCORE)
"""Splits that must not share a picture, under whatever name."""
_UNIT_DIGITS = 13
"""Hexadecimal digits of a hash that fit a float exactly."""

Sources = Mapping[Split, PictureSource]


@dataclass(frozen=True, slots=True)
class DividedImages:
    """One split of one source: an ImageSet."""

    name: str
    split: Split
    ids: tuple[str, ...]
    fingerprint: str
    _source: PictureSource
    _places: Mapping[str, int]

    def load(self, image_id: str) -> Image.Image:
        """The picture as RGB. Raises ImageUnreadable."""
        if image_id not in self._places:
            raise ImageUnreadable(f"{image_id} is not among the {self.split.value} images of {self.name}")
        return open_image(self._source.get(self._places[image_id]), name=image_id)


def open_division(
    name: str,
    section: DataSection,
    split: Split,
    open_source: Callable[[str], PictureSource],
    sources: Mapping[Split, str],
) -> DividedImages:
    """One split of a set.

    Args:
        name: of the set, for messages.
        section: limits and shares.
        split: the one wanted.
        open_source: opens a source by its name.
        sources: the name of each split's source.

    Raises:
        DatasetMissing: the split would be empty; or as ``open_source``.
        DataError: two sources hold the same picture.
    """
    opened = {wanted: open_source(wanted) for wanted in _needed(sources, split)}
    source = opened[sources[split]]
    together = [one for one in Split if sources[one] == sources[split]]
    if split in HASHED:
        _require_different({one: opened[one] for one in dict.fromkeys(sources[each] for each in HASHED)})
    hashes = content_hashes(source) if split in HASHED or len(together) > 1 else None
    places = _places(source, split, together, section.shares or SharesSection(), hashes)
    if not places:
        raise DatasetMissing(
            f"No picture of {source.name} falls into the {split.value} split ({len(source.keys)} pictures in all). "
            f"Add pictures, or raise {split.value} in [data.shares]."
        )
    kept = sorted(limited(places, source.keys, section.limit(split)))
    ids = tuple(source.keys[place] for place in kept)
    contents = [source.identity] if hashes is None else [str(hashes[place]) for place in kept]
    return DividedImages(name, split, ids, digest(*ids, *contents), source, dict(zip(ids, kept, strict=True)))


def _needed(sources: Mapping[Split, str], split: Split) -> tuple[str, ...]:
    used = HASHED if split in HASHED else (split,)
    return tuple(dict.fromkeys(sources[one] for one in used))


def _places(
    source: PictureSource,
    split: Split,
    together: Sequence[Split],
    shares: SharesSection,
    hashes: Sequence[str | None] | None,
) -> list[int]:
    """Places of a split's pictures, copies left out."""
    if hashes is None:
        return list(range(len(source.keys)))
    places: list[int] = []
    seen: set[str] = set()
    for place, content in enumerate(hashes):
        known = content or digest(source.keys[place])  # an unreadable file is assigned too, so that it is counted
        if known not in seen and split_of(known, together, shares) is split:
            places.append(place)
        seen.add(known)
    return places


def split_of(content: str, together: Sequence[Split], shares: SharesSection) -> Split:
    """The split of a picture by its content hash (hex), among those that divide its source."""
    if len(together) == 1:
        return together[0]
    total = sum(shares.of(split) for split in together)
    if total <= 0:
        raise DataError(f"[data.shares] gives nothing to any of {', '.join(split.value for split in together)}.")
    at = int(content[:_UNIT_DIGITS], 16) / 16**_UNIT_DIGITS * total
    for split in together:
        at -= shares.of(split)
        if at < 0:
            return split
    return next(split for split in reversed(together) if shares.of(split) > 0)  # rounding at the very end


def _require_different(sources: Mapping[str, PictureSource]) -> None:
    by_content = {
        name: {content: place for place, content in enumerate(content_hashes(source)) if content is not None}
        for name, source in sources.items()
    }
    for first, second in combinations(sources, 2):
        shared = by_content[first].keys() & by_content[second].keys()
        if shared:
            one = min(shared)
            pair = [sources[name].keys[by_content[name][one]] for name in (first, second)]
            raise DataError(
                f"{sources[first].name} and {sources[second].name} share {len(shared)} pictures, e.g. {pair[0]!r} and "
                f"{pair[1]!r}: an explanation must never be scored on what it saw. Remove the copies, or give both "
                "splits the same source under [data.sources]: it is then divided by rule."
            )
