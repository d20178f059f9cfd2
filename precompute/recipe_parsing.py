"""From parsed TOML to frozen dataclasses, checked field by field; and from a recipe file to the one it extends."""

from __future__ import annotations

import dataclasses
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from backend.errors import RecipeError

EXTENDS = "extends"
"""Top-level key of a recipe file: the shipped recipe, or the file, whose fields it takes over and changes."""


def read_tables(path: Path, shipped: Path) -> dict[str, Any]:
    """The tables of a recipe file, laid over those of the recipe it extends (and so on).

    Args:
        path: a TOML file.
        shipped: folder of the recipes that ship with the project; ``extends`` names one of them, or a ``.toml`` file
            beside ``path``.

    Raises:
        RecipeError: a file is missing or is not TOML, or recipes extend one another in a circle.
    """
    layers: list[Mapping[str, Any]] = []
    seen: list[Path] = []
    place: Path | None = path
    while place is not None:
        if place.resolve() in seen:
            raise RecipeError(f"{path} extends itself: {' -> '.join(one.stem for one in [*seen, place])}.")
        seen.append(place.resolve())
        tables = _read(place)
        base = tables.pop(EXTENDS, None)
        layers.append(tables)
        place = None if base is None else _base(base, place, shipped)
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _laid_over(merged, layer)
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}.") from error


def _base(name: object, path: Path, shipped: Path) -> Path:
    if not isinstance(name, str):
        raise RecipeError(f"{path}: {EXTENDS} must be the name of a recipe or the path of a .toml file.")
    found = path.parent / name if name.endswith(".toml") else shipped / f"{name}.toml"
    if not found.is_file():
        raise RecipeError(f"{path} extends {name!r}, which is not at {found}.")
    return found


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        known = below.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            merged[key] = _laid_over(known, value)
        else:
            merged[key] = value
    return merged


def build(kind: Any, raw: Any, where: str, prefix: str) -> Any:
    if not isinstance(raw, Mapping):
        raise RecipeError(f"{where}: {prefix.rstrip('.')} must be a table [{prefix.rstrip('.')}].")
    hints = get_type_hints(kind)
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in raw:
        if key not in known:
            raise RecipeError(f"{where}: unknown field {prefix}{key}. Known here: {', '.join(sorted(known))}.")
    values: dict[str, Any] = {}
    for key, item in known.items():
        if key in raw:
            values[key] = _convert(hints[key], raw[key], where, f"{prefix}{key}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{where}: field {prefix}{key} is missing.")
    try:
        return kind(**values)
    except ValueError as error:
        raise RecipeError(f"{where}: [{prefix.rstrip('.') or 'recipe'}] {error}.") from error


def _convert(hint: Any, value: Any, where: str, name: str) -> Any:
    """``value`` as ``hint``; an int may stand for a float, nothing else is converted."""
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where, f"{name}.")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        return _convert(next(item for item in arguments if item is not type(None)), value, where, name)
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(f"{where}: {name} is {value!r}; it must be one of {', '.join(map(str, arguments))}.")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where}: {name} must be a list.")
        return tuple(_convert(arguments[0], item, where, f"{name}[{index}]") for index, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise RecipeError(f"{where}: {name} is {value!r}; it must be of type {hint.__name__}.")
    return value
