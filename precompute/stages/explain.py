"""Stage 3, explain: every alive feature explained by every arm.

The first shard chooses the strengths of the recipe on the selection features (a seeded, stored list) and the select
split. The other shards are feature ranges: STEERING with the recipe's or the feature's own best strength, TOP_K and
STEERING_INFORMED_TOP_K in both variants, and the three controls, which borrow STEERING's strength.
No scoring image is opened here. Arms that the recipe cannot have (precompute/arms.py) leave no row and no trial; where
no arm steers, there are no strengths and no selection features.

Output: explanations, selection (every trial), selection_features, strengths.json.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from backend.explainers.base import Result
from backend.types import Method
from precompute.arms import absent_arms, possible_arms
from precompute.encoding import fixed_threads
from precompute.exemplars import alive_features
from precompute.explaining import (
    EXPLANATION_SCHEMA,
    INFORMED,
    STEERING,
    TRIAL_SCHEMA,
    ExplanationSession,
    arms_by_picture,
    explanation_row,
    trial_row,
)
from precompute.judges import Judges, open_judges
from precompute.recipe import Recipe, section_science
from precompute.stage import Stage, StageContext
from precompute.strengths import Trial, common_strength, own_strengths
from precompute.subject import explainer_science, open_explainer

SELECTION_KEY = "selection"


def selection_features(alive: Sequence[int], n: int, seed: int) -> tuple[int, ...]:
    """The features on which strengths are chosen: ``n`` alive ones drawn by the seed, in ascending order."""
    drawn = np.random.default_rng(seed).permutation(np.asarray(alive))[:n]
    return tuple(sorted(int(feature) for feature in drawn))


def strength_grids(recipe: Recipe, mean_residual_norm: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The candidates for STEERING and for the informed arms, in residual-stream L2 units, ascending."""
    factor = mean_residual_norm if recipe.explain.strength_unit == "residual_norm" else 1.0
    given = (recipe.explain.strengths, recipe.explain.informed_strengths)
    steering, informed = (tuple(sorted({round(value * factor, 6) for value in values})) for values in given)
    return steering, informed


