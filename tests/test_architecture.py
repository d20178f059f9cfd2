"""The design's rules that a machine can check: import directions, light browsing, no pickle, small files.

Each rule reads the sources and names the file and line that breaks it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from backend import errors
from backend.models import families
from backend.types import Method
from tests.source_tree import (
    PACKAGES,
    ROOT,
    Import,
    callee,
    calls_of,
    imports_of,
    keyword,
    module_of,
    name_of,
    python_files,
    tracked_files,
    tree_of,
)

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ASSETS_BYTES = 30_000_000
MAX_TREE_BYTES = 60_000_000

BROWSING = ("types", "errors", "settings", "artifacts", "feature_store", "search", "atlas")
HEAVY = {"torch", "torchvision", "transformers", "faiss", "sentence_transformers", "umap", "numba", "diffusers"}
HEAVY |= {"open_clip", "sam2", "sklearn", "scipy"}
# What the pipeline and the torch half of the backend may import at module level, besides the standard library.
MODULE_LEVEL = {"torch", "transformers", "safetensors", "numpy", "scipy", "sklearn", "pyarrow", "PIL", "einops"}
MODULE_LEVEL |= {"tokenizers", "jaxtyping", "tyro", "rich", "tqdm", "backend", "precompute"}
PICKLING = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# The one seam from the pipeline's side to the explorer: `iconoscope serve` and `demo` open it.
SEAM = "precompute/cli/"
# Writes what other libraries write, so that tests can read it; nothing else in the tree writes a pickle.
FOREIGN_FILES = "tests/builders_foreign_sae.py"
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "engine", "v2", "final"}

SOURCES = python_files(*PACKAGES)
EVERY_PYTHON_FILE = python_files(*PACKAGES, "tests", "benchmarks")


def per_file(paths: Iterable[Path]) -> pytest.MarkDecorator:
    """Run a rule once for each file, with the file's name as the test's id."""
    return pytest.mark.parametrize("path", [pytest.param(path, id=name_of(path)) for path in paths])


def report(path: Path, found: Iterable[tuple[int, str]], rule: str) -> None:
    """Fail with every broken line and the rule's reason."""
    lines = [f"{name_of(path)}:{line}: {what}" for line, what in found]
    if lines:
        pytest.fail(rule + "\n" + "\n".join(lines), pytrace=False)


def wrong(imports: Iterable[Import], tops: set[str]) -> list[tuple[int, str]]:
    return [(one.line, f"imports {one.module}") for one in imports if one.top in tops]


# ---------------------------------------------------------------------------------------------- import directions


@per_file(python_files("backend"))
def test_backend_imports_neither_app_nor_pipeline(path: Path) -> None:
    report(path, wrong(imports_of(path), {"app", "precompute", "gradio", "tests"}), "app -> backend <- precompute")


@per_file(python_files("app"))
def test_app_imports_the_backend_only(path: Path) -> None:
    report(path, wrong(imports_of(path), {"precompute", "tests"}), "app -> backend <- precompute")


@per_file(python_files("precompute"))
def test_pipeline_does_not_import_the_app(path: Path) -> None:
    found = wrong(imports_of(path), {"app", "tests", "gradio"})
    if name_of(path).startswith(SEAM):
        lazy = {one.line for one in imports_of(path) if one.lazy}
        found = [(line, what) for line, what in found if line not in lazy or "app" not in what]
    report(path, found, f"only a function under {SEAM} opens the explorer, and imports it there")


def test_one_seam_from_the_command_line_to_the_app() -> None:
    seams = {(name_of(path), one.line) for path in python_files("precompute") for one in imports_of(path)}
    places = {seam for seam in seams if any(_is_app(one, seam) for one in imports_of(ROOT / seam[0]))}
    assert len(places) <= 1, f"the explorer is opened in more than one place: {sorted(places)}"


def _is_app(one: Import, seam: tuple[str, int]) -> bool:
    return one.top == "app" and one.line == seam[1]


@per_file(python_files("backend", "precompute"))
def test_module_level_imports_stay_few(path: Path) -> None:
    allowed = MODULE_LEVEL | set(sys.stdlib_module_names)
    found = [(one.line, one.module) for one in imports_of(path) if one.at_module_level and one.top not in allowed]
    report(path, found, "optional and slow packages are imported where they are used")


