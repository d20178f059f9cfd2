"""Features to begin with, for a visitor who has not chosen any."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from app.services import Services

MOST = 8


@lru_cache(maxsize=16)
def starters(services: Services) -> tuple[int, ...]:
    """The feature of each of the largest clusters whose steering says most nearly what its images say.

    Features that pass the quality filter go before others; those without words are left out. At most ``MOST``, those
    that fire on the fewest patches first, since what they mean is seen at a glance.
    """
    table = services.store.features
    kept = table["quality_kept"].to_numpy(zero_copy_only=False).astype(bool)
    agreement = table["agreement"].to_numpy(zero_copy_only=False).astype(np.float64)
    cluster = table["cluster"].to_numpy(zero_copy_only=False)
    size = {one.cluster: one.n_features for one in services.store.clusters}
    order = np.lexsort((-np.nan_to_num(agreement, nan=-1.0), ~kept))
    first: dict[int, int] = {}
    for row in order[table["best_text"].is_valid().to_numpy(zero_copy_only=False)[order]].tolist():
        first.setdefault(int(cluster[row]), row)
    largest = sorted(first, key=lambda one: (-size.get(one, 0), one))[:MOST]
    rows = [first[one] for one in largest]
    firing = table["firing_fraction"].to_numpy()
    return tuple(int(services.store.feature_ids[row]) for row in sorted(rows, key=lambda row: (firing[row], row)))
