"""What every test shares: no network, no telemetry, few threads, and honest skips."""

from __future__ import annotations

import os

# Before any test module imports a library that reads them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from tests.source_tree import ROOT

# The same examples on every run, and no clock: a busy machine must not turn a property into a failure.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("steady")


# A shell that runs the tests in the background has them ignore Ctrl-C, and all that they start. Tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason that the summary shows, what this machine cannot run."""
    reasons = {"gpu": _why_no_gpu(items), "network": _why_no_network()}
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _why_no_gpu(items: list[pytest.Item]) -> str | None:
    if not any(item.get_closest_marker("gpu") for item in items):
        return None
    import torch  # only when a test asks for a GPU: the import takes seconds

    return None if torch.cuda.is_available() else "needs a CUDA device"


def _why_no_network() -> str | None:
    return None if os.environ.get("ICONOSCOPE_NETWORK") == "1" else "needs ICONOSCOPE_NETWORK=1"


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root folder of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def shipped_atlas(repository: Path) -> Path:
    """The atlas in assets/; skips where a source tree comes without it."""
    return _shipped(repository / "assets" / "atlas", "manifest.json")


@pytest.fixture(scope="session")
def shipped_subject(repository: Path) -> Path:
    """The world's subject model in assets/; skips where a source tree comes without it."""
    return _shipped(repository / "assets" / "world" / "subject", "config.json")


def _shipped(folder: Path, file: str) -> Path:
    if not (folder / file).is_file():
        pytest.skip(f"{folder.relative_to(ROOT)} is not in this tree")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator with a fixed seed, new for every test."""
    return np.random.default_rng(20260)
