"""Where things are and how to run, resolved by functions (never at import) and always with the reason.

Environment variables are read here and nowhere else:

ICONOSCOPE_ASSETS   folder that holds ``world/`` and ``atlas/`` (default: ``assets`` beside the packages)
ICONOSCOPE_DEVICE   torch device for models, e.g. ``cuda:0`` (default: ``auto``)
ICONOSCOPE_CACHE    folder for what can be built again: ``shrunken/`` models (default: ``~/.cache/iconoscope``)
OMP_NUM_THREADS     threads of torch and faiss; the explorer suggests half the cores unless it is set
TRANSFORMERS_VERBOSITY, DIFFUSERS_VERBOSITY, …   what libraries print: nothing below an error unless they say otherwise
WORLD_SIZE, LOCAL_RANK   set by torchrun: how many processes share a training, and which of this machine's this is

This module knows no torch: whether a GPU exists is asked by the caller who has torch loaded anyway.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.errors import ArtifactMissing

ASSETS_VARIABLE = "ICONOSCOPE_ASSETS"
DEVICE_VARIABLE = "ICONOSCOPE_DEVICE"
CACHE_VARIABLE = "ICONOSCOPE_CACHE"
THREADS_VARIABLE = "OMP_NUM_THREADS"
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""What keeps the bars and advice of the Hugging Face libraries off the terminal, where our own words are to be read.
Whatever of it is set already stays."""
_OTHERS = r"(?!(app|backend|precompute|tests|__main__)(\.|$))"
"""Modules whose warnings are for other programmers than ours."""
SHRUNKEN_NAME = "shrunken"
"""First part of a recipe's path that means a shrunken model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Folders and device with the reason each was chosen."""

    root_dir: Path
    """Folder that holds the packages ``app``, ``backend`` and ``precompute``."""
    assets_dir: Path
    assets_reason: str
    device: str
    """A torch device name, or ``auto``: the first GPU if torch finds one, else the CPU."""
    device_reason: str
    cache_dir: Path
    """Folder for what can be built again at any time."""

    @property
    def shrunken_dir(self) -> Path:
        """Where shrunken models are built, one folder for each kind."""
        return self.cache_dir / SHRUNKEN_NAME

    @property
    def atlas_dir(self) -> Path:
        """The shipped demo atlas."""
        return self.assets_dir / "atlas"

    @property
    def world_dir(self) -> Path:
        """The shipped world: subject, judges and corpora."""
        return self.assets_dir / "world"


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Resolve the settings from ``environment`` (default: the process environment)."""
    values = os.environ if environment is None else environment
    root = Path(__file__).resolve().parents[1]
    given_assets = values.get(ASSETS_VARIABLE, "").strip()
    given_device = values.get(DEVICE_VARIABLE, "").strip()
    given_cache = values.get(CACHE_VARIABLE, "").strip()
    return Settings(
        root_dir=root,
        assets_dir=Path(given_assets).expanduser().resolve() if given_assets else root / "assets",
        assets_reason=f"environment variable {ASSETS_VARIABLE}" if given_assets else "the repository's own folder",
        device=given_device or "auto",
        device_reason=f"environment variable {DEVICE_VARIABLE}" if given_device else "no device was asked for",
        cache_dir=Path(given_cache or Path.home() / ".cache" / "iconoscope").expanduser().resolve(),
    )


def suggest_threads(n_threads: int) -> None:
    """Let libraries that read OMP_NUM_THREADS when they are imported use so many threads, unless it says otherwise."""
    os.environ.setdefault(THREADS_VARIABLE, str(n_threads))


def launched_size() -> int:
    """Number of processes that torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """This process's number among those that torchrun started on this machine; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_set(variable: str) -> bool:
    """Whether somebody has set a variable that another library reads."""
    return variable in os.environ


def suggest_environment(variables: Mapping[str, str]) -> None:
    """Set what is not set yet, for a library that can be told nothing in another way and for its child processes."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Keep what libraries print about themselves off the terminal: call it before one of them is imported."""
    suggest_environment(QUIET)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it has advice too, wherever it is installed
    if not sys.warnoptions:  # else somebody asked for warnings
        warnings.filterwarnings("ignore", module=_OTHERS)


def worker_environment() -> dict[str, str]:
    """What a worker process on another machine must share with this one: our own variables, and as many threads."""
    own = {name: value for name, value in os.environ.items() if name.startswith("ICONOSCOPE_") or name in QUIET}
    return {**own, THREADS_VARIABLE: os.environ.get(THREADS_VARIABLE) or str(os.cpu_count() or 1)}


def resolve_path(path: str | Path, settings: Settings | None = None) -> Path:
    """Turn a path of a recipe into a place on this machine.

    ``assets/...`` means the assets folder (so ICONOSCOPE_ASSETS moves it) and ``shrunken/<kind>`` a shrunken model in
    the cache folder (so ICONOSCOPE_CACHE moves it); other relative paths are taken from the working directory if they
    exist there, else from the repository root. Nothing is required to exist.
    """
    settings = settings or load_settings()
    given = Path(path).expanduser()
    if given.is_absolute():
        return given
    if given.parts[:1] == ("assets",):
        return settings.assets_dir.joinpath(*given.parts[1:])
    if given.parts[:1] == (SHRUNKEN_NAME,):
        return settings.shrunken_dir.joinpath(*given.parts[1:])
    return given.resolve() if given.exists() else settings.root_dir / given


def require_dir(path: Path, what: str, mend: str) -> Path:
    """Return ``path`` if it is a folder, else raise ArtifactMissing saying what is missing and what mends it."""
    if not path.is_dir():
        raise ArtifactMissing(f"{what} is not at {path}. {mend}")
    return path