# ---------------------------------------------------------------------------------------------------- browsing


@pytest.mark.parametrize("module", BROWSING)
def test_browsing_module_names_nothing_heavy(module: str) -> None:
    path = ROOT / "backend" / f"{module}.py"
    found = wrong([one for one in imports_of(path) if one.at_module_level], HEAVY)
    report(path, found, "browsing opens fast and without torch")


def test_browsing_and_explorer_import_without_torch() -> None:
    modules = [f"backend.{module}" for module in BROWSING] + [module_of(path) for path in python_files("app")]
    modules = [module for module in modules if not module.endswith("__main__")]
    program = "import importlib, sys\n"
    program += f"for name in {modules!r}: importlib.import_module(name)\n"
    program += f"print(*sorted(set(sys.modules) & {HEAVY!r}))\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = done.stdout.split()
    assert not loaded, f"importing the browsing half also loads {loaded}"


# ------------------------------------------------------------------------------------------------------ safety


@per_file(EVERY_PYTHON_FILE)
def test_nothing_is_pickled_or_evaluated(path: Path) -> None:
    found = wrong(imports_of(path), PICKLING)
    for call in calls_of(path):
        name = callee(call)
        last = name.rpartition(".")[2]
        if name == "torch.load" and keyword(call, "weights_only") is not True:
            found.append((call.lineno, "torch.load without weights_only=True"))
        if name == "torch.save" and name_of(path) != FOREIGN_FILES:
            found.append((call.lineno, "torch.save writes a pickle; use safetensors"))
        if keyword(call, "allow_pickle") is True:
            found.append((call.lineno, f"{name} with allow_pickle=True"))
        if name in {"yaml.load", "yaml.unsafe_load", "eval", "exec"} or last in {"read_pickle", "to_pickle"}:
            found.append((call.lineno, name))
    report(path, found, "nothing is ever unpickled or evaluated")


@per_file(SOURCES)
def test_environment_is_read_in_settings_only(path: Path) -> None:
    if name_of(path) == "backend/settings.py":
        return
    reads = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)]
    names = {"os.environ", "os.getenv"}
    found = [(node.lineno, ast.unparse(node)) for node in reads if ast.unparse(node) in names]
    report(path, found, "the environment is read by backend/settings.py, when asked")


@per_file(SOURCES)
def test_prints_only_on_the_command_line(path: Path) -> None:
    if name_of(path).startswith(SEAM) or name_of(path) == "precompute/__main__.py":
        return
    found = [(call.lineno, "print") for call in calls_of(path) if callee(call) == "print"]
    report(path, found, "only the command line prints")


# ------------------------------------------------------------------------------------------------- size and names


@per_file(EVERY_PYTHON_FILE)
def test_file_is_short(path: Path) -> None:
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_FILE_LINES, f"{name_of(path)} has {n_lines} lines; the limit is {MAX_FILE_LINES}"


@per_file(EVERY_PYTHON_FILE)
def test_functions_are_short(path: Path) -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, kinds)]
    sizes = [(node, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]
    found = [(node.lineno, f"{node.name} has {size} lines") for node, size in sizes if size > MAX_FUNCTION_LINES]
    report(path, found, f"a function has at most {MAX_FUNCTION_LINES} lines")


@per_file(EVERY_PYTHON_FILE)
def test_module_name_says_what_it_holds(path: Path) -> None:
    vague = VAGUE_NAMES & {path.stem, path.parent.name}
    assert not vague, f"{name_of(path)}: {vague} says nothing; name the noun the module holds"


@per_file(EVERY_PYTHON_FILE)
def test_module_says_what_it_is_for(path: Path) -> None:
    tree = tree_of(path)
    assert not tree.body or ast.get_docstring(tree), f"{name_of(path)} has no module docstring"


@per_file(SOURCES)
def test_nothing_is_left_to_do(path: Path) -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X:")
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    found = [(number, line.strip()) for number, line in lines if any(mark in line for mark in marks)]
    raised = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Raise) and node.exc is not None]
    found += [(node.lineno, ast.unparse(node)) for node in raised if "NotImplementedError" in ast.unparse(node)]
    report(path, found, "unfinished work belongs in an issue")


