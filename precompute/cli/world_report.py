"""The report of the world: the stored evaluation of its models, their cards, and the corpora."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.errors import ArtifactDamaged
from precompute.cli.atlas_report import score_text

EVALUATION_NAME = "evaluation.json"
CARD_NAME = "card.json"


def world_report(folder: Path) -> dict[str, Any]:
    """Evaluation, model cards and corpora as JSON values. Raises ArtifactDamaged."""
    return {
        "kind": "world",
        "path": str(folder),
        "evaluation": _read_json(folder / EVALUATION_NAME),
        "models": {model.name: _model(model) for model in _model_folders(folder)},
        "corpora": {path.stem: _corpus(path) for path in sorted((folder / "corpus").glob("*.parquet"))},
    }


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactDamaged(f"{path} is not readable JSON ({error}). Train the world again to rewrite it.") from error


def _model_folders(folder: Path) -> list[Path]:
    """Subfolders that hold a model: a config or a card beside weights."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and any(path.glob("*.safetensors")))


def _model(folder: Path) -> dict[str, Any]:
    weights = sorted(folder.glob("*.safetensors"))
    card = folder / CARD_NAME
    config = folder / "config.json"
    described = _read_json(config) if config.is_file() else {}
    return {
        "model_type": described.get("model_type"),
        "bytes": sum(path.stat().st_size for path in weights),
        "card": _read_json(card) if card.is_file() else None,
    }


def _corpus(path: Path) -> dict[str, Any]:
    try:
        rows = int(pq.ParquetFile(path).metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactDamaged(f"{path} is not a readable table ({error}).") from error
    return {"images": rows, "bytes": path.stat().st_size}


def numbers_of(value: object, name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every ``{value, low, high, n}`` in nested JSON, with its path; a bare number counts as a value alone."""
    if isinstance(value, Mapping):
        if "value" in value:
            yield name, value
            return
        for key, item in value.items():
            yield from numbers_of(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, {"value": value}


def print_world(report: Mapping[str, Any], console: Console) -> None:
    """The report as tables for a terminal."""
    console.print(f"world ({report['path']})", highlight=False, markup=False)
    evaluation = Table("measured on held-out scenes", "value [95 % interval] n", box=None, pad_edge=False)
    for name, score in numbers_of(report["evaluation"]):
        evaluation.add_row(escape(name), escape(score_text(score)))
    console.print(evaluation)
    models = Table("model", "type", "bytes", "card", box=None, pad_edge=False)
    for name, model in report["models"].items():
        card = "" if model["card"] is None else json.dumps(model["card"], ensure_ascii=False)
        models.add_row(escape(name), str(model["model_type"] or ""), str(model["bytes"]), escape(card))
    console.print(models)
    corpora = Table("corpus", "images", "bytes", box=None, pad_edge=False)
    for name, corpus in report["corpora"].items():
        corpora.add_row(escape(name), str(corpus["images"]), str(corpus["bytes"]))
    console.print(corpora)
