"""The explorer in Chromium against its targets: map, opening, search, steering, uploads, one table for all.

The map, opening and search are measured on synthetic atlases of the given sizes (benchmarks/synthetic_atlas.py), what
needs the subject model on the shipped one. Server and browser are processes of their own on this machine. By default
WebGL is drawn by the processor; ``--gl hardware`` leaves it to the graphics card.

    python -m benchmarks.explorer
    python -m benchmarks.explorer --sizes 2000 --n-cold 2 --n-clicks 20 --parts map search
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from backend.atlas import FeatureAtlas
from benchmarks import map_measures, model_measures
from benchmarks.serving import Server
from benchmarks.synthetic_atlas import synthetic_atlas
from benchmarks.verdicts import Measure, machine, print_measures, write_json
from tests.browser.chromium import FLAGS, SOFTWARE_GL, executable

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parent.parent
Part = Literal["map", "clicks", "frames", "search", "steering", "uploads"]
PARTS: tuple[Part, ...] = ("map", "clicks", "frames", "search", "steering", "uploads")
SMALL = 10_000
"""Up to here the map's target for small atlases holds; beyond it, that for large ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure, how often, and on what."""

    sizes: tuple[int, ...] = (8_000, 100_000)
    """Features of the synthetic atlases."""
    parts: tuple[Part, ...] = PARTS
    """What to measure."""
    atlas: Path = ROOT / "assets" / "atlas"
    """Atlas with a subject model, for steering and uploads."""
    folder: Path | None = None
    """Keep the synthetic atlases here, and use those that are there; by default they are made anew."""
    n_cold: int = 5
    """Cold starts of the map."""
    slow: bool = True
    """Also start the map as a slow visitor: 10 Mbit/s and a processor four times slower."""
    n_clicks: int = 200
    """Isolated points to click."""
    n_searches: int = 50
    """Queries, in the browser and at the server."""
    n_steered: int = 10
    """Answers, and as many stopped ones."""
    n_uploads: int = 8
    """Pictures."""
    gl: Literal["software", "hardware"] = "software"
    """Who draws the map."""
    json: Path | None = None
    """Also write the results here."""


def main(settings: Settings) -> None:
    """Measure and print."""
    from playwright.sync_api import sync_playwright

    flags = [*FLAGS, *(SOFTWARE_GL if settings.gl == "software" else ())]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory(prefix="iconoscope-") as scratch:
        browser = playwright.chromium.launch(executable_path=executable(), args=flags)
        described = {**machine(), "browser": f"Chromium {browser.version}, {settings.gl} WebGL"}
        measures: list[Measure] = []
        for measure in _all(browser, settings, settings.folder or Path(scratch)):
            print(
                f"{measure.what}: {'–' if measure.value is None else f'{measure.value:.4g}'} {measure.unit}", flush=True
            )
            measures.append(measure)
        browser.close()
    print_measures("Explorer", measures, described)
    if settings.json is not None:
        write_json(settings.json, "Explorer", measures, described)


def _all(browser: Browser, settings: Settings, folder: Path) -> Iterator[Measure]:
    for size in settings.sizes:
        if set(settings.parts) & {"map", "clicks", "frames", "search"}:
            for measure in _of_size(browser, settings, size, _atlas(folder, size)):
                yield replace(measure, what=f"{size:,} features: {measure.what}")
    if set(settings.parts) & {"steering", "uploads"}:
        yield from _of_model(browser, settings)


def _atlas(folder: Path, size: int) -> Path:
    place = folder / f"synthetic-{size}"
    if not (place / "manifest.json").is_file():
        print(f"making an atlas of {size:,} features", flush=True)
        synthetic_atlas(place, size)
    return place


def _of_size(browser: Browser, settings: Settings, size: int, atlas: Path) -> Iterator[Measure]:
    target_s = 3.0 if size <= SMALL else 5.0
    with Server([atlas]) as server:
        if "map" in settings.parts:
            yield from map_measures.cold_starts(browser, server.url, settings.n_cold, target_s, slow=False)
            if settings.slow:
                yield from map_measures.cold_starts(browser, server.url, settings.n_cold, target_s, slow=True)
        if set(settings.parts) & {"clicks", "frames"}:
            page = map_measures.open_map(browser, server.url)
            if "frames" in settings.parts:
                target_fps = 50.0 if settings.gl == "hardware" else 20.0
                yield from map_measures.frame_rates(page, target_fps)
                page.reload()
                page.wait_for_function(map_measures.READY)
            if "clicks" in settings.parts:
                yield from map_measures.clicks(page, settings.n_clicks)
            page.context.close()
        if "search" in settings.parts:
            yield from map_measures.served_searches(server.url, settings.n_searches)
            page = map_measures.open_map(browser, server.url)
            yield from map_measures.searches(page, settings.n_searches)
            page.context.close()
        yield Measure(what="memory of the server", value=server.memory_mb(), unit="MB", n=1, target=2048)


def _of_model(browser: Browser, settings: Settings) -> Iterator[Measure]:
    store = FeatureAtlas.open(settings.atlas, verify=False).store
    kept = [record for record in map(store.feature, store.feature_ids.tolist()) if record.quality_kept]
    features = [record.feature for record in kept[:: max(1, len(kept) // 20)]]
    with Server([settings.atlas]) as server:
        if "steering" in settings.parts:
            yield from model_measures.steering(browser, server.url, features, settings.n_steered)
        if "uploads" in settings.parts:
            yield from model_measures.uploads(browser, server.url, settings.n_uploads)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