# --------------------------------------------------------------------------------------------- registries and trees


def test_every_method_has_its_explainer_and_no_other() -> None:
    folder = ROOT / "backend" / "explainers"
    holders = {path.stem for path in folder.glob("*.py") if path.stem not in {"__init__", "base"} and _explains(path)}
    assert holders == {method.value for method in Method}, "one file per Method member, named like its value"


def _explains(path: Path) -> bool:
    classes = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
    public = [node for node in classes if not node.name.startswith("_")]
    return any("Explainer" in ast.unparse(base) for node in public for base in node.bases)


def test_every_metric_module_has_cards_with_unique_names() -> None:
    from precompute.metrics import metric_cards

    modules = [path.stem for path in (ROOT / "precompute" / "metrics").glob("*.py") if path.stem != "__init__"]
    cards = {name: importlib.import_module(f"precompute.metrics.{name}").CARDS for name in modules}
    assert modules
    assert all(cards.values()), f"a module of precompute/metrics has no card: {cards}"
    names = [card.name for of_module in cards.values() for card in of_module]
    assert sorted(names) == sorted(set(names)) == sorted(metric_cards())


def test_every_stage_is_declared_in_the_file_of_its_name() -> None:
    for path in (ROOT / "precompute" / "stages").glob("*.py"):
        if path.stem != "__init__":
            stage = importlib.import_module(module_of(path)).STAGE
            assert stage.name == path.stem, f"{name_of(path)} declares the stage {stage.name!r}"
            assert stage.version >= 1


@pytest.mark.parametrize("family", families())
def test_every_adapter_can_be_built(family: str) -> None:
    from backend.models.base import SubjectModel, VisionTower  # here, so that the other rules run without torch

    (path,) = (ROOT / "backend" / "models").rglob(f"{family}.py")
    module = importlib.import_module(module_of(path))
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, VisionTower)]
    adapters = [kind for kind in kinds if kind.__module__ == module.__name__]
    assert adapters, f"{name_of(path)} defines no VisionTower"
    answers = path.parent.name != "encoders"
    assert all(issubclass(kind, SubjectModel) == answers for kind in adapters), "the folder says who answers"
    assert not [kind.__name__ for kind in adapters if inspect.isabstract(kind)], "an adapter leaves a method out"
    assert callable(module.load)


def test_error_tree_is_drawn_as_it_is() -> None:
    drawn = {line.split("── ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line}
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert drawn == classes - {"IconoscopeError"}
    assert all(issubclass(getattr(errors, name), errors.IconoscopeError) for name in classes)


# -------------------------------------------------------------------------------------------------- tracked files


TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".js", ".css", ".html", ".txt", ".lock", ".cfg", ""}
MACHINE = tuple(f"/{name}/" for name in ("work", "tmp", "root", "home"))
INDEXES = ("py" + "pi.org", "pythonhosted" + ".org", "download.py" + "torch.org", "index" + "-url")
TEXTS = [path for path in tracked_files() if path.suffix in TEXT and path.stat().st_size < 5_000_000]


@per_file(TEXTS)
def test_no_machine_path_and_no_index_address(path: Path) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return
    found = [
        (number, word)
        for number, line in enumerate(lines, start=1)
        for word in (*MACHINE, *INDEXES)
        if word in line and "no-emit" not in line
    ]
    report(path, found, "tracked files name no machine's folders and no package index")


def test_no_tracked_file_holds_a_pickle() -> None:
    suffixes = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".ckpt", ".npz"}
    assert not [name_of(path) for path in tracked_files() if path.suffix in suffixes]


def test_assets_are_small() -> None:
    sizes = {name_of(path): path.stat().st_size for path in tracked_files() if name_of(path).startswith("assets/")}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    assert sum(sizes.values()) <= MAX_ASSETS_BYTES, f"assets/ holds {sum(sizes.values())} bytes; largest: {largest}"


def test_tree_is_small() -> None:
    sizes = {name_of(path): path.stat().st_size for path in tracked_files()}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    assert sum(sizes.values()) < MAX_TREE_BYTES, f"the tree holds {sum(sizes.values())} bytes; largest: {largest}"
