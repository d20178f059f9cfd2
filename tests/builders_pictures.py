"""Small picture sets on disk, as strangers lay them out: folders, tar shards, Parquet files, saved datasets."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from precompute.data_section import DataSection


def picture_bytes(number: int, *, side_px: int = 12, format_name: str = "PNG") -> bytes:
    """A small picture of noise, another one for every number."""
    pixels = np.random.default_rng(number).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format_name)
    return stream.getvalue()


def save_folder(folder: Path, numbers: Iterable[int], *, side_px: int = 12) -> Path:
    """Pictures in nested subfolders."""
    for number in numbers:
        path = folder / ("holiday", "holiday/beach", "cats & dogs")[number % 3] / f"picture {number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_bytes(number, side_px=side_px))
    return folder


def save_shard(path: Path, numbers: Sequence[int]) -> Path:
    """A tar shard with a picture and a label for every number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            for name, data in ((f"{number:04d}.png", picture_bytes(number)), (f"{number:04d}.cls", b"1")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def save_parquet(path: Path, numbers: Sequence[int | None], *, column: str = "image", rows_per_group: int = 3) -> Path:
    """A Parquet file as the hub holds image datasets; None is a row without a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [
        {"bytes": None if number is None else picture_bytes(number), "path": f"{number}.png"} for number in numbers
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({column: pa.array(cells, kind), "label": pa.array([0] * len(cells), pa.int32())})
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def section(kind: str, path: Path | str, **fields: object) -> DataSection:
    """A [data] section with generous limits."""
    known: dict[str, object] = {"kind": kind, "path": str(path), "n_train_images": 1000, **fields}
    return DataSection(**known)  # pyright: ignore[reportArgumentType]
