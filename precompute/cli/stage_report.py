"""The report of a stage's folder: manifest, files with row counts, and the first rows of each table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.artifacts import SHARDS_NAME, Artifact

N_FIRST_ROWS = 3
_MAX_TEXT = 60
_MAX_ITEMS = 6


def stage_report(artifact: Artifact) -> dict[str, Any]:
    """Manifest without file list, files, and for every table its columns and first rows, as JSON values."""
    manifest = asdict(artifact.manifest)
    files = manifest.pop("files")
    return {
        "path": str(artifact.folder),
        **manifest,
        "files": files,
        "tables": {name: _table_report(artifact, name) for name in table_names(artifact)},
    }


def table_names(artifact: Artifact) -> list[str]:
    """Bare names of the tables, whole or in shards."""
    files = [name for name in artifact.manifest.files if name.endswith(".parquet")]
    bare = (name.split("/", 2)[-1] if name.startswith(f"{SHARDS_NAME}/") else name for name in files)
    return sorted({name.removesuffix(".parquet") for name in bare})


def _table_report(artifact: Artifact, name: str) -> dict[str, Any]:
    table = artifact.table(name)
    return {
        "rows": table.num_rows,
        "columns": {field.name: str(field.type) for field in table.schema},
        "first_rows": [
            {column: _short(value) for column, value in row.items()} for row in table.slice(0, N_FIRST_ROWS).to_pylist()
        ],
    }


def _short(value: Any) -> Any:
    """A cell fit for reading: long texts, lists and bytes are cut, NaN becomes null."""
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return f"{value[: _MAX_TEXT - 1]}…"
    if isinstance(value, list):
        shown = [_short(item) for item in value[:_MAX_ITEMS]]
        return shown if len(value) <= _MAX_ITEMS else [*shown, f"({len(value)} in all)"]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def print_stage(report: Mapping[str, Any], console: Console) -> None:
    """The report as tables for a terminal."""
    line = f"{report['stage']} version {report['stage_version']} ({report['path']}, {report['fingerprint'][:12]})"
    console.print(line, highlight=False, markup=False)
    for name, count in report["failures"].items():
        console.print(f"failed: {name}: {count}", highlight=False, markup=False)
    for name, value in report["notes"].items():
        console.print(f"{name}: {_short(str(value))}", highlight=False, markup=False)
    files = Table("file", "bytes", "rows", box=None, pad_edge=False)
    for name, entry in report["files"].items():
        files.add_row(escape(name), str(entry["bytes"]), "" if entry["rows"] is None else str(entry["rows"]))
    console.print(files)
    for name, table in report["tables"].items():
        rows = table["first_rows"]
        head = [f"row {place}" for place in range(len(rows))]
        shown = Table("column", "type", *head, title=f"{name}: {table['rows']} rows", title_justify="left", box=None)
        for column, kind in table["columns"].items():
            shown.add_row(escape(column), escape(kind), *(escape(str(row[column])) for row in rows))
        console.print()
        console.print(shown)
