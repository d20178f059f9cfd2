"""The explorer starts quickly, answers on this machine only, and without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import app
from app.launching import page_head
from backend.errors import ArtifactMissing
from tests.source_tree import ROOT

PROGRAM = """
import sys, time, urllib.request
from app.launching import start
from tests.builders_atlas import BagEncoder
explorer = start([sys.argv[1]], "127.0.0.1", None, block=False, warm=False, encoder=BagEncoder())
read = lambda path: urllib.request.urlopen(explorer.url + path).read()
assert b"Iconoscope" in read("") and len(read(f"iconoscope/{explorer.services.version}/points.bin")) > 100
assert "torch" not in sys.modules and "transformers" not in sys.modules, "browsing loaded torch"
explorer.close()
"""


@pytest.mark.slow
def test_it_serves_and_browses_without_torch(planted_atlas: Path) -> None:
    arguments = [sys.executable, "-c", PROGRAM, str(planted_atlas)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_missing_atlas_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing):
        app.launch(tmp_path / "nothing", port=None, block=False)


def test_the_default_address_is_this_machine_only() -> None:
    assert app.launch.__defaults__ == ("127.0.0.1", 7860)


def test_the_head_names_only_files_of_ours() -> None:
    head = page_head()
    assert head.count("iconoscope/static/") == head.count("<link ") + head.count("<script ") == 2
    assert "//" not in head.replace("</", "")


def test_nothing_that_reads_the_number_of_threads_is_imported_before_it_is_set() -> None:
    code = "import sys, app.launching; print(*({'torch', 'faiss'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
