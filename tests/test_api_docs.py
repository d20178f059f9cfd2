"""docs/api.md is true: its examples run against a server, and its tables agree with the code."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app import embedding, uploads
from app.api import MOST_HITS, MOST_ON_IMAGE, PublicApi
from app.feature_document import FORMAT, FeatureDocument
from app.steer_setup import MAX_PROMPT_CHARACTERS, MAX_ROWS
from app.subject_worker import Limits
from tests.builders_app import build_steerable_atlas
from tests.builders_atlas import BagEncoder
from tests.source_tree import ROOT

if TYPE_CHECKING:
    from app.launching import Explorer

TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:7860/"
BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = [one["body"] for one in BLOCK.finditer(TEXT) if one["info"] == "python run-api"]
SHELL = [one["body"] for one in BLOCK.finditer(TEXT) if one["info"] == "sh run-api"]


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    from app.launching import start
    from tests.builders_subject import save_tiny_subject

    folder = tmp_path_factory.mktemp("served")
    atlas = build_steerable_atlas(folder / "atlas", save_tiny_subject(folder / "subject", patch_px=2))
    running = start([atlas], "127.0.0.1", None, block=False, warm=False, encoder=BagEncoder())
    yield running
    running.close()


def said(command: list[str], explorer: Explorer, text: str) -> str:
    """What an example prints when it is run in a process of its own, as a reader would."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    done = subprocess.run(
        [*command, text.replace(ADDRESS, explorer.url)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(PYTHON)))
def test_python_examples_run(explorer: Explorer, place: int) -> None:
    told = said([sys.executable, "-c"], explorer, PYTHON[place])
    expected = [
        ("because", "n =", "unsteered", "steered", "random", "permuted"),
        ("upload-", "'n':"),
        ("list_atlases", "inspect_image", "'permuted'", "is_control"),
    ][place]
    for word in expected:
        assert word in told


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(SHELL)))
def test_curl_examples_run(explorer: Explorer, place: int) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("no curl: apt-get install curl")
    told = said(["bash", "-euo", "pipefail", "-c"], explorer, SHELL[place])
    artifact = explorer.services.store.artifact.manifest.fingerprint
    assert artifact in told
    assert '"error"' not in told
    if place == 0:
        answers = json.loads(f"[{told.replace('}{', '},{')}]")
        assert [*answers[0]["data"][0]] == ["default", "atlases"]
        assert len(answers[1]["data"][0]["hits"]) == 3
    else:
        assert "event: complete" in told


@pytest.mark.slow
def test_refusals_look_as_documented(explorer: Explorer) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(explorer.url, verbose=False)
    with pytest.raises(AppError, match="no feature 10"):
        client.predict(feature=10, api_name="/get_feature")


def test_examples_of_all_three_kinds_are_there() -> None:
    assert len(PYTHON) == 3
    assert len(SHELL) == 2
    assert all(ADDRESS in one for one in (*PYTHON, *SHELL))
    assert "curl" in SHELL[0]
    assert "ClientSession" in PYTHON[2]


def test_the_table_of_functions_has_their_signatures() -> None:
    rows = dict(re.findall(r"^\| `(\w+)\((.*?)\)` \|", TEXT, re.MULTILINE))
    assert set(rows) == {"list_atlases", "search_features", "get_feature", "steer", "inspect_image"}
    for name, written in rows.items():
        parameters = inspect.signature(getattr(PublicApi, name)).parameters.values()
        shown = [
            one.name if one.default is one.empty else f"{one.name}={json.dumps(one.default)}"
            for one in parameters
            if one.name not in {"self", "request"}
        ]
        python = [one.replace("=null", "=None").replace("=false", "=False") for one in shown]
        assert written == ", ".join(python)


def test_the_limits_are_the_codes() -> None:
    limits = Limits()
    for told in (
        f"| Hits, features of an image | {MOST_HITS} |",
        f"1000 and {MAX_PROMPT_CHARACTERS} characters",
        f"{uploads.MAX_UPLOAD_BYTES // 2**20} MiB, {uploads.MAX_UPLOAD_PIXELS // 10**6} million pixels",
        f"shrunk to {uploads.MAX_SIDE_PX} pixels",
        f"| Features of one set to steer | {MAX_ROWS} |",
        f"{limits.waiting_per_visitor} of one caller and {limits.waiting_in_all} in all may wait",
        f"after {limits.burst} in a row, one every {limits.refill_s:g} s",
    ):
        assert told in TEXT
    assert MOST_HITS == MOST_ON_IMAGE


def test_every_field_and_switch_is_explained() -> None:
    shown = set(re.findall(r"`(\w+)`", TEXT.partition("## The document")[2].partition("## One feature")[0]))
    left_out = {"format", "feature", "link", "cluster", "agreement", "quality_kept", "recommended_strength"}
    assert set(FeatureDocument.__annotations__) - left_out <= shown
    assert FORMAT in TEXT
    switches = re.findall(r"^\| `(\w+)` \|", TEXT.partition("## One feature")[2], re.MULTILINE)
    assert switches == [field.name for field in embedding.SWITCHES]


def test_it_is_linked_from_the_readme() -> None:
    assert "docs/api.md" in Path(ROOT / "README.md").read_text(encoding="utf-8")
