"""Stage 2, harvest: one pass of the encoder, stopped at the hook point, over the explain, select and score splits.

Shards are image ranges of one split. The pass keeps, per feature: the best exemplars for mean and for max pooling with
their activation grids, a fair sample for the decile exemplars, counts and a histogram, coactivation of features, and
the mean-pooled activation of every image.

Output (docs/artifacts.md): exemplars, features, coactivation, images, pooled_<split>.npy, stream.json.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from backend.errors import DataError
from backend.sae import TopKSAE
from backend.types import Split
from precompute.activation_histogram import EMPTY_EXPONENT
from precompute.datasets import ImageSet, open_image_set, require_disjoint
from precompute.encoding import encode_images, fixed_threads, split_threads
from precompute.harvesting import FeatureCounts, candidates, deciles, prune, ranked
from precompute.recipe import Recipe, section_science
from precompute.sparse_codes import add_coactivation, by_feature, pooled_matrix
from precompute.stage import Stage, StageContext
from precompute.subject import device_of, open_tower

SPLITS = (Split.EXPLAIN, Split.SELECT, Split.SCORE)
DESCRIBED = Split.EXPLAIN
"""The split that gives counts, histograms, coactivation and decile exemplars, and decides which features are alive."""

EXEMPLAR_COLUMNS = (
    "feature",
    "split",
    "pooling",
    "rank",
    "image_id",
    "activation_mean",
    "activation_max",
    "patches",
    "values",
)


class ShardSums:
    """What a shard adds up chunk by chunk."""

    def __init__(self, split: Split, d_sae: int, recipe: Recipe, device: torch.device) -> None:
        self._recipe = recipe
        self._described = split is DESCRIBED
        self._d_sae = d_sae
        self._candidates: list[pa.Table] = []
        self._pooled: list[Float[np.ndarray, "image d_sae"]] = []
        self.counts = FeatureCounts.empty(d_sae, recipe.harvest.histogram_bins)
        self._pairs = torch.zeros(d_sae * d_sae if self._described else 0, dtype=torch.int64, device=device)
        self.norm_sum = 0.0
        self.n_patches = 0

    def add(self, sae: TopKSAE, residuals: Float[Tensor, "image patch d_model"], positions: Sequence[int]) -> None:
        """Encode and count the images of one chunk; ``positions`` are their places in the split."""
        activations = sae.encode(residuals)
        n_images, n_patches = residuals.shape[:2]
        codes = by_feature(activations.values, activations.indices)
        place = np.asarray(positions, dtype=np.int64)
        n = self._recipe.harvest.n_exemplars
        self._candidates.append(candidates(codes, place, n, sample=self._described))
        self._pooled.append(pooled_matrix(codes, n_images, self._d_sae).astype(np.float16))
        self.norm_sum += float(residuals.double().norm(dim=-1).sum())
        self.n_patches += n_images * n_patches
        if self._described:
            bins = self._recipe.harvest.histogram_bins
            self.counts = self.counts + FeatureCounts.of(codes, n_images * n_patches, self._d_sae, bins)
            add_coactivation(self._pairs, activations.values, activations.indices, self._d_sae)

    def candidates(self) -> pa.Table:
        """The shard's candidates, pruned."""
        return prune(pa.concat_tables(self._candidates), self._recipe.harvest.n_exemplars, sample=self._described)

    def pooled(self) -> Float[np.ndarray, "image d_sae"]:
        """Mean-pooled activations of the shard's readable images, float16."""
        empty = np.zeros((0, self._d_sae), np.float16)
        return np.concatenate([empty, *self._pooled])

    def coactivation(self) -> pa.Table:
        """Pairs of features active on the same patch (first < second) and on how many."""
        keys = torch.nonzero(self._pairs).squeeze(1)
        first, second = keys // self._d_sae, keys % self._d_sae
        return pa.table(
            {
                "first": pa.array(first.cpu().numpy(), pa.int32()),
                "second": pa.array(second.cpu().numpy(), pa.int32()),
                "count": pa.array(self._pairs[keys].cpu().numpy(), pa.int64()),
            }
        )


