"""What each attack of a suite has found, so that a suite that is cut off goes on behind it."""

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


class Found(NamedTuple):
    """One attack's verdicts, one row per image, and what is told of the attack."""

    rows: pa.Table
    told: dict[str, Any]


class Parts:
    """One file per finished attack, in a folder beside the suite's verdicts.

    Args:
        out: where the suite's verdicts will be; the folder is named after it.
        key: what they all depend on: weights, suite, versions; a part of another key is refused.
    """

    def __init__(self, out: Path, key: str) -> None:
        self._folder = out.with_suffix(".parts")
        self._key = hashlib.sha256(key.encode()).hexdigest()

    def get(self, name: str, code: str) -> Found | None:
        """Return what the attack `name` found, if it did so with the same code."""
        path = self._path(name)
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

    def put(self, name: str, found: Found) -> None:
        """Keep what the attack `name` found, in one piece."""
        about = {"key": self._key, "told": found.told}
        table = found.rows.replace_schema_metadata({"regbench": json.dumps(about)})
        try:
            self._folder.mkdir(exist_ok=True)
            with draft_of(self._path(name)) as draft:
                pq.write_table(table, draft, compression="zstd", write_page_checksum=True)
        except OSError as error:
            print(f"'{self._path(name)}' could not be kept ({error}); going on", file=sys.stderr)

    def forget(self) -> None:
        """Remove them all: the suite is whole."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.parquet"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from error
