"""A planted atlas that can be steered: its subject is the shrunken random Gemma 3, and texts may be made hostile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backend.artifacts import MANIFEST_NAME, file_fingerprint
from tests.builders_atlas import BagEncoder, build_atlas

SUBJECT_PROMPT = "What is shown in the image?"


def build_steerable_atlas(folder: Path, subject: Path | None, n_features: int = 60) -> Path:
    """A planted atlas whose meta.json names ``subject`` (None: one that does not exist)."""

    def change(meta: dict[str, Any]) -> None:
        meta["subject"]["path"] = str(subject or folder / "no-such-subject")
        meta["subject"]["repository"] = None
        meta["hook_point"]["layer"] = 1
        meta["prompts"] = {"steering": SUBJECT_PROMPT, "top_k_masks": "describe the highlighted element of the image"}

    build_atlas(folder, n_features=n_features, encoder=BagEncoder())
    edit_json(folder, "meta.json", change)
    return folder


def edit_json(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file of an artifact and mend its entry in the manifest."""
    path = folder / name
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    mend(folder, name)


def edit_table(folder: Path, name: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the rows of a table of an artifact and mend its entry in the manifest."""
    path = folder / f"{name}.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    mend(folder, f"{name}.parquet")


def mend(folder: Path, name: str) -> None:
    """Let the manifest fit a file that was changed."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    entry = manifest["files"][name]
    entry["sha256"] = file_fingerprint(folder / name)
    entry["bytes"] = (folder / name).stat().st_size
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