def coactivation_table(pairs: pa.Table, n_active: Int[np.ndarray, " feature"], n_neighbours: int) -> pa.Table:
    """For each feature the others it shares most patches with; value = shared patches / patches of either (0..1)."""
    summed = pairs.group_by(["first", "second"], use_threads=False).aggregate([("count", "sum")])
    first, second = summed["first"].to_numpy().astype(np.int64), summed["second"].to_numpy().astype(np.int64)
    count = summed["count_sum"].to_numpy()
    value = count / (n_active[first] + n_active[second] - count)
    feature, other = np.concatenate([first, second]), np.concatenate([second, first])
    from_both = np.concatenate([value, value])
    order = np.lexsort((other, -from_both, feature))
    starts = np.flatnonzero(np.append(True, np.diff(feature[order]) != 0)[: order.size])
    rank = np.arange(order.size) - np.repeat(starts, np.diff(np.append(starts, order.size)))
    kept = order[rank < n_neighbours]
    return pa.table(
        {
            "feature": pa.array(feature[kept], pa.int32()),
            "rank": pa.array(rank[rank < n_neighbours], pa.int32()),
            "neighbour": pa.array(other[kept], pa.int32()),
            "value": pa.array(from_both[kept], pa.float32()),
        }
    )


def feature_table(counts: FeatureCounts) -> pa.Table:
    """Per feature: how often, how strongly and on how many images it fires, with its histogram of active patches."""
    n_bins = counts.histogram.shape[1]
    width = np.where(counts.exponent == EMPTY_EXPONENT, 1.0, np.ldexp(1.0, np.maximum(counts.exponent, -149)))
    edges = width[:, None] * np.arange(n_bins + 1)[None, :]
    alive = counts.n_active > 0
    mean = counts.total / np.maximum(counts.n_active, 1)
    return pa.table(
        {
            "feature": pa.array(np.arange(alive.size), pa.int32()),
            "alive": pa.array(alive),
            "firing_fraction": pa.array(counts.n_active / max(1, counts.n_patches), pa.float32()),
            "mean_when_active": pa.array(mean.astype(np.float32), pa.float32(), mask=~alive),
            "maximum": pa.array(counts.maximum, pa.float32(), mask=~alive),
            "n_active_patches": pa.array(counts.n_active, pa.int64()),
            "n_images_active": pa.array(counts.n_images_active, pa.int32()),
            "histogram": pa.array(list(counts.histogram.astype(np.int32)), pa.list_(pa.int32())),
            "histogram_edges": pa.array(list(edges.astype(np.float32)), pa.list_(pa.float32())),
        }
    )


