"""A planted atlas in which every text that a model, a data set or a recipe could have written tries to run.

Feature in row ``i`` has ``HOSTILE[i]`` for its words, by every method; labels, concepts, file names, prompts, failures
and the atlas's own names are hostile too. The atlas is valid: checksums, embeddings and index fit the texts.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq

from tests.builders_app import build_steerable_atlas, edit_json, edit_table, mend
from tests.builders_atlas import BagEncoder
from tests.hostile import HOSTILE

LONGEST_NAME = 200
"""File names are no longer than this on any system."""
# Without line ends: a list of files is lines, so no data set brings them.
FILE_NAMES = tuple(text for text in HOSTILE if text.strip() and "\n" not in text and len(text) <= LONGEST_NAME)
TITLE = "</title><script>window.__ran=1</script> ${window.__ran=1}"
PROMPT = "</script><img src=x onerror=window.__ran=1> `${window.__ran=1}` {{value}}"

Rows = list[dict[str, Any]]


def build_hostile_atlas(folder: Path, subject: Path | None = None) -> Path:
    """Write the atlas; ``subject`` is a model to steer, None for none."""
    build_steerable_atlas(folder, subject, n_features=len(HOSTILE))
    text_of = _write_explanations(folder)
    _write_names(folder)
    edit_table(folder, "features", lambda rows: _change_features(rows, text_of))
    edit_table(folder, "clusters", _change_clusters)
    edit_table(folder, "synthetic_activations", lambda rows: _change_texts(rows, text_of))
    edit_table(folder, "text_masks", _change_any_text)
    edit_json(folder, "meta.json", _change_meta)
    _embed(folder)
    return folder


def _write_explanations(folder: Path) -> dict[int, str]:
    """The words of each feature; returns them by feature."""
    ids = sorted(set(pq.read_table(folder / "features.parquet")["feature"].to_pylist()))
    text_of = dict(zip(ids, HOSTILE, strict=True))

    def change(rows: Rows) -> None:
        for row in rows:
            row["raw_text"] = text_of[row["feature"]]
            if row["text"] is None:
                row["failure"] = text_of[row["feature"]][:300]
            else:
                row["text"] = text_of[row["feature"]]

    edit_table(folder, "explanations", change)
    return text_of


def _write_names(folder: Path) -> None:
    """Hostile file names for as many images as there are names."""
    ids = pq.read_table(folder / "images.parquet")["image_id"].to_pylist()
    # As many as differ: a name stands for one image.
    name_of = dict(zip(ids, FILE_NAMES, strict=False))

    def rename(rows: Rows) -> None:
        for row in rows:
            row["image_id"] = name_of.get(row["image_id"], row["image_id"])

    def rename_lists(rows: Rows) -> None:
        for row in rows:
            row["image_ids"] = [name_of.get(one, one) for one in row["image_ids"] or ()]

    for table in ("images", "exemplars", "text_masks"):
        edit_table(folder, table, rename)
    edit_table(folder, "explanations", rename_lists)


def _change_features(rows: Rows, text_of: dict[int, str]) -> None:
    for place, row in enumerate(rows):
        row["best_text"] = text_of[row["feature"]]
        if row["truth_concept"] is not None:
            other = HOSTILE[-1 - place][:LONGEST_NAME]
            row["truth_concept"], row["truth_group"], row["truth_terms"] = other, other, [other, HOSTILE[place][:50]]


def _change_clusters(rows: Rows) -> None:
    for place, row in enumerate(rows):
        row["label"] = HOSTILE[11 + place]
        row["top_words"] = list(HOSTILE[place : place + 5])


def _change_texts(rows: Rows, text_of: dict[int, str]) -> None:
    for row in rows:
        row["text"] = text_of[row["feature"]]


def _change_any_text(rows: Rows) -> None:
    for row, text in zip(rows, cycle(HOSTILE), strict=False):
        row["text"] = text


def _change_meta(meta: dict[str, Any]) -> None:
    meta["title"] = TITLE
    meta["subject"]["name"] = meta["recipe"] = meta["blank_answer"] = HOSTILE[12]
    meta["prompts"] = {"steering": PROMPT, HOSTILE[13]: HOSTILE[14]}
    meta["licences"] = {"images": HOSTILE[15], HOSTILE[16]: [HOSTILE[17]]}
    for card in meta["metrics"]:
        card["label"] = card["unit"] = card["description"] = card["source"] = HOSTILE[18]


def _embed(folder: Path) -> None:
    """Texts, embeddings, index and generated images again, for the texts that there are now."""
    found = pq.read_table(folder / "explanations.parquet")["text"].to_pylist()
    texts = sorted({text for text in found if text is not None})
    _rewrite(folder, "texts", lambda rows: [{**rows[0], "text": text} for text in texts])
    vectors = BagEncoder().encode(texts)
    np.save(folder / "embeddings.npy", vectors.astype(np.float16))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    faiss.write_index(index, str(folder / "index.faiss"))
    for name in ("embeddings.npy", "index.faiss"):
        mend(folder, name)
    _rewrite(
        folder,
        "synthetic",
        lambda rows: [{**rows[place], "text": text, "image_index": place} for text in texts for place in range(2)],
    )


def _rewrite(folder: Path, name: str, make: Callable[[Rows], Rows]) -> None:
    def change(rows: Rows) -> None:
        rows[:] = make(rows)

    edit_table(folder, name, change)
