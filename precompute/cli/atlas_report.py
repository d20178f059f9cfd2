"""The report of an atlas: subject, SAE, coverage, and every method, variant and control with scores and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from backend.feature_store import FeatureStore
from backend.types import ARM_BY_KEY

METRICS = ("iou", "clip_score", "synthetic_activation", "auroc_pooled", "auroc_per_feature")
OUTCOMES = ("right", "partly", "wrong")
SAE_FIELDS = ("d_model", "d_sae", "k", "nmse", "l0", "explained_variance", "alive", "dead")
_WIDE = 170
"""Terminal columns from which on a table with one row per method fits."""
ABSENT = {"value": None, "low": None, "high": None, "n": 0}


def atlas_report(store: FeatureStore) -> dict[str, Any]:
    """Everything ``inspect`` shows of an atlas, as JSON values. A score that was not made is null with n 0."""
    meta, summary, manifest = store.meta, store.summary, store.artifact.manifest
    return {
        "kind": manifest.kind,
        "path": str(store.artifact.folder),
        "title": meta.get("title"),
        "fingerprint": manifest.fingerprint,
        "stage_version": manifest.stage_version,
        "recipe": meta.get("recipe"),
        "subject": meta["subject"],
        "explainer": meta.get("explainer"),
        "hook_point": meta["hook_point"],
        "grid": meta["grid"],
        "sae": meta["sae"],
        "concept_coverage": meta["concept_coverage"],
        "n_features": len(store),
        "quality_filter": meta.get("quality_filter"),
        "chance": meta.get("chance", {}),
        "absent_arms": {arm.key: reason for arm, reason in store.absent_arms.items()},
        "arms": {arm.key: _arm(arm.key, summary["arms"].get(arm.key, {})) for arm in store.arms},
        "tests": summary.get("tests", []),
        "failures": dict(manifest.failures),
        "files": {name: entry.rows for name, entry in sorted(manifest.files.items())},
    }


def _arm(key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    arm = ARM_BY_KEY[key]
    truth = entry.get("truth") or {}
    return {
        "label": arm.label,
        "method": arm.method.value,
        "variant": arm.variant.value if arm.variant else None,
        "control": arm.is_control,
        "n": entry.get("n", 0),
        "failures": entry.get("failures", {}),
        **{metric: entry.get(metric) or ABSENT for metric in METRICS},
        "truth": {
            **{outcome: truth.get(outcome) or {**ABSENT, "count": 0} for outcome in OUTCOMES},
            "undecidable": truth.get("undecidable", {"count": 0}),
        },
        "truth_chance": entry.get("truth_chance"),
        "wins": entry.get("wins"),
    }


def score_text(score: Mapping[str, Any], digits: int = 3) -> str:
    """``0.412 [0.398, 0.426] n 812``, or a dash: what was not measured is not a number."""
    if score.get("value") is None:
        return "–"
    text = f"{score['value']:.{digits}f}"
    if score.get("low") is not None and score.get("high") is not None:
        text += f" [{score['low']:.{digits}f}, {score['high']:.{digits}f}]"
    return f"{text} n {score['n']}" if "n" in score else text


def print_atlas(report: Mapping[str, Any], console: Console) -> None:
    """The report as tables for a terminal."""
    subject, point, sae = report["subject"], report["hook_point"], report["sae"]
    overview = Table(box=None, show_header=False, pad_edge=False)
    place = f"{point['tower']} tower, {point['stream']} stream after block {point['layer']}"
    rows = {
        "atlas": f"{report['title']} ({report['path']}, {report['fingerprint'][:12]})",
        "subject": f"{subject['name']} ({str(subject['fingerprint'])[:12]})",
        "hook point": place,
        "SAE": ", ".join(f"{name} {_number(sae.get(name))}" for name in SAE_FIELDS),
        "features": str(report["n_features"]),
        "concept coverage": _coverage(report["concept_coverage"]),
    }
    if report["explainer"]:
        rows["explained by"] = str(report["explainer"]["name"])
    if report["absent_arms"]:
        reasons = "; ".join(dict.fromkeys(report["absent_arms"].values()))
        rows["not possible"] = f"{', '.join(report['absent_arms'])}: {reasons}"
    for name, value in rows.items():
        overview.add_row(name, escape(value))
    console.print(overview)
    console.print()
    if console.width >= _WIDE:
        console.print(_metrics_table(report))
        console.print()
        console.print(_truth_table(report))
    else:
        console.print(_long_table(report))
    for test in report["tests"]:
        console.print(_test_line(test), highlight=False, markup=False)


def _coverage(coverage: Mapping[str, Any] | None) -> str:
    if coverage is None:
        return "– (the concepts in these images are not known)"
    kinds = "; ".join(f"{kind} {score_text(score)}" for kind, score in coverage.get("by_kind", {}).items())
    return score_text(coverage["all"]) + (f" ({kinds})" if kinds else "")


def _metrics_table(report: Mapping[str, Any]) -> Table:
    table = Table("method or control", "n", "failed", *METRICS, title="Scores: mean [95 % interval] n", box=None)
    for arm in report["arms"].values():
        failed = str(sum(arm["failures"].values()))
        table.add_row(arm["label"], str(arm["n"]), failed, *(escape(score_text(arm[metric])) for metric in METRICS))
    chances = (_number(report["chance"].get(metric)) for metric in METRICS)
    table.add_row("chance", "", "", *chances, style="dim")
    return table


def _truth_table(report: Mapping[str, Any]) -> Table:
    table = Table("method or control", *OUTCOMES, "undecidable", "chance", "best of all", title="Truth", box=None)
    for arm in report["arms"].values():
        truth = arm["truth"]
        cells = (escape(score_text(truth[outcome])) for outcome in OUTCOMES)
        undecidable = str(truth["undecidable"]["count"])
        table.add_row(arm["label"], *cells, undecidable, _number(_value(arm["truth_chance"])), _number(arm["wins"]))
    return table


def _long_table(report: Mapping[str, Any]) -> Table:
    """One line per score under its method: readable at any width."""
    table = Table("method or control", "value", "95 % interval", "n", box=None, pad_edge=False)
    for arm in report["arms"].values():
        failures = ", ".join(f"{reason} {count}" for reason, count in arm["failures"].items())
        table.add_row(arm["label"], "", f"failed: {failures}" if failures else "", str(arm["n"]), style="bold")
        for metric in METRICS:
            table.add_row(f"  {metric}", *_cells(arm[metric]))
        for outcome in OUTCOMES:
            table.add_row(f"  truth {outcome}", *_cells(arm["truth"][outcome]))
        table.add_row("  truth undecidable", "", "", str(arm["truth"]["undecidable"]["count"]))
    table.add_row("chance", style="bold")
    for metric in METRICS:
        table.add_row(f"  {metric}", _number(report["chance"].get(metric)))
    return table


def _cells(score: Mapping[str, Any]) -> tuple[str, str, str]:
    if score.get("value") is None:
        return "–", "", str(score.get("n", ""))
    interval = "" if score.get("low") is None else f"{score['low']:.3f} to {score['high']:.3f}"
    return f"{score['value']:.3f}", interval, str(score.get("n", ""))


def _value(score: Any) -> Any:
    return score.get("value") if isinstance(score, Mapping) else score


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _test_line(test: Mapping[str, Any]) -> str:
    p = "–" if test.get("p") is None else f"{test['p']:.3g}"
    effect = "" if test.get("effect") is None else f", effect {test['effect']:.3f}"
    return f"{test['test']} {test['metric']}: {test['a']} against {test['b']}, p {p}{effect}, n {test['n']}"
