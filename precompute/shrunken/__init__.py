"""Shrunken models: the true classes with the file layouts of the released ones, small and randomly initialised.

What they compute means nothing; that they load, run and are served like the real ones is what the shrunken recipes and
the tests show. One module per kind, with ``build(folder, *, seed=0) -> Path``. In a recipe the path ``shrunken/<kind>``
means the model that :func:`ensure` builds once in the cache folder (see :mod:`backend.settings`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import os
import pkgutil
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import RecipeError
from backend.settings import SHRUNKEN_NAME, load_settings

if TYPE_CHECKING:
    from precompute.recipe import Recipe

MARK = ".built-from"
"""File in a finished model's folder: a digest of the sources it was built from."""


def kinds() -> list[str]:
    """Kinds of shrunken models: the modules of this package that are not internal."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def ensure(kind: str) -> Path:
    """The folder of the shrunken model ``kind``, built if it is not there or was built from other sources.

    Safe in several processes at once: each builds under a temporary name and the last rename stays.

    Raises:
        RecipeError: there is no such kind.
        DependencyMissing: the kind needs a package that is not installed.
    """
    if kind not in kinds():
        raise RecipeError(f"There is no shrunken model {kind!r}. Known: {', '.join(kinds())}.")
    folder = load_settings().shrunken_dir / kind
    digest = _sources_digest()
    if _is_built(folder, digest):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{kind}-"))
    try:
        built = temporary / kind
        built.mkdir()
        importlib.import_module(f"{__name__}.{kind}").build(built)
        (built / MARK).write_text(digest, encoding="utf-8")
        _put_in_place(built, folder, temporary / "replaced", digest)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def ensure_for(recipe: Recipe) -> list[Path]:
    """Build what the recipe names as ``shrunken/<kind>`` and is not there yet; the folders, in the recipe's order."""
    return [ensure(kind) for kind in shrunken_kinds(recipe)]


def shrunken_kinds(section: Any) -> list[str]:
    """Kinds named by the places (paths ``shrunken/<kind>``) of a recipe or of one of its sections, each once."""
    found: list[str] = []
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found += shrunken_kinds(value)
        elif item.metadata.get("place") and isinstance(value, str) and Path(value).parts[:1] == (SHRUNKEN_NAME,):
            found += Path(value).parts[1:2]
    return list(dict.fromkeys(found))


def _is_built(folder: Path, digest: str) -> bool:
    try:
        return (folder / MARK).read_text(encoding="utf-8") == digest
    except (OSError, UnicodeDecodeError):
        return False


def _put_in_place(built: Path, folder: Path, replaced: Path, digest: str) -> None:
    """Rename ``built`` to ``folder``; what lies there and is out of date makes room."""
    with contextlib.suppress(FileNotFoundError):  # nothing there, or another process moved it
        os.rename(folder, replaced)
    try:
        os.rename(built, folder)
    except OSError:
        if not _is_built(folder, digest):  # else another process was faster, with the same model
            raise


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(f"{source.name}\0".encode() + source.read_bytes() + b"\0")
    return digest.hexdigest()
