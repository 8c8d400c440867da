"""What each piece of an attack has found: a suite that is cut off goes on behind it."""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from regbench.evaluation.pieces import folder_of, part_of
from regbench.storage.locks import sole
from regbench.storage.seals import DamagedError, read_table, write_table


class Found(NamedTuple):
    """Verdicts of an attack or of a piece of one, one row per image, and what is told of it."""

    rows: pa.Table
    told: dict[str, Any]


class Parts:
    """One file per finished piece of an attack, in a folder beside the suite's verdicts.

    Args:
        out: where the suite's verdicts will be; the folder is named after it.
        key: what they all depend on: weights, suite, versions; a part of another key is refused.
    """

    def __init__(self, out: Path, key: str) -> None:
        self._out = out
        self._key = hashlib.sha256(key.encode()).hexdigest()

    @staticmethod
    @contextmanager
    def locked(out: Path, piece: tuple[str, int] | None) -> Iterator[bool]:
        """Be alone at work on a suite or on a piece; give whether another was waited for."""
        folder = folder_of(out)
        folder.mkdir(exist_ok=True)
        with sole(part_of(out, *piece).with_suffix(".lock") if piece else folder) as waited:
            yield waited

    def get(self, name: str, index: int, code: str) -> Found | None:
        """Return what a piece of the attack `name` found, if it did so with the same code."""
        path = part_of(self._out, name, index)
        if not path.exists():
            return None
        try:
            table, about = read_table(path)
        except DamagedError as error:
            print(f"'{path}' is not taken up ({error.what}); attacking afresh", file=sys.stderr)
            return None
        if (about["key"], about["told"]["code"]) != (self._key, code):
            return None
        return Found(table.replace_schema_metadata(None), about["told"])

    def put(self, name: str, index: int, found: Found) -> None:
        """Keep what a piece of the attack `name` found, whole or not at all."""
        path = part_of(self._out, name, index)
        try:
            path.parent.mkdir(exist_ok=True)
            write_table(path, found.rows, {"key": self._key, "told": found.told})
        except OSError as error:
            print(f"'{path}' could not be kept ({error}); going on", file=sys.stderr)

    def forget(self) -> None:
        """Remove them all: the suite is whole."""
        shutil.rmtree(folder_of(self._out), ignore_errors=True)
