"""Benchmarks say honestly whether a target was met, and over how many measurements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.verdicts import Measure, in_ms, machine, percentile, print_measures, write_json


@pytest.mark.parametrize(
    ("value", "target", "at_least", "verdict"),
    [
        (3.0, 3.0, False, "met"),
        (3.1, 3.0, False, "MISSED"),
        (20.0, 20.0, True, "met"),
        (19.0, 20.0, True, "MISSED"),
        (3.0, None, False, "–"),
        (None, 3.0, False, "not measured"),
    ],
)
def test_verdicts(value: float | None, target: float | None, at_least: bool, verdict: str) -> None:
    measure = Measure(what="x", value=value, unit="s", n=1, target=target, at_least=at_least)
    assert measure.verdict == verdict


def test_percentiles_are_interpolated_and_absent_without_measurements() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 50) == 3.0
    assert percentile([1.0, 2.0], 95) == pytest.approx(1.95)
    assert percentile([], 95) is None
    assert in_ms("search", [0.1] * 20, 95, 150).verdict == "met"
    missing = in_ms("search", [], 95, 150)
    assert (missing.verdict, missing.n, missing.told) == ("not measured", 0, "–")


def test_the_record_holds_values_targets_n_and_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measures = [in_ms("search", [0.1, 0.2], 95, 150), Measure(what="size", value=None, unit="MB", n=0, note="no file")]
    write_json(tmp_path / "results.json", "Explorer", measures, machine())
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["verdict"] for row in found["measures"]] == ["MISSED", "not measured"]
    assert [row["n"] for row in found["measures"]] == [2, 0]
    assert found["machine"].keys() >= {"processor", "cores", "memory", "load", "time"}
    print_measures("Explorer", measures, found["machine"])
    told = capsys.readouterr().out
    for word in ("search, p95", "195 ms", "≤ 150 ms", "MISSED", "no file"):
        assert word in told
