"""Painters of areas: backgrounds, textures and plain colours, each a seeded pure function.

A painter takes a NumPy generator and returns a 128 x 128 RGB picture as floats in [0, 255].
Perspective painters (road, floor, corridor) carry the world's planted depth cues.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from precompute.world.concepts import PLAIN_COLOURS

SIDE_PX = 128
ROWS, COLS = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float32)
Picture = NDArray[np.floating]
Painter = Callable[[np.random.Generator], Picture]


def _flat(colour: tuple[float, float, float]) -> Picture:
    return np.broadcast_to(np.asarray(colour, np.float32), (SIDE_PX, SIDE_PX, 3)).copy()


def _jitter(rng: np.random.Generator, colour: tuple[int, int, int], spread: float = 12.0) -> tuple[float, float, float]:
    red, green, blue = np.asarray(colour) + rng.uniform(-spread, spread, 3)
    return float(red), float(green), float(blue)


def _smooth_noise(rng: np.random.Generator, cells: int, amplitude: float) -> NDArray[np.floating]:
    """Bilinear value noise [row col 1] in [-amplitude, amplitude]."""
    lattice = rng.uniform(-amplitude, amplitude, (cells + 1, cells + 1)).astype(np.float32)
    position = np.linspace(0, cells - 1e-3, SIDE_PX, dtype=np.float32)
    low = position.astype(int)
    part = position - low
    rows = lattice[low] * (1 - part[:, None]) + lattice[low + 1] * part[:, None]
    return (rows[:, low] * (1 - part) + rows[:, low + 1] * part)[..., None]


def _grain(rng: np.random.Generator, amplitude: float) -> NDArray[np.floating]:
    return rng.standard_normal((SIDE_PX, SIDE_PX, 1), dtype=np.float32) * amplitude


def _blend(mask: NDArray[np.bool_], above: tuple[float, ...], below: Picture) -> Picture:
    return np.where(mask[..., None], np.asarray(above, np.float32), below)


def grass(rng: np.random.Generator) -> Picture:
    blades = np.sin(COLS * rng.uniform(1.1, 1.6) + 3 * np.sin(ROWS * 0.35 + rng.uniform(0, 6)))[..., None] * 16
    return (
        _flat(_jitter(rng, (86, 160, 60))) + blades * np.array([0.7, 1.0, 0.5], np.float32) + _smooth_noise(rng, 6, 14)
    )


def sky(rng: np.random.Generator) -> Picture:
    clouds = np.clip(_smooth_noise(rng, 5, 1.0) + _smooth_noise(rng, 11, 0.5), 0, 0.8) / 0.8
    return _flat(_jitter(rng, (120, 180, 238))) * (1 - clouds) + 250 * clouds


def sea(rng: np.random.Generator) -> Picture:
    phase = ROWS * rng.uniform(0.55, 0.75) + 1.6 * np.sin(COLS * rng.uniform(0.12, 0.2) + rng.uniform(0, 6))
    crest = np.clip(np.sin(phase), 0.2, 1)[..., None] * 60
    return _flat(_jitter(rng, (20, 95, 150))) + crest * np.array([0.6, 0.9, 1.0], np.float32)


def sand(rng: np.random.Generator) -> Picture:
    ripple = np.sin(ROWS * 0.22 + 2.2 * np.sin(COLS * 0.045 + rng.uniform(0, 6)) + rng.uniform(0, 6))[..., None] * 12
    return _flat(_jitter(rng, (226, 190, 128))) + ripple + _grain(rng, 5)


def snow(rng: np.random.Generator) -> Picture:
    flakes = (rng.random((SIDE_PX, SIDE_PX, 1)) > 0.985) * 25.0
    return _flat((226, 234, 246)) + _smooth_noise(rng, 7, 14) * np.array([1.2, 1.0, 0.5], np.float32) + flakes


def night(rng: np.random.Generator) -> Picture:
    picture = _flat(_jitter(rng, (16, 20, 62), 7)) + (ROWS / 8)[..., None]
    for row, col in rng.integers(0, SIDE_PX - 2, (70, 2)):
        size = 1 + int(row + col) % 2
        picture[row : row + size, col : col + size] = 245
    return picture


def sunset(rng: np.random.Generator) -> Picture:
    height = (ROWS / SIDE_PX)[..., None] + rng.uniform(-0.15, 0.15)
    top, bottom = np.array([120, 50, 130], np.float32), np.array([255, 165, 60], np.float32)
    return top + (bottom - top) * np.clip(height, 0, 1) + _smooth_noise(rng, 4, 10)


def brick(rng: np.random.Generator) -> Picture:
    high, wide = rng.integers(9, 13), rng.integers(20, 27)
    course = (ROWS + rng.integers(0, high)) // high
    shifted = COLS + course % 2 * (wide / 2) + rng.integers(0, wide)
    mortar = ((ROWS + 0.5) % high < 2) | (shifted % wide < 2)
    tone = (np.sin(course * 12.9 + shifted // wide * 78.2) * 12)[..., None]
    return _blend(mortar, (205, 196, 186), _flat(_jitter(rng, (165, 70, 55))) + tone)


def wood(rng: np.random.Generator) -> Picture:
    wide = rng.integers(18, 26)
    plank = (COLS + rng.integers(0, wide)) // wide
    veins = np.sin(COLS * 0.9 + 2 * np.sin(ROWS * 0.06 + plank * 2.1))[..., None] * 12
    seam = (COLS + 0.5) % wide < 2
    return _blend(
        seam, (74, 44, 22), _flat(_jitter(rng, (160, 108, 62))) + veins + (np.sin(plank * 5.3) * 12)[..., None]
    )


def road(rng: np.random.Generator) -> Picture:
    horizon, centre = rng.uniform(24, 44), rng.uniform(50, 78)
    depth = np.maximum(ROWS - horizon, 0.01)
    across = (COLS - centre) / depth
    picture = _blend(horizon > ROWS, (150, 200, 235), _flat((120, 150, 85)))
    picture = _blend((np.abs(across) < 0.75) & (horizon <= ROWS), (88, 88, 96), picture)
    edge = (np.abs(np.abs(across) - 0.68) < 0.05) & (horizon <= ROWS)
    dash = (np.abs(across) < 0.045) & (np.sin(260 / depth + rng.uniform(0, 6)) > 0) & (horizon <= ROWS)
    return _blend(edge | dash, (250, 245, 225), picture)


def floor(rng: np.random.Generator) -> Picture:
    horizon, centre = rng.uniform(10, 26), rng.uniform(40, 88)
    depth = np.maximum(ROWS - horizon, 0.5)
    tiles = (np.floor((COLS - centre) / depth * 4 + 100) + np.floor(420 / depth + rng.uniform(0, 2))) % 2
    light, dark = _jitter(rng, (232, 228, 220)), _jitter(rng, (70, 62, 84))
    picture = _blend(tiles > 0, light, _flat(dark))
    return _blend(horizon > ROWS, (186, 172, 196), picture)


def corridor(rng: np.random.Generator) -> Picture:
    row, col = rng.uniform(54, 74), rng.uniform(54, 74)
    reach = np.maximum(np.abs(ROWS - row), np.abs(COLS - col))
    sideways = np.abs(COLS - col) > np.abs(ROWS - row)
    picture = np.where(sideways[..., None], np.array((205, 180, 150), np.float32), np.array((150, 120, 92), np.float32))
    picture = np.where(((~sideways) & (row > ROWS))[..., None], np.array((236, 230, 220), np.float32), picture)
    ribs = np.sin(np.log(np.maximum(reach, 1)) * 11 + rng.uniform(0, 6)) > 0.8
    picture = _blend(ribs, (96, 72, 56), picture * (0.55 + 0.45 * np.clip(reach / 64, 0, 1))[..., None])
    return _blend(reach < 9, (48, 40, 44), picture)


def _two_colours(rng: np.random.Generator) -> tuple[tuple[float, ...], tuple[float, ...]]:
    names = list(PLAIN_COLOURS)
    first, second = rng.choice(len(names), 2, replace=False)
    light = (250.0, 248.0, 244.0) if rng.random() < 0.5 else PLAIN_COLOURS[names[int(second)]]
    return PLAIN_COLOURS[names[int(first)]], light


def _pattern(rng: np.random.Generator, wave: NDArray[np.floating] | NDArray[np.bool_]) -> Picture:
    front, back = _two_colours(rng)
    return _blend(np.asarray(wave) > 0, front, _flat((back[0], back[1], back[2])))


def _wave(rng: np.random.Generator, axis: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.sin(axis * (2 * np.pi / rng.uniform(9, 16)) + rng.uniform(0, 6))


def horizontal_stripes(rng: np.random.Generator) -> Picture:
    return _pattern(rng, _wave(rng, ROWS))


def vertical_stripes(rng: np.random.Generator) -> Picture:
    return _pattern(rng, _wave(rng, COLS))


def diagonal_stripes(rng: np.random.Generator) -> Picture:
    return _pattern(rng, _wave(rng, (ROWS + COLS * rng.choice([-1, 1])) * 0.75))


def checkerboard(rng: np.random.Generator) -> Picture:
    cell = rng.uniform(7, 12)
    return _pattern(rng, (np.floor(ROWS / cell + rng.random()) + np.floor(COLS / cell + rng.random())) % 2)


def polka_dots(rng: np.random.Generator) -> Picture:
    step = rng.uniform(14, 20)
    rows, cols = (ROWS + rng.uniform(0, step)) % step - step / 2, (COLS + rng.uniform(0, step)) % step - step / 2
    return _pattern(rng, rows**2 + cols**2 < (step * 0.3) ** 2)


def grid_lines(rng: np.random.Generator) -> Picture:
    step = rng.uniform(12, 18)
    return _pattern(rng, ((ROWS + rng.uniform(0, step)) % step < 2.5) | ((COLS + rng.uniform(0, step)) % step < 2.5))


def circles(rng: np.random.Generator) -> Picture:
    row, col = rng.uniform(40, 88, 2)
    return _pattern(rng, _wave(rng, np.hypot(ROWS - row, COLS - col)))


def zigzag(rng: np.random.Generator) -> Picture:
    period = rng.uniform(16, 26)
    return _pattern(rng, _wave(rng, ROWS + np.abs((COLS + rng.uniform(0, period)) % period - period / 2)))


def plain(name: str) -> Painter:
    """A nearly flat area of one named colour."""

    def paint(rng: np.random.Generator) -> Picture:
        return _flat(_jitter(rng, PLAIN_COLOURS[name], 10)) + _smooth_noise(rng, 3, 5)

    return paint


PAINTERS: dict[str, Painter] = {
    painter.__name__: painter
    for painter in (
        grass, sky, sea, sand, snow, night, sunset, brick, wood, road, floor, corridor,
        horizontal_stripes, vertical_stripes, diagonal_stripes, checkerboard, polka_dots, grid_lines, circles, zigzag,
    )
} | {f"plain_{name}": plain(name) for name in PLAIN_COLOURS}  # fmt: skip
