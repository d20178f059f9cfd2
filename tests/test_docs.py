"""The documents against the code: commands run, links lead somewhere, words and tables agree."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from enum import StrEnum
from pathlib import Path

import pytest

from backend.errors import IconoscopeError
from backend.types import ARMS, Method, Operation, PatchScope, Split, TruthOutcome, Variant
from benchmarks.results_table import results, with_results
from tests.builders_atlas import BagEncoder, build_atlas
from tests.source_tree import PACKAGES, ROOT, name_of, python_files, tracked_files, tree_of

DOCUMENTS = [path for path in tracked_files() if path.suffix == ".md" and "assets" not in path.parts]
BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")


def blocks(info: str) -> list[tuple[Path, str]]:
    """(document, line) for every command in code blocks that carry this info string."""
    return [
        (path, line)
        for path in DOCUMENTS
        for block in BLOCK.finditer(path.read_text(encoding="utf-8"))
        if block["info"].strip() == info
        for line in block["body"].splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]


def cases(info: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("command", [pytest.param(line, id=line) for _, line in blocks(info)])


def run(command: str) -> str:
    """Run a documented command as a reader would, and return what it printed."""
    program, *arguments = shlex.split(command, comments=True)
    installed = Path(sys.executable).parent / program
    assert installed.is_file(), f"{program} is not installed beside {sys.executable}: make setup"
    done = subprocess.run([installed, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr[-1500:]}"
    if "--json" in arguments:
        json.loads(done.stdout)
    return done.stdout


@cases("sh run")
def test_documented_command_runs(command: str) -> None:
    assert run(command).strip()


@pytest.mark.slow
@cases("sh run-slow")
def test_documented_slow_command_runs(command: str) -> None:
    assert run(command).strip()


def test_documented_subcommands_exist() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    named = set(re.findall(r"(?:^|`)iconoscope ([a-z][a-z_-]+)", text, re.MULTILINE))
    shown = run("iconoscope --help")
    missing = sorted(word for word in named if not re.search(rf"\b{word}\b", shown))
    assert not missing, f"documented, but not in iconoscope --help: {missing}"


def test_documented_make_targets_exist() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= targets, f"documented, but not in the Makefile: {sorted(named - targets)}"


@pytest.mark.parametrize("path", [pytest.param(path, id=name_of(path)) for path in DOCUMENTS])
def test_links_lead_somewhere(path: Path) -> None:
    targets = [match["target"] for match in LINK.finditer(path.read_text(encoding="utf-8"))]
    local = [target.partition("#")[0] for target in targets if "://" not in target and not target.startswith("#")]
    broken = [target for target in local if not (path.parent / target).exists()]
    assert not broken, f"{name_of(path)} links to what is not there: {broken}"


# ---------------------------------------------------------------------------------------------------- vocabulary


VOCABULARY: tuple[type[StrEnum], ...] = (Method, Variant, Operation, PatchScope, Split, TruthOutcome)


@pytest.mark.parametrize("words", VOCABULARY, ids=lambda words: words.__name__)
def test_glossary_has_every_word_of_the_closed_vocabulary(words: type[StrEnum]) -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    missing = [member.name for member in words if not re.search(rf"\b{member.name}\b", glossary)]
    assert not missing, f"docs/glossary.md does not explain {missing}"


def test_glossary_defines_each_word_once() -> None:
    rows = re.findall(r"^\| (\*\*.+?) \|", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    words = [word for row in rows for word in re.findall(r"\*\*(.+?)\*\*", row)]
    assert len(words) > 50
    assert sorted(set(words)) == sorted(words)


@pytest.mark.parametrize("path", [pytest.param(path, id=name_of(path)) for path in python_files(*PACKAGES)])
def test_code_says_feature_and_not_its_synonyms(path: Path) -> None:
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [(node.lineno, node.name) for node in ast.walk(tree_of(path)) if isinstance(node, kinds)]
    names += [(node.lineno, node.arg) for node in ast.walk(tree_of(path)) if isinstance(node, ast.arg)]
    found = [f"{name_of(path)}:{line} {name}" for line, name in names if re.search("latent|neuron", name.lower())]
    assert not found, f"the word is feature: {found}"


# -------------------------------------------------------------------------------------------------- the documents


def test_decisions_are_numbered_without_gaps() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [record.name[:3] for record in records] == [f"{number:03d}" for number in range(1, len(records) + 1)]


@pytest.mark.parametrize("record", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=lambda path: path.stem)
def test_decision_is_one_page_and_says_what_was_decided(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    assert text.startswith(f"# {record.name[:3]}: ")
    assert re.search(r"^(## Decision$|\*\*Decision\.\*\*)", text, re.MULTILINE)
    assert len(text.splitlines()) <= 70


def test_readme_opens_with_a_sentence_a_picture_and_a_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    sentence, picture, command = text.index("Iconoscope explains"), text.index("!["), text.index("```sh\nmake demo")
    assert sentence < picture < command < 800


def test_readme_shows_the_numbers_of_the_shipped_atlas(shipped_atlas: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == with_results(text, results(shipped_atlas)), "stale: python -m benchmarks.results_table --write"


@pytest.mark.slow
def test_results_table_has_every_arm_with_its_interval(tmp_path: Path) -> None:
    table = results(build_atlas(tmp_path / "atlas", n_features=24, encoder=BagEncoder()))
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(ARMS)
    assert all(arm.label in row for arm, row in zip(ARMS, rows, strict=True))
    steering = [cell.strip() for cell in rows[0].split("|")[1:-1]]
    assert re.fullmatch(r"\d+ % \(-?\d+–\d+; \d+\)", steering[3])
    assert all(re.fullmatch(r"-?\d\.\d\d \(-?\d\.\d\d–-?\d\.\d\d; \d+\)", cell) for cell in steering[5:])


def test_changelog_has_an_unreleased_head() -> None:
    heads = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heads[0] == "Unreleased"


def test_errors_are_one_sentence_each() -> None:
    def below(error: type[IconoscopeError]) -> list[type[IconoscopeError]]:
        return [error, *(deeper for child in error.__subclasses__() for deeper in below(child))]

    ours = [error for error in below(IconoscopeError) if error.__module__ == "backend.errors"]
    wordless = [error.__name__ for error in ours if not (error.__doc__ or "").strip().endswith(".")]
    assert len(ours) > 15
    assert not wordless
