"""Which code made a number: a hash that moves when a module's meaning moves, not its comments."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from regbench.members import source

TRAINING = ("regbench.training", "regbench.step", "regbench.ascent", "regbench.validation")
ATTACKING = ("regbench.verdicts", "regbench.ascent", "regbench.attacks", "regbench.weights")
DATA = ("regbench.prepare", "regbench.data")


def fingerprint(references: Iterable[str]) -> str:
    """Return a hash of the modules that `references` name: 12 hexadecimal digits.

    Comments, docstrings and layout do not count: a better sentence retrains nothing.
    """
    meanings = [_meaning(source(reference)) for reference in sorted(set(references))]
    return hashlib.sha256("\n".join(meanings).encode()).hexdigest()[:12]


@cache
def _meaning(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if _has_docstring(node):
            node.body = node.body[1:]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _has_docstring(node: ast.AST) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None