class Harvest(Stage):
    """See the module docstring."""

    name = "harvest"
    version = 1
    upstream = ("train_sae",)
    keep_shards = False

    def science(self, recipe: Recipe) -> dict[str, Any]:
        images = {split.value: open_image_set(recipe, split).fingerprint for split in SPLITS}
        return {"harvest": section_science(recipe.harvest), "images": images}

    def shards(self, context: StageContext) -> Sequence[str]:
        sets = {split: open_image_set(context.recipe, split).ids for split in SPLITS}
        require_disjoint(sets)
        step = context.recipe.harvest.images_per_shard
        return [f"{split.value}-{start:07d}" for split, ids in sets.items() for start in range(0, len(ids), step)]

    def run_shard(self, context: StageContext, key: str) -> None:
        name, start_text = key.rsplit("-", 1)
        split, start = Split(name), int(start_text)
        images = open_image_set(context.recipe, split)
        ids = images.ids[start : start + context.recipe.harvest.images_per_shard]
        subject = open_tower(context.recipe, context.runtime)
        device = device_of(context.runtime)
        sae = TopKSAE.load(context.upstream["train_sae"].folder / "sae", device=device)
        sums = ShardSums(split, sae.d_sae, context.recipe, torch.device(device))
        seen: list[int] = []
        failures: Counter[str] = Counter()
        n_at_once, n_threads = split_threads(device, context.runtime.workers)
        with (
            fixed_threads(n_threads),
            context.progress.track(f"{split.value} images", len(ids)) as advance,
        ):
            batch = context.runtime.images_per_batch
            chunks = encode_images(subject, images, ids, images_per_batch=batch, failures=failures, n_at_once=n_at_once)
            for chunk in chunks:
                positions = [start + position for position in chunk.positions]
                sums.add(sae, chunk.residuals, positions)
                seen.extend(positions)
                advance(len(positions))
        if not seen:
            raise DataError(f"None of the {len(ids)} {split.value} images from number {start} on can be read.")
        self._write(context, key, images, sums, seen)
        facts = {"norm_sum": sums.norm_sum, "n_patches": sums.n_patches, "failures": dict(failures)}
        context.writer.write_json("facts", facts, shard=key)

    def _write(self, context: StageContext, key: str, images: ImageSet, sums: ShardSums, seen: list[int]) -> None:
        writer = context.writer
        writer.write_table("candidates", sums.candidates(), shard=key)
        writer.write_array("pooled", sums.pooled(), shard=key)
        place = {"position": pa.array(seen, pa.int64()), "image_id": [images.ids[position] for position in seen]}
        writer.write_table("images", pa.table(place), shard=key)
        if images.split is DESCRIBED:
            writer.write_table("counts", sums.counts.table(), shard=key)
            writer.write_table("coactivation", sums.coactivation(), shard=key)

    def finish(self, context: StageContext) -> Mapping[str, Any]:
        by_split = {split: [key for key in context.shard_keys if key.startswith(split.value)] for split in SPLITS}
        facts = {split: [self._facts(context, key) for key in keys] for split, keys in by_split.items()}
        self._finish_images(context, by_split)
        writer = context.writer
        exemplars = [_exemplars(context, split, keys) for split, keys in by_split.items()]
        writer.write_table("exemplars", pa.concat_tables(exemplars))
        counts = FeatureCounts.empty(0, 0)
        for index, key in enumerate(by_split[DESCRIBED]):
            part = FeatureCounts.from_table(writer.read_table("counts", key))
            counts = part if index == 0 else counts + part
        features = feature_table(counts)
        writer.write_table("features", features)
        pairs = writer.read_shards("coactivation", by_split[DESCRIBED])
        writer.write_table(
            "coactivation", coactivation_table(pairs, counts.n_active, context.recipe.harvest.n_coactivated)
        )
        described = facts[DESCRIBED]
        norm = sum(fact["norm_sum"] for fact in described) / sum(fact["n_patches"] for fact in described)
        grid = open_tower(context.recipe, context.runtime).grid
        n_alive = int(np.count_nonzero(features["alive"].to_numpy()))
        stream = {"mean_residual_norm": norm, "grid": {"rows": grid.rows, "cols": grid.cols}, "alive": n_alive}
        writer.write_json("stream", stream)
        failures = sum((Counter(fact["failures"]) for split in SPLITS for fact in facts[split]), Counter())
        context.progress.note(f"{n_alive} of {counts.n_active.size} features are alive; mean residual norm {norm:.2f}")
        return {"failures": dict(failures), "notes": stream}

    def _facts(self, context: StageContext, key: str) -> dict[str, Any]:
        return json.loads(context.writer.path("facts.json", key).read_text(encoding="utf-8"))

    def _finish_images(self, context: StageContext, by_split: Mapping[Split, list[str]]) -> None:
        tables = []
        for split, keys in by_split.items():
            matrix = np.concatenate([np.load(context.writer.path("pooled.npy", key)) for key in keys])
            context.writer.write_array(f"pooled_{split.value}", matrix)
            ids = context.writer.read_shards("images", keys)["image_id"]
            rows = pa.array(range(len(ids)), pa.int32())
            tables.append(pa.table({"image_id": ids, "split": [split.value] * len(ids), "row": rows}))
        context.writer.write_table("images", pa.concat_tables(tables))


def _exemplars(context: StageContext, split: Split, keys: Sequence[str]) -> pa.Table:
    """All exemplar rows of a split, from the candidates of its shards."""
    n = context.recipe.harvest.n_exemplars
    sample = split is DESCRIBED
    merged = context.writer.read_table("candidates", keys[0])
    for key in keys[1:]:
        merged = prune(
            pa.concat_tables([merged, context.writer.read_table("candidates", key)]).combine_chunks(), n, sample=sample
        )
    tables = {pooling: ranked(merged, n, pooling) for pooling in ("mean", "max")}
    if sample:
        tables["decile"] = deciles(merged)
    ids = open_image_set(context.recipe, split).ids
    named = []
    for pooling, table in tables.items():
        image_ids = [ids[position] for position in table["position"].to_pylist()]
        table = table.append_column("image_id", pa.array(image_ids, pa.string()))
        table = table.append_column("split", pa.array([split.value] * len(table), pa.string()))
        table = table.append_column("pooling", pa.array([pooling] * len(table), pa.string()))
        named.append(table.select(EXEMPLAR_COLUMNS))
    return pa.concat_tables(named)


STAGE = Harvest()
