"""The opened atlas: complete or refused; the binary of the map says exactly what the table says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from backend.artifact_writer import ArtifactWriter
from backend.artifacts import Artifact
from backend.atlas import FeatureAtlas
from backend.atlas_schema import ATLAS_TABLES
from backend.errors import ArtifactDamaged, ArtifactMissing, ArtifactStale
from backend.map_points import decode
from tests.builders_app import edit_json
from tests.builders_atlas import BagEncoder, build_atlas
from tests.source_tree import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_atlas(tmp_path_factory.mktemp("atlas") / "atlas", encoder=BagEncoder())


def test_open_gives_store_search_and_sae(folder: Path) -> None:
    atlas = FeatureAtlas.open(folder, encoder=BagEncoder())
    assert len(atlas.store) == 60 and atlas.search.query("zebra", 1)[0].score > 0
    assert sorted(path.name for path in atlas.sae_dir.iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_points_hold_the_map(folder: Path) -> None:
    atlas = FeatureAtlas.open(folder)
    points, table = decode(atlas.points()), atlas.store.features
    assert points.ids.tolist() == table["feature"].to_pylist()
    assert points.cluster.tolist() == table["cluster"].to_pylist()
    assert points.kept.tolist() == table["quality_kept"].to_pylist()
    for name in ("x", "y"):
        wanted = table[name].to_numpy()
        np.testing.assert_allclose(getattr(points, name), wanted, atol=float(np.ptp(wanted)) / 65535)


def _copy(folder: Path, target: Path, kind: str = "atlas", leave_out: str = "", **tables: pa.Table) -> Path:
    source = Artifact.open(folder)
    writer = ArtifactWriter(target, kind, 1, {}, {})
    for name in source.manifest.files:
        if name != leave_out:
            writer.write_bytes(name, source.path(name).read_bytes())
    for name, table in tables.items():
        writer.write_table(name, table)
    writer.commit()
    return target


def test_points_without_a_cluster_say_so(folder: Path, tmp_path: Path) -> None:
    table = Artifact.open(folder).table("features")
    place = table.column_names.index("cluster")
    changed = table.set_column(place, "cluster", pa.array([-1, None, *[3] * 58], pa.int16()))
    atlas = FeatureAtlas.open(_copy(folder, tmp_path / "a", features=changed))
    assert decode(atlas.points()).cluster.tolist() == [-1, -1, *[3] * 58]


@pytest.mark.parametrize(
    "name", ["meta.json", "summary.json", "embeddings.npy", "index.faiss", "scores.parquet", "images.parquet"]
)
def test_an_incomplete_atlas_is_refused_when_opened(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactDamaged, match=name.removesuffix(".parquet")):
        FeatureAtlas.open(_copy(folder, tmp_path / "a", leave_out=name))


def test_other_artifacts_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactStale, match="'harvest' artifact where 'atlas' was expected"):
        FeatureAtlas.open(_copy(folder, tmp_path / "a", kind="harvest"))
    with pytest.raises(ArtifactMissing):
        FeatureAtlas.open(tmp_path / "nowhere")


def test_embeddings_must_fit_the_texts(folder: Path, tmp_path: Path) -> None:
    texts = Artifact.open(folder).table("texts")
    with pytest.raises(ArtifactDamaged, match=rf"{len(texts)} rows for {len(texts) - 1} texts"):
        FeatureAtlas.open(_copy(folder, tmp_path / "a", texts=texts.slice(0, len(texts) - 1)))


@pytest.mark.parametrize(("found", "told"), [(None, "a format before 5"), (4, "format 4"), (6, "format 6")])
def test_an_atlas_in_another_format_is_stale_and_says_what_mends_it(
    tmp_path: Path, found: int | None, told: str
) -> None:
    def change(meta: dict[str, object]) -> None:
        meta.pop("format")
        if found is not None:
            meta["format"] = found

    build_atlas(tmp_path / "a", n_features=3, encoder=BagEncoder())
    edit_json(tmp_path / "a", "meta.json", change)
    with pytest.raises(ArtifactStale, match=rf"is in {told}; .*iconoscope run planted --out DIR.*iconoscope copy DIR"):
        FeatureAtlas.open(tmp_path / "a")


def test_the_builder_writes_every_table_and_repeats_itself(folder: Path, tmp_path: Path) -> None:
    again = build_atlas(tmp_path / "again", encoder=BagEncoder())
    files = Artifact.open(folder).manifest.files
    assert files == Artifact.open(again).manifest.files
    assert {f"{name}.parquet" for name in ATLAS_TABLES} <= files.keys()


def test_the_spec_and_the_schemas_agree() -> None:
    """docs/artifacts.md is normative: every column in it, in order, with its type, and none besides."""
    documented = _documented_tables((ROOT / "docs" / "artifacts.md").read_text(encoding="utf-8"))
    declared = {name: [(field.name, _type(field.type)) for field in schema] for name, schema in ATLAS_TABLES.items()}
    assert documented == declared


def _documented_tables(text: str) -> dict[str, list[tuple[str, str]]]:
    """Rows ``| `column` | type | ... |`` under headings ``#### `name.parquet` ``."""
    tables: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] | None = None
    for line in text.splitlines():
        if line.startswith("#"):
            name = line.lstrip("# ").strip("`")
            current = tables.setdefault(name.removesuffix(".parquet"), []) if name.endswith(".parquet") else None
        elif current is not None and line.startswith("| `"):
            column, kind = (cell.strip().strip("`") for cell in line.strip("|").split("|")[:2])
            current.append((column, kind))
    return {name: rows for name, rows in tables.items() if name in ATLAS_TABLES}


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{_type(kind.value_type)}>"
    return {"float": "float32", "halffloat": "float16"}.get(str(kind), str(kind))
