"""Records and tables that carry a SHA-256 of what they hold, so that a flipped byte is noticed.

A guard against faults of disks and hands, not against forgery. Tensors: regbench.storage.tensors.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from regbench.errors import ForeignFileError, UserError
from regbench.storage.drafts import draft_of

SEAL = "seal"


class DamagedError(UserError):
    """A file is not as it was written; `what` says why."""

    def __init__(self, path: Path, what: object) -> None:
        self.what = " ".join(str(what).split())
        super().__init__(f"'{path}' is damaged ({self.what}); delete it and run snakemake again")


class MissingError(UserError):
    """A file is not there."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"'{path}' is missing; snakemake makes it if it is named: snakemake --cores all"
            f" {path} --configfile …"
        )


def seal(about: dict[str, Any], content: str = "") -> dict[str, Any]:
    """Return `about`, which is JSON, with a digest of itself and of `content`."""
    return {**about, SEAL: _digest(about, content)}


def unsealed(path: Path, about: dict[str, Any], content: str = "") -> dict[str, Any]:
    """Return what was sealed.

    Raises:
        UserError: this is not what was sealed.
    """
    rest = {key: value for key, value in about.items() if key != SEAL}
    if about.get(SEAL) != _digest(rest, content):
        raise DamagedError(path, "its digest does not fit" if SEAL in about else "it has no digest")
    return rest


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON."""
    text = json.dumps(seal(record), indent=2, ensure_ascii=False)
    with draft_of(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Return the record in `path`.

    Raises:
        UserError: there is none, or it is not as it was written.
    """
    try:
        return unsealed(path, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise MissingError(path) from error
    except (OSError, ValueError, AttributeError) as error:
        raise DamagedError(path, error) from error


def write_table(path: Path, rows: pa.Table, about: dict[str, Any]) -> None:
    """Write rows, and what is told of them, as parquet."""
    sealed = json.dumps(seal(about, _digest_of_rows(rows)))
    known = {**(rows.schema.metadata or {}), b"regbench": sealed.encode()}
    with draft_of(path) as draft:
        pq.write_table(
            rows.replace_schema_metadata(known), draft, compression="zstd", write_page_checksum=True
        )


def read_table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Return the rows in `path` and what is told of them.

    Raises:
        UserError: there are none, or they are not as they were written.
    """
    try:
        rows = pq.read_table(path, page_checksum_verification=True)
        about = json.loads((rows.schema.metadata or {})[b"regbench"])
        content = _digest_of_rows(rows)
    except FileNotFoundError as error:
        raise MissingError(path) from error
    except KeyError as error:
        raise DamagedError(path, "it is no table of regbench") from error
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise DamagedError(path, error) from error
    return rows, unsealed(path, about, content)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from error


def checked(path: Path, sha256: str) -> bytes:
    """Return what a file of the user's holds, if it is the one that the config means.

    Args:
        path: of the file.
        sha256: of what it holds, 64 hexadecimal digits.

    Raises:
        UserError: it is missing.
        ForeignFileError: it is another one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}; see data_root") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ForeignFileError(f"'{path}' has sha256 {found}, the config says {sha256}")
    return content


def _digest(about: dict[str, Any], content: str) -> str:
    text = json.dumps(about, sort_keys=True)
    return hashlib.sha256(f"{content} {text}".encode()).hexdigest()


def _digest_of_rows(rows: pa.Table) -> str:
    """By values, so that it does not matter how parquet lays them out; names and types count."""
    frame = rows.to_pandas(ignore_metadata=True)
    # some versions of pandas tell −0 from 0, others do not
    floats = frame.select_dtypes("floating").columns
    frame[floats] = frame[floats] + 0.0
    hashed = hashlib.sha256(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    hashed.update(" ".join(f"{name} {kind}" for name, kind in frame.dtypes.items()).encode())
    hashed.update((rows.schema.metadata or {}).get(b"pandas", b""))
    return hashed.hexdigest()
