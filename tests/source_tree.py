"""The project's own sources as data, for the tests that walk them. Reads files; imports and runs nothing."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("app", "backend", "precompute")
_NOT_OURS = {".git", ".venv", "venv", "__pycache__", "build", "dist", "node_modules"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module, with where and how it is imported."""

    module: str
    line: int
    lazy: bool
    """Inside a function: run when called, not when the module is imported."""
    typing_only: bool
    """Under ``if TYPE_CHECKING``: never run."""

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    @property
    def at_module_level(self) -> bool:
        return not self.lazy and not self.typing_only


def python_files(*packages: str) -> list[Path]:
    """Every Python file of the given top-level folders, sorted."""
    return sorted(
        path for package in packages for path in (ROOT / package).rglob("*.py") if not _NOT_OURS & set(path.parts)
    )


def name_of(path: Path) -> str:
    """Path from the repository root with forward slashes; reads well as a test id."""
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """Dotted module name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def imports_of(path: Path) -> tuple[Import, ...]:
    """All imports of a file. ``from a import b`` counts as ``a`` and as ``a.b``, since ``b`` may be a module."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    return tuple(_imports(tree_of(path), package, lazy=False, typing_only=False))


def _imports(node: ast.AST, package: str, *, lazy: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for module in _modules(child, package):
            line = child.lineno if isinstance(child, ast.stmt) else 0
            yield Import(module=module, line=line, lazy=lazy, typing_only=typing_only)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports(ast.Module(body=child.body, type_ignores=[]), package, lazy=lazy, typing_only=True)
            rest = ast.Module(body=child.orelse, type_ignores=[])
            yield from _imports(rest, package, lazy=lazy, typing_only=typing_only)
        else:
            yield from _imports(child, package, lazy=lazy or inside, typing_only=typing_only)


def _modules(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = package.split(".")
            above = ".".join(parents[: len(parents) - node.level + 1])
            base = f"{above}.{base}".strip(".")
        return [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
    return []


def calls_of(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]


def callee(call: ast.Call) -> str:
    """Source of what is called, e.g. ``torch.load``."""
    return ast.unparse(call.func)


def keyword(call: ast.Call, name: str) -> object:
    """Constant value of a keyword argument, or None when it is absent or not a constant."""
    for argument in call.keywords:
        if argument.arg == name and isinstance(argument.value, ast.Constant):
            return argument.value.value
    return None


@cache
def tracked_files() -> tuple[Path, ...]:
    """Files under version control; in a tree without git, every file that is not a cache or an environment."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
        return tuple(path for path in paths if path.is_file())
    return tuple(
        path for path in sorted(ROOT.rglob("*")) if path.is_file() and not _NOT_OURS & set(path.relative_to(ROOT).parts)
    )
