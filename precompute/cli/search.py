"""``iconoscope search``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.atlas import FeatureAtlas
from backend.feature_store import FeatureRecord
from backend.search import Hit
from precompute.cli.places import atlas_folder
from precompute.cli.run import print_json


@dataclass(frozen=True, kw_only=True)
class SearchAtlas:
    """Find features by what they show, by meaning and by words, each with the reason it was found.

    Example: iconoscope search assets/atlas receding road
    """

    atlas: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ATLAS")]
    """Folder of an atlas, or of a run."""
    query: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="QUERY")]
    """What the feature should show, in plain words."""
    n: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 10
    """How many features to list."""
    json: bool = False
    """Print JSON instead of a table."""

    def __call__(self) -> int:
        atlas = FeatureAtlas.open(atlas_folder(self.atlas))
        query = " ".join(self.query)
        hits = [(hit, atlas.store.feature(hit.feature)) for hit in atlas.search.query(query, self.n)]
        if self.json:
            print_json({"query": query, "hits": [hit_json(hit, record) for hit, record in hits]})
        else:
            Console().print(hits_table(hits))
        return 0


def hit_json(hit: Hit, record: FeatureRecord) -> dict[str, Any]:
    """One hit as JSON values."""
    return {
        "feature": hit.feature,
        "score": round(hit.score, 6),
        "reason": hit.reason,
        "why": hit.why,
        "text": hit.text,
        "arm": hit.arm.key if hit.arm else None,
        "similarity": None if hit.similarity is None else round(hit.similarity, 6),
        "truth_concept": record.truth_concept,
        "truth_group": record.truth_group,
        "truth_terms": list(record.truth_terms),
        "truth_ap": record.truth_ap,
    }


def hits_table(hits: list[tuple[Hit, FeatureRecord]]) -> Table:
    """The hits as a table for a terminal."""
    table = Table("feature", "score", "explanation", "truth", "why", box=None, pad_edge=False)
    for hit, record in hits:
        truth = record.truth_concept or "not known"
        cells = (str(hit.feature), f"{hit.score:.2f}", hit.text, truth, hit.why)
        table.add_row(*(escape(cell) for cell in cells))
    return table