class Explain(Stage):
    """See the module docstring."""

    name = "explain"
    version = 1
    upstream = ("train_sae", "harvest")
    keep_shards = False

    def __init__(self) -> None:
        self._session: tuple[Path, ExplanationSession, Judges] | None = None

    def science(self, recipe: Recipe) -> dict[str, Any]:
        explain = section_science(recipe.explain)
        del explain["features_per_shard"]  # how features are grouped changes no text
        segmenter = open_judges(recipe).segmenter.fingerprint
        return {"explain": explain, "segmenter": segmenter, **explainer_science(recipe)}

    def shards(self, context: StageContext) -> Sequence[str]:
        alive = alive_features(context.upstream["harvest"])
        step = context.recipe.explain.features_per_shard
        starts = sorted({feature // step * step for feature in alive})
        return [SELECTION_KEY, *(f"features-{start:06d}" for start in starts)]

    def phases(self, keys: Sequence[str]) -> Sequence[Sequence[str]]:
        first = [key for key in keys if key == SELECTION_KEY]
        return [first, [key for key in keys if key != SELECTION_KEY]]

    def _open(self, context: StageContext) -> tuple[ExplanationSession, Judges]:
        if self._session is None or self._session[0] != context.out_dir:
            upstream = context.upstream
            session = ExplanationSession(context.recipe, context.runtime, upstream["train_sae"], upstream["harvest"])
            self._session = (context.out_dir, session, open_judges(context.recipe, context.runtime))
        return self._session[1], self._session[2]

    def run_shard(self, context: StageContext, key: str) -> None:
        session, judges = self._open(context)
        with fixed_threads(context.runtime.workers):
            if key == SELECTION_KEY:
                self._select(context, session, judges)
            else:
                start = int(key.removeprefix("features-"))
                stop = start + context.recipe.explain.features_per_shard
                features = [feature for feature in session.alive if start <= feature < stop]
                self._explain(context, key, features, session, judges)

    def _grids(self, context: StageContext) -> tuple[tuple[float, ...], tuple[float, ...]]:
        norm = float(context.upstream["harvest"].json("stream")["mean_residual_norm"])
        return strength_grids(context.recipe, norm)

    def _select(self, context: StageContext, session: ExplanationSession, judges: Judges) -> None:
        explain = context.recipe.explain
        steering_grid, informed_grid = self._grids(context)
        possible = possible_arms(context.recipe)
        plans = [(STEERING, steering_grid), *((arm, informed_grid) for arm in INFORMED)]
        plans = [(arm, grid) for arm, grid in plans if arm in possible]
        features = selection_features(session.alive, explain.n_selection_features, explain.seed) if plans else ()
        shared = session.context()
        trials: list[Trial] = []
        chosen: dict[str, float] = {}
        with context.progress.track("strengths", len(plans)) as advance:
            for arm, grid in plans:
                tried, _ = session.trials(arm, features, grid, shared, judges.segmenter)
                chosen[arm.key] = common_strength(tried)
                trials.extend(tried)
                advance(1)
        writer = context.writer
        rows = [trial_row(trial) for trial in trials]
        writer.write_table("selection", pa.Table.from_pylist(rows, schema=TRIAL_SCHEMA), shard=SELECTION_KEY)
        writer.write_json("strengths", {"chosen": chosen, "features": list(features)}, shard=SELECTION_KEY)
        told = ", ".join(f"{arm} {value:g}" for arm, value in chosen.items())
        context.progress.note(f"strengths: {told or 'none, for no arm of this recipe steers'}")

    def _chosen(self, context: StageContext) -> dict[str, Any]:
        return json.loads(context.writer.path("strengths.json", SELECTION_KEY).read_text(encoding="utf-8"))

    def _explain(
        self, context: StageContext, key: str, features: Sequence[int], session: ExplanationSession, judges: Judges
    ) -> None:
        arms = arms_by_picture(possible_arms(context.recipe))
        chosen: Mapping[str, float] = self._chosen(context)["chosen"]
        shared = session.context()
        trials: list[Trial] = []
        own: dict[int, float] = {}
        ready: dict[tuple[int, float], Result] = {}
        if STEERING in arms:
            own = dict.fromkeys(features, chosen[STEERING.key])
            if context.recipe.explain.per_feature_strength:
                trials, ready = session.trials(STEERING, features, self._grids(context)[0], shared, judges.segmenter)
                own = own_strengths(trials, chosen[STEERING.key])
        results: list[Result] = []
        with context.progress.track("arms", len(arms)) as advance:
            for arm in arms:
                if arm == STEERING and ready:
                    results += [ready[feature, own[feature]] for feature in features]
                else:
                    strengths = dict.fromkeys(features, chosen[arm.key]) if arm in INFORMED else own
                    results += session.explain(arm, features, strengths, shared)
                advance(1)
        rows = sorted((explanation_row(result) for result in results), key=lambda row: (row["feature"], row["arm"]))
        context.writer.write_table("explanations", pa.Table.from_pylist(rows, schema=EXPLANATION_SCHEMA), shard=key)
        tried = pa.Table.from_pylist([trial_row(trial) for trial in trials], schema=TRIAL_SCHEMA)
        context.writer.write_table("selection", tried, shard=key)

    def _images_read(self, context: StageContext) -> dict[str, str]:
        """How the model attended to several images: its mask mode has changed between versions of transformers."""
        model = open_explainer(context.recipe, context.runtime)
        return {"mask_mode": model.mask_mode, "transformers": metadata.version("transformers")}

    def finish(self, context: StageContext) -> Mapping[str, Any]:
        writer = context.writer
        keys = list(context.shard_keys)
        chosen = self._chosen(context)
        explanations = writer.read_shards("explanations", keys[1:])
        writer.write_table("explanations", explanations)
        writer.write_table("selection", writer.read_shards("selection", keys))
        writer.write_table("selection_features", pa.table({"feature": pa.array(chosen["features"], pa.int32())}))
        writer.write_json("strengths", chosen["chosen"])
        failures = Counter(
            f"{arm}: {reason}"
            for arm, reason in zip(explanations["arm"].to_pylist(), explanations["failure"].to_pylist(), strict=True)
            if reason is not None
        )
        blank = [
            row["text"] or row["raw_text"]
            for row in explanations.slice(0, 64).to_pylist()
            if row["arm"] == Method.NO_STEERING.value
        ]
        self._session = None
        notes = {"strengths": chosen["chosen"], "blank_answer": blank[:1], "images_read": self._images_read(context)}
        absent = absent_arms(context.recipe)
        return {"failures": dict(failures), "notes": {**notes, "absent_arms": absent} if absent else notes}


STAGE = Explain()
