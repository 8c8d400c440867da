"""What each piece of an attack has found: a suite that is cut off goes on behind it."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from regbench.drafts import draft_of
from regbench.errors import UserError
from regbench.pieces import part_of


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

    def get(self, name: str, index: int, code: str) -> Found | None:
        """Return what a piece of the attack `name` found, if it did so with the same code."""
        path = part_of(self._out, name, index)
        if not path.exists():
            return None
        try:
            table = pq.read_table(path, page_checksum_verification=True)
            about = json.loads(table.schema.metadata[b"regbench"])
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            print(f"'{path}' is not taken up ({error}); attacking afresh", file=sys.stderr)
            return None
        if (about["key"], about["told"]["code"]) != (self._key, code):
            return None
        return Found(table.replace_schema_metadata(None), about["told"])

    def put(self, name: str, index: int, found: Found) -> None:
        """Keep what a piece of the attack `name` found, whole or not at all."""
        path = part_of(self._out, name, index)
        about = {"key": self._key, "told": found.told}
        table = found.rows.replace_schema_metadata({"regbench": json.dumps(about)})
        try:
            path.parent.mkdir(exist_ok=True)
            with draft_of(path) as draft:
                pq.write_table(table, draft, compression="zstd", write_page_checksum=True)
        except OSError as error:
            print(f"'{path}' could not be kept ({error}); going on", file=sys.stderr)

    def forget(self) -> None:
        """Remove them all: the suite is whole."""
        shutil.rmtree(self._out.with_suffix(".parts"), ignore_errors=True)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from error
