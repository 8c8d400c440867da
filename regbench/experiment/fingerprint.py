"""Which code made a number: a hash that moves when a module's meaning moves, not its comments."""

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

from regbench.errors import UserError
from regbench.experiment.members import source

DATA = ("regbench.prepare",)
TRAINING = ("regbench.training.assembly", "regbench.training.outcome", "regbench.core.device")
ADOPTING = ("regbench.adopt",)
ATTACKING = ("regbench.evaluation.trial", "regbench.core.device")
DIAGNOSING = ("regbench.evaluation.diagnosis", "regbench.core.device")
"""Where each stage's numbers are decided; what these import of regbench counts with them."""

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
"""In C; a text with such marks in it would lose what is behind them, and we have none."""

NEUTRAL = {
    "regbench.errors",
    "regbench.experiment.environment",
    "regbench.experiment.fingerprint",
    "regbench.storage.locks",
    "regbench.storage.provenance",
    "regbench.storage.seals",
}
"""What is told of a number, without deciding it."""


def fingerprint(references: Iterable[str]) -> str:
    """Return a hash of the modules that `references` name and of what they import: 12 hex digits.

    Imports are followed within regbench and within the packages of the references; a module in C
    that lies beside one of Python, by the same name, counts with it. Comments, docstrings and
    layout do not count: a better sentence retrains nothing.

    Raises:
        UserError: a module is not there, or is no Python.
    """
    return _of(frozenset((one.partition(":")[0], _source(one)) for one in references))


@cache  # hundreds of suites are of a few attacks
def _of(named: frozenset[tuple[str, Path]]) -> str:
    """The fingerprint of modules, each with its file."""
    paths = dict(named)
    modules = set(paths)
    followed = {"regbench", "autoattack", *(module.partition(".")[0] for module in modules)}
    meanings: dict[str, str] = {}
    while modules:
        module = modules.pop()
        path = paths.get(module) or _source(module)
        meanings[module] = _meaning(path)
        wanted = {name for name in _imports(path, module) if name.partition(".")[0] in followed}
        modules |= {name for name in wanted if _is_module(name)} - meanings.keys() - NEUTRAL
    text = "\n".join(f"{module} {meanings[module]}" for module in sorted(meanings))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@cache
def _meaning(path: Path) -> str:
    tree = _tree(path)
    for node in ast.walk(tree):
        if _has_docstring(node):
            node.body = node.body[1:]  # type: ignore[attr-defined]
    return ast.dump(tree) + _in_c(path.with_suffix(".c"))


def _in_c(path: Path) -> str:
    if not path.exists():
        return ""
    code = COMMENT.sub(" ", path.read_text(encoding="utf-8"))
    # a line ends what it defines
    return "\n".join(" ".join(line.split()) for line in code.splitlines() if line.strip())


@cache
def _imports(path: Path, module: str) -> frozenset[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(name for node in ast.walk(_tree(path)) for name in _imported(node, package))


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        base = _absolute(node, package)
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module that names are imported from, where it is given from `package` on."""
    try:
        return resolve_name("." * node.level + (node.module or ""), package)
    except ImportError:  # beyond all packages: Python itself will say so
        return ""


@cache
def _is_module(name: str) -> bool:
    try:
        return source(name).suffix == ".py"
    except UserError:
        return False


def _source(reference: str) -> Path:
    try:
        return source(reference)
    except ValueError as error:  # importlib's word for __main__, which has no file to import
        raise UserError(f"'{reference}' is in no module that can be read: {error}") from error


def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"'{path}', line {line}, is not Python: {error}") from error


def _has_docstring(node: ast.AST) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None
