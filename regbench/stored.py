"""What a report holds of each training: all that a clone has, whose results/ is empty."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from regbench.grid import run_folder
from regbench.known import Judged, Known
from regbench.rows import ALWAYS, RUN, Rows
from regbench.seals import read_table

IDENTIFIED = {
    "runs": {"card", "best_weights", "last_weights"},
    "evaluations": {"suite_card"},
    "diagnostics": {"diagnosis_card"},
    "gallery": {"diagnosis_card"},
}
"""Columns that tell what rows are of; a report from before them lacks these."""

ENTRY = ["label", "suite", "member", "source", "sweep", "value", "family", "epsilon"]
"""Of evaluations, what the config says of an attack, and may call otherwise by now."""

NO_ROWS = pd.DataFrame()
NO_ATTACKS = pd.Series(dtype=str)

Parts = dict[Any, pd.DataFrame]


def report(folder: Path) -> dict[str, Known]:
    """Return what the report in `folder` holds of each training, by where its files would lie.

    Nothing, where there is no report or an older version wrote it: that does not tell which cards
    its rows are of.

    Raises:
        UserError: a table is damaged.
    """
    paths = {name: folder / f"{name}.parquet" for name in Rows._fields}
    there = {name: path for name, path in paths.items() if path.exists()}
    if not there.keys() >= ALWAYS:
        return {}
    tables = {name: read_table(path)[0].to_pandas() for name, path in there.items()}
    if any(not IDENTIFIED.get(name, set()) <= {*table} for name, table in tables.items()):
        return {}
    parts = {name: dict(_parts(table, RUN)) for name, table in tables.items()}
    return {_folder(run, record): _known(run, parts) for run, record in parts["runs"].items()}


def _folder(run: tuple[Any, ...], record: pd.DataFrame) -> str:
    dataset, model, *_, seed = run
    return run_folder(dataset, model, record["rule"].item(), f"{seed}-{record['card'].item()}")


def _known(run: tuple[Any, ...], parts: dict[str, Parts]) -> Known:
    names = [name for name in ("diagnostics", "gallery") if run in parts.get(name, {})]
    examined = {name: parts[name][run] for name in names}
    keys = [rows["diagnosis_card"].iloc[0] for rows in examined.values()]
    return Known(
        record=parts["runs"][run],
        # a training may have failed in its first epoch, every attack for want of memory
        curve=parts["curves"].get(run, NO_ROWS),
        suites=dict(_suites(parts["evaluations"].get(run), parts["verdicts"].get(run, NO_ROWS))),
        diagnosis=keys[0] if keys else None,
        examined=examined,
    )


def _suites(
    evaluations: pd.DataFrame | None, verdicts: pd.DataFrame
) -> Iterator[tuple[str, Judged]]:
    if evaluations is None:
        return
    for (key,), told in _parts(evaluations.drop(columns=ENTRY), ["suite_card"]):
        of_these = verdicts.get("attack", NO_ATTACKS).isin(told["attack"])
        yield key, Judged(verdicts[of_these], told)


def _parts(table: pd.DataFrame, by: list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Yield the rows of each value of `by`, without these columns."""
    for value, rows in table.groupby(by, observed=True, sort=False):
        yield value, rows.drop(columns=by)
