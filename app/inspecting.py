"""From an image to the features that fire on it, through the subject model or from what the atlas stored.

An image runs through the subject once; its codes stay in memory, so choosing other patches costs no model. Where the
atlas stored a feature's activations on one of its own images (every exemplar has them), those count: they were made
from the full image, and the atlas may hold a smaller or lossy copy of it.

Features are ranked by how unusually strongly they fire (:func:`app.firings.unusualness`) or by how strongly.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from app import pictures
from app.firings import Firings, ImageCode, Summed, firings_of, summed, unusualness, with_stored
from app.services import Services
from app.subject_worker import Waiting
from backend.errors import IconoscopeError, SubjectMismatch
from backend.feature_store import FeatureRecord, FeatureStore
from backend.types import Score, TruthOutcome

if TYPE_CHECKING:
    from backend.steering import SteeringSession

MAX_CODES = 64
"""Images whose codes stay in memory; 64 of 4096 patches and k = 20 are 40 MB."""
MOST_FEATURES = 40
RELIABILITY_METRIC = "auroc_per_feature"
UNUSUAL, STRONGEST = "unusual", "strongest"
RANKINGS = (UNUSUAL, STRONGEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureOnImage:
    """One feature on the chosen patches of an image. Activations in residual-stream L2 units."""

    record: FeatureRecord
    maximum: float
    """Largest activation on the chosen patches."""
    mean: float
    """Mean activation over all chosen patches, silent ones included."""
    n_active: int
    """Chosen patches on which it fires."""
    n_active_image: int
    """Patches of the whole image on which it fires."""
    unusual: float
    """Bits per chosen patch; see app/firings.py."""
    grid: Float[np.ndarray, "row col"]
    stored: bool
    """Whether the atlas stored these activations; else the subject model gave them just now."""
    auroc: Score | None
    """How well the best explanation predicts the feature, or why that is not known."""
    outcome: TruthOutcome

    @property
    def relative(self) -> float:
        """``maximum`` as a share of the feature's maximum over the explaining images; may exceed 1."""
        return self.maximum / self.record.maximum if self.record.maximum else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The features that fire on the chosen patches of an image, best first."""

    image_id: str
    patches: tuple[int, ...]
    """What was chosen; () is the whole image."""
    n_patches: int
    """Patches looked at."""
    features: tuple[FeatureOnImage, ...]
    n_firing: int
    """Features of the atlas that fire there; ``features`` may hold only the first of them."""
    n_unlisted: int
    """Features that fire there and have no place in the atlas, since they never fired on the explaining images."""
    n_stored: int
    """Features of this image whose activations the atlas stored."""
    live: bool
    """Whether the subject model looked at the image. If not, only stored features can be told."""
    missing: str | None
    """Why the subject model did not, in words."""
    seconds: float


def inspect(
    services: Services,
    visitor: str,
    image_id: str,
    patches: Sequence[int] = (),
    *,
    by: str = UNUSUAL,
    most: int = MOST_FEATURES,
) -> Iterator[Waiting | Inspection]:
    """Places in the line while the model is busy, then one Inspection.

    Args:
        services: the open atlas.
        visitor: who asks, for the line.
        image_id: as in app.pictures.
        patches: flat row-major patches to look at; none means the whole image.
        by: ``unusual`` or ``strongest`` (mean activation over the patches).
        most: features to tell.

    Raises:
        ImageMissing: there is no such image, or the upload is gone.
        SubjectError and kin: the model cannot look, and the atlas stored nothing of this image.
    """
    started = monotonic()
    name = pictures.require(services, image_id)
    stored = stored_grids(services, name)
    code: ImageCode | None = None
    missing = None
    try:
        for step in encode(services, visitor, name):
            if isinstance(step, Waiting):
                yield step
            else:
                code = step
    except IconoscopeError as error:
        if not stored:
            raise
        missing = str(error)
    if code is None and missing is None:
        return  # stopped by the visitor
    firings = with_stored(firings_of(code), stored)
    yield Inspection(
        image_id=name,
        patches=tuple(patches),
        live=code is not None,
        missing=missing,
        **_told(services, firings, patches, stored, by, most),
        seconds=monotonic() - started,
    )


def features_of_image(
    services: Services, visitor: str, image_id: str, n: int = MOST_FEATURES
) -> Iterator[Waiting | Inspection]:
    """Search by image: the features that fire most unusually on it. Arguments and errors as for :func:`inspect`."""
    return inspect(services, visitor, image_id, by=UNUSUAL, most=n)


# looking -------------------------------------------------------------------------------------------------------------


class _Codes:
    """Codes of the images looked at last, by atlas version and image id. Thread-safe."""

    def __init__(self, n_most: int) -> None:
        self._n_most = n_most
        self._kept: OrderedDict[tuple[str, str], ImageCode] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str]) -> ImageCode | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[str, str], code: ImageCode) -> None:
        with self._lock:
            self._kept[key] = code
            while len(self._kept) > self._n_most:
                self._kept.popitem(last=False)


_CODES = _Codes(MAX_CODES)


def encode(services: Services, visitor: str, image_id: str) -> Iterator[Waiting | ImageCode]:
    """The code of an image, from memory or from the model. Raises ImageMissing and what the worker raises."""
    key = (services.version, image_id)
    known = _CODES.get(key)
    if known is not None:
        yield known
        return
    image, grid = pictures.open_picture(services, image_id), services.store.grid

    def look(session: SteeringSession, should_stop: Callable[[], bool]) -> Iterator[ImageCode]:
        del should_stop  # one pass through the tower is too short to stop
        active = session.features(image)
        values, indices = active.values.float().cpu().numpy(), active.indices.cpu().numpy()
        if len(values) != grid.n_patches:
            raise SubjectMismatch(
                f"the subject model reads {len(values)} patches an image, but this atlas was made with {grid.n_patches}"
            )
        yield ImageCode(values=values, indices=indices)

    for step in services.worker.run(visitor, look):
        if isinstance(step, ImageCode):
            _CODES.put(key, step)
        yield step


def stored_grids(services: Services, image_id: str) -> dict[int, Float[np.ndarray, "row col"]]:
    """What the harvest stored of an image of the atlas: activation grid by feature; empty for any other image."""
    rows = _rows_by_image(services.store).get(image_id)
    if rows is None:
        return {}
    grid = services.store.grid
    table = services.store.table("exemplars").take(pa.array(rows))
    flat = [np.asarray(values, dtype=np.float32) for values in table["grid"].to_pylist()]
    return {
        feature: values.reshape(grid.rows, grid.cols)
        for feature, values in zip(table["feature"].to_pylist(), flat, strict=True)
    }


@lru_cache(maxsize=8)
def _rows_by_image(store: FeatureStore) -> dict[str, Int[np.ndarray, " row"]]:
    """Rows of the exemplars table by image."""
    names = store.table("exemplars")["image_id"].combine_chunks().dictionary_encode()
    codes = names.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    groups = np.split(order, cuts) if order.size else []
    return {names.dictionary[int(codes[rows[0]])].as_py(): rows for rows in groups}


# ranking -------------------------------------------------------------------------------------------------------------


def _told(
    services: Services, firings: Firings, patches: Sequence[int], stored: Collection[int], by: str, most: int
) -> dict[str, Any]:
    """The fields of an Inspection that follow from the firings."""
    store = services.store
    chosen = np.zeros(store.grid.n_patches, dtype=bool)
    chosen[list(patches) if patches else slice(None)] = True
    found = summed(firings, chosen)
    row = _row_in_atlas(store, found.feature)
    maximum, fraction = (store.features[name].to_numpy()[row] for name in ("maximum", "firing_fraction"))
    bits = unusualness(found.mean, maximum, fraction)
    listed = row >= 0
    first = np.where(listed, found.mean if by == STRONGEST else bits, -np.inf)
    order = np.lexsort((found.feature, -first))[: min(most, int(listed.sum()))]
    features = tuple(_on_image(store, firings, found, int(at), float(bits[at]), stored) for at in order)
    return {
        "features": features,
        "n_patches": int(chosen.sum()),
        "n_firing": int(listed.sum()),
        "n_unlisted": int((~listed).sum()),
        "n_stored": len(stored),
    }


def _row_in_atlas(store: FeatureStore, features: Int[np.ndarray, " feature"]) -> Int[np.ndarray, " feature"]:
    """Row of each feature in the atlas's table; -1 for those it does not list."""
    ids = store.feature_ids
    order = np.argsort(ids, kind="stable")
    place = np.clip(np.searchsorted(ids[order], features), 0, max(0, ids.size - 1))
    return np.where(ids[order[place]] == features, order[place], -1)


def _on_image(
    store: FeatureStore, firings: Firings, found: Summed, at: int, bits: float, stored: Collection[int]
) -> FeatureOnImage:
    feature = int(found.feature[at])
    record = store.feature(feature)
    scores = store.scores(feature).get(record.best_arm, ()) if record.best_arm else ()
    verdicts = [one.truth_outcome for one in store.explanations(feature) if one.is_best]
    return FeatureOnImage(
        record=record,
        maximum=float(found.maximum[at]),
        mean=float(found.mean[at]),
        n_active=int(found.n_active[at]),
        n_active_image=int(found.n_active_image[at]),
        unusual=bits,
        grid=firings.grid_of(feature, store.grid.n_patches).reshape(store.grid.rows, store.grid.cols),
        stored=feature in stored,
        auroc=next((score for score in scores if score.metric == RELIABILITY_METRIC), None),
        outcome=verdicts[0] if verdicts else TruthOutcome.UNDECIDABLE,
    )
