"""The end of the score stage: shards joined, metrics over generated images, truth, vote, totals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from backend.types import ARMS, Split, TruthOutcome
from precompute.arms import possible_arms
from precompute.exemplars import ExemplarIndex, alive_features, grid_of
from precompute.judges import TruthOracle
from precompute.metrics import mask_overlap
from precompute.metrics.truth import FeatureTruth, chance, shares, truths
from precompute.scoring import NO_SYNTHETIC, NO_TEXT, SCORE_SCHEMA, SyntheticScorer, absent, score_row, truth_outcome
from precompute.stage import StageContext
from precompute.statistics import pooled_auroc
from precompute.summary import (
    AVERAGED,
    CANDIDATES,
    ArmResults,
    arm_summary,
    by_feature,
    compare_arms,
    coverage,
    elections,
    failures_of,
    is_right,
    passes_quality,
)
from precompute.synthesis import SyntheticActivations

COVERAGE_AP = 0.3
"""A concept counts as covered from this average precision on."""


class ScoreResults:
    """Joins the shards of the score stage and writes its tables."""

    def __init__(self, context: StageContext, oracle: TruthOracle | None) -> None:
        self._context = context
        self._score = context.recipe.score
        self._oracle = oracle
        self._writer = context.writer
        self.alive = alive_features(context.upstream["harvest"])
        self.explanations = context.upstream["explain"].table("explanations").to_pylist()
        self._summary: dict[str, Any] = {}

    def _shards(self, prefix: str) -> list[str]:
        return [key for key in self._context.shard_keys if key.startswith(prefix)]

    @cached_property
    def texts(self) -> dict[str, dict[int, str]]:
        """arm -> feature -> text."""
        table: dict[str, dict[int, str]] = {arm.key: {} for arm in ARMS}
        for row in self.explanations:
            if row["text"] is not None:
                table[row["arm"]][row["feature"]] = row["text"]
        return table

    @cached_property
    def synthetic(self) -> SyntheticActivations:
        """Activations of every feature on every generated image."""
        keys = self._shards("texts-")
        matrices = [np.load(self._writer.path("activations.npy", key)) for key in keys]
        texts = [text for key in keys for text in self._writer.read_table("synthetic", key)["text"].to_pylist()]
        return SyntheticActivations(texts, np.concatenate(matrices) if matrices else np.zeros((0, 1), np.float32))

    @cached_property
    def scorer(self) -> SyntheticScorer:
        return SyntheticScorer(
            self.synthetic,
            self._context.upstream["harvest"].array(f"pooled_{Split.SCORE.value}"),
            {text for arm in CANDIDATES for text in self.texts[arm].values()},
            n_negatives=self._score.n_negatives,
            seed=self._score.seed,
        )

    @cached_property
    def score_rows(self) -> list[dict[str, Any]]:
        """All scores, sorted by feature, arm and metric."""
        rows: list[dict[str, Any]] = []
        keys = self._shards("features-")
        if keys:
            rows += self._writer.read_shards("scores", keys).to_pylist()
        strongest = self._strongest()
        for row in self.explanations:
            feature, arm, text = row["feature"], row["arm"], row["text"]
            if text is None:
                scores = absent(AVERAGED, NO_TEXT)
            else:
                scores = self.scorer.scores(feature, text, strongest.get(feature))
            rows += [score_row(feature, arm, score) for score in scores]
        return sorted(rows, key=lambda row: (row["feature"], row["arm"], row["metric"]))

    def _strongest(self) -> dict[int, float]:
        """Mean-pooled activation of each feature on its best explain image."""
        harvest = self._context.upstream["harvest"]
        index = ExemplarIndex(harvest, Split.EXPLAIN, "mean", grid_of(harvest))
        found = {feature: index.of(feature, 1) for feature in self.alive}
        return {feature: ones[0].activation_mean for feature, ones in found.items() if ones}

    @cached_property
    def average_precision(self) -> np.ndarray | None:
        """[feature concept], or None where nobody knows the truth."""
        if self._oracle is None:
            return None
        return np.load(self._writer.path("average_precision.npy", "truth"))

    @cached_property
    def truths(self) -> dict[int, FeatureTruth]:
        """Truth of every alive feature; empty where nobody knows it."""
        if self._oracle is None or self.average_precision is None:
            return {}
        found = truths(self.average_precision, self._oracle.concepts, self._score.ap_threshold)
        return {feature: found[feature] for feature in self.alive}

    def _intervals(self) -> dict[int, dict[str, float | None]]:
        """feature -> ends of the interval of its average precision; None where it has no truth."""
        ends = np.load(self._writer.path("precision_intervals.npy", "truth")).tolist()
        found = {feature: truth.concept is not None for feature, truth in self.truths.items()}
        return {
            feature: {"low": ends[feature][0] if known else None, "high": ends[feature][1] if known else None}
            for feature, known in found.items()
        }

    def concept_of(self, feature: int) -> str | None:
        """The feature's truth, if it has one."""
        return self.truths[feature].concept if feature in self.truths else None

    @cached_property
    def outcomes(self) -> dict[str, dict[int, TruthOutcome]]:
        """arm -> feature -> verdict."""
        verdicts: dict[str, dict[int, TruthOutcome]] = {arm.key: {} for arm in ARMS}
        for row in self.explanations:
            concept = self.concept_of(row["feature"])
            verdicts[row["arm"]][row["feature"]] = truth_outcome(self._oracle, concept, row["text"])
        return verdicts

    def _unreadable(self) -> set[str]:
        """Texts in which the segmenter or the image generator found nothing that could be shown."""
        reasons = (mask_overlap.UNPARSABLE, NO_SYNTHETIC)
        return {self.texts[row["arm"]][row["feature"]] for row in self.score_rows if row["reason"] in reasons}

    # writing -----------------------------------------------------------------------------------------------------

    def write(self) -> dict[str, int]:
        """Write every table and summary.json; return failures by reason."""
        writer = self._writer
        writer.write_table("scores", pa.Table.from_pylist(self.score_rows, schema=SCORE_SCHEMA))
        values = by_feature(self.score_rows)
        votes = elections(self.texts, values, self.alive, self._score.seed, unreadable=self._unreadable())
        self._write_votes(votes, values)
        self._write_truth()
        self._write_synthetic()
        wins = [vote.winner for vote in votes.values() if vote is not None]
        alike = {feature: self.texts[vote.winner][feature] if vote else "" for feature, vote in votes.items()}
        arms = {}
        possible = possible_arms(self._context.recipe)
        with self._context.progress.track("totals (arms)", len(possible)) as advance:
            for arm in possible:
                results = self._arm_results(arm.key, wins.count(arm.key), alike)
                arms[arm.key] = arm_summary(
                    arm.key, results, values, alike, n_bootstrap=self._score.n_bootstrap, seed=self._score.seed
                )
                advance(1)
        right = {
            arm: {f: is_right(verdict) for f, verdict in table.items() if verdict is not TruthOutcome.UNDECIDABLE}
            for arm, table in self.outcomes.items()
        }
        self._summary = {
            "arms": arms,
            "n_best_texts": len(set(alike.values())),
            "tests": compare_arms(values, right),
            "concept_coverage": self._coverage(),
        }
        writer.write_json("summary", self._summary)
        return {f"{arm}: {reason}": n for arm, entry in arms.items() for reason, n in entry["failures"].items()}

    def notes(self) -> Mapping[str, Any]:
        """The headline figures, for the manifest."""
        arms = self._summary["arms"]
        shares_right = {arm: (entry["truth"] or {}).get("right", {}).get("value") for arm, entry in arms.items()}
        return {"truth_right": shares_right, "concept_coverage": (self._summary["concept_coverage"] or {}).get("all")}

    def _arm_results(self, arm: str, wins: int, alike: Mapping[int, str]) -> ArmResults:
        positives, negatives, features = self.scorer.pooled_rows(self.texts[arm], self._score.n_synthetic)
        clusters = [alike[feature] for feature in features]
        pooled = pooled_auroc(
            positives, negatives, clusters, n_bootstrap=self._score.n_bootstrap, seed=self._score.seed
        )
        truth = truth_chance = None
        if self._oracle is not None:
            truth = shares([self.outcomes[arm][feature] for feature in sorted(self.outcomes[arm])])
            decidable = [feature for feature in self.alive if self.concept_of(feature) is not None]
            truth_chance = chance(
                [self.concept_of(feature) or "" for feature in decidable],
                [self.texts[arm].get(feature) for feature in decidable],
                self._oracle.judge,
                n_draws=self._score.n_bootstrap,
                seed=self._score.seed,
            )
        return ArmResults(
            n=len(self.texts[arm]),
            failures=failures_of(arm, self.explanations, self.score_rows),
            pooled=pooled,
            truth=truth,
            truth_chance=truth_chance,
            wins=wins,
        )

    def _write_votes(self, votes: Mapping[int, Any], values: Mapping[str, Any]) -> None:
        rows = []
        for feature in self.alive:
            vote = votes[feature]
            kept = passes_quality(
                vote,
                values,
                feature,
                min_iou=self._score.quality_iou,
                min_synthetic=self._score.quality_synthetic,
            )
            rows.append(
                {
                    "feature": feature,
                    "best_arm": vote.winner if vote else None,
                    "best_text": self.texts[vote.winner][feature] if vote else None,
                    "tied": vote.tied if vote else False,
                    "metrics": list(vote.metrics) if vote else [],
                    "quality_kept": kept,
                }
            )
        schema = pa.schema(
            [
                ("feature", pa.int32()),
                ("best_arm", pa.string()),
                ("best_text", pa.string()),
                ("tied", pa.bool_()),
                ("metrics", pa.list_(pa.string())),
                ("quality_kept", pa.bool_()),
            ]
        )
        self._writer.write_table("votes", pa.Table.from_pylist(rows, schema=schema))

    def _write_truth(self) -> None:
        """outcomes.parquet for every run; truth.parquet and concepts.parquet where the truth is known."""
        outcomes = [
            {"feature": feature, "arm": arm, "truth_outcome": verdict.value}
            for arm, table in self.outcomes.items()
            for feature, verdict in sorted(table.items())
        ]
        names = ("feature", "arm", "truth_outcome")
        types = (pa.int32(), pa.string(), pa.string())
        self._writer.write_table(
            "outcomes", pa.Table.from_pylist(outcomes, schema=pa.schema(list(zip(names, types, strict=True))))
        )
        if self._oracle is None:
            return
        oracle = self._oracle
        intervals = self._intervals()
        n_images = len(self._context.upstream["harvest"].array(f"pooled_{Split.SCORE.value}"))
        rows = [
            {
                "feature": feature,
                "concept": truth.concept,
                "average_precision": truth.average_precision,
                **intervals[feature],
                "n_images": n_images,
                "family": oracle.family(truth.concept) if truth.concept else None,
                "terms": list(oracle.terms(truth.concept)) if truth.concept else [],
            }
            for feature, truth in self.truths.items()
        ]
        schema = pa.schema(
            [
                ("feature", pa.int32()),
                ("concept", pa.string()),
                ("average_precision", pa.float32()),
                ("low", pa.float32()),
                ("high", pa.float32()),
                ("n_images", pa.int32()),
                ("family", pa.string()),
                ("terms", pa.list_(pa.string())),
            ]
        )
        self._writer.write_table("truth", pa.Table.from_pylist(rows, schema=schema))
        concepts = [
            {"concept": concept, "kind": oracle.kind(concept), "best_feature": feature, "average_precision": value}
            for concept, (feature, value) in self._best_features().items()
        ]
        columns = [("concept", pa.string()), ("kind", pa.string()), ("best_feature", pa.int32())]
        schema = pa.schema([*columns, ("average_precision", pa.float32())])
        self._writer.write_table("concepts", pa.Table.from_pylist(concepts, schema=schema))

    def _best_features(self) -> dict[str, tuple[int | None, float | None]]:
        """The feature that detects each concept best, and how well; None if no scoring image shows the concept."""
        assert self._oracle is not None and self.average_precision is not None
        found: dict[str, tuple[int | None, float | None]] = {}
        for column, concept in enumerate(self._oracle.concepts):
            values = self.average_precision[:, column]
            best = int(np.nan_to_num(values, nan=-1.0).argmax())
            shown = bool(np.isfinite(values[best]))
            found[concept] = (best, float(values[best])) if shown else (None, None)
        return found

    def _coverage(self) -> dict[str, Any] | None:
        if self._oracle is None:
            return None
        oracle = self._oracle
        best = {concept: value for concept, (_, value) in self._best_features().items()}
        return coverage(best, {concept: oracle.kind(concept) for concept in oracle.concepts}, COVERAGE_AP)

    def _write_synthetic(self) -> None:
        """All generated images, and the activation of each explained feature on the images of its texts."""
        keys = self._shards("texts-")
        if keys:
            self._writer.write_table("synthetic", self._writer.read_shards("synthetic", keys))
        columns: dict[str, list[Any]] = {name: [] for name in ("feature", "arm", "text", "image_index", "activation")}
        for row in self.explanations:
            if row["text"] is None or row["text"] not in self.synthetic:
                continue
            activations: Sequence[float] = self.synthetic.of(row["text"], row["feature"]).tolist()
            for index, activation in enumerate(activations):
                entry = (row["feature"], row["arm"], row["text"], index, activation)
                for name, value in zip(columns, entry, strict=True):
                    columns[name].append(value)
        types = (pa.int32(), pa.string(), pa.string(), pa.int32(), pa.float32())
        self._writer.write_table(
            "synthetic_activations",
            pa.table({name: pa.array(columns[name], kind) for name, kind in zip(columns, types, strict=True)}),
        )
