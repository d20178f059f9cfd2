"""The README's table of results, written from an atlas's own summary, so that no number is typed by hand.

python -m benchmarks.results_table             print it
python -m benchmarks.results_table --write     put it into README.md, between the two result marks
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from backend.artifacts import read_manifest
from backend.strength_choice import strength_choice
from backend.types import ARMS, Arm

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"

METRICS = {
    "iou": "IoU",
    "clip_score": "CLIP score",
    "synthetic_activation": "Synthetic activation",
    "auroc_per_feature": "AUROC per feature",
    "auroc_pooled": "AUROC pooled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which atlas, and where to."""

    atlas: Path = ROOT / "assets" / "atlas"
    """Folder of the atlas."""
    readme: Path = ROOT / "README.md"
    """Document that holds the two marks."""
    write: bool = False
    """Put the table into the document instead of printing it."""


def results(atlas: Path) -> str:
    """Markdown: one paragraph on the dictionary and one table of all arms, controls last."""
    meta = json.loads((atlas / "meta.json").read_text(encoding="utf-8"))
    arms: Mapping[str, Any] = json.loads((atlas / "summary.json").read_text(encoding="utf-8"))["arms"]
    heads = ["", "n", "failed", "truth right", "partly", *METRICS.values()]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [_row(arm, arms[arm.key]) for arm in ARMS if arm.key in arms]
    manifest = read_manifest(atlas)
    chosen = strength_choice(manifest.inputs, meta.get("strengths") or {})
    legend = " ".join(part for part in (_legend(meta, arms), chosen) if part)
    return f"{_dictionary(meta)}\n\n" + "\n".join(lines) + f"\n\n{legend}\n"


def _dictionary(meta: Mapping[str, Any]) -> str:
    sae, coverage = meta["sae"], meta["concept_coverage"]
    point = meta["hook_point"]
    kinds = "; ".join(f"{kind} {_interval(entry, percent=True)}" for kind, entry in coverage["by_kind"].items())
    return (
        f"The SAE reads {point['tower']} block {point['layer']} (d_model {sae['d_model']}), with d_sae {sae['d_sae']} "
        f"and k {sae['k']}: explained variance {sae['explained_variance']:.3f} and L0 {sae['l0']:.1f} on "
        f"{sae['n_held_out_tokens']:,} held-out patches, {sae['alive']} features alive and {sae['dead']} dead. "
        f"Concepts that some feature detects with average precision of at least {coverage.get('threshold', 0.3)} on "
        f"held-out scenes: {_interval(coverage['all'], percent=True)}; "
        f"by kind: {kinds}."
    )


def _row(arm: Arm, entry: Mapping[str, Any]) -> str:
    truth = entry["truth"] or {"right": {}, "partly": {}}
    name = f"*{arm.label}*" if arm.is_control else arm.label
    n_failed = sum(entry["failures"].values())
    cells = [name, str(entry["n"]), str(n_failed)]
    cells += [_interval(truth["right"], percent=True), _interval(truth["partly"], percent=True)]
    cells += [_interval(entry[metric]) for metric in METRICS]
    return "| " + " | ".join(cells) + " |"


def _legend(meta: Mapping[str, Any], arms: Mapping[str, Any]) -> str:
    shown = [arms[arm.key] for arm in ARMS if arm.key in arms]
    decidable = [entry["truth"]["right"]["n"] for entry in shown if entry["truth"]]
    truth = f"Truth: over the {_range(decidable)} features whose concept is known. " if decidable else ""
    return (
        "Each cell: value (95 % interval; n; for means, features with the same best explanation resampled together). "
        "Controls in italics. n: features with a text; failed: no text, or no "
        f"usable concept in it. {truth}All images are from the scoring split, which no explanation saw. Recipe: "
        f"`{meta['recipe']}`."
    )


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _interval(entry: Mapping[str, Any], *, percent: bool = False) -> str:
    if entry.get("value") is None:
        return "–"
    numbers = [entry[key] for key in ("value", "low", "high")]
    shown = ["?" if number is None else f"{100 * number:.0f}" if percent else f"{number:.2f}" for number in numbers]
    unit = " %" if percent else ""
    return f"{shown[0]}{unit} ({shown[1]}–{shown[2]}; {entry['n']})"


def with_results(text: str, table: str) -> str:
    """The document with what lies between its two marks replaced. Raises ValueError where a mark is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks {BEGIN.strip()} or {END}")
    return before + begin + table + end + after


def main(settings: Settings) -> None:
    """Print or write."""
    table = results(settings.atlas)
    if not settings.write:
        print(table)
        return
    text = settings.readme.read_text(encoding="utf-8")
    settings.readme.write_text(with_results(text, table), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
