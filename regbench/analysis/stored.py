"""What a report holds of each training: all that a clone has, whose results/ is empty."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from regbench.analysis.known import Judged, Known
from regbench.analysis.rows import ALWAYS, RUN, Rows, with_later
from regbench.experiment import paths
from regbench.storage.seals import read_table

IDENTIFIED = {
    "runs": {"card", "best_weights", "last_weights"},
    "evaluations": {"suite_card"},
    "diagnostics": {"diagnosis_card"},
    "gallery": {"diagnosis_card"},
}
"""Columns that tell what rows are of; a report from before them lacks these."""

EXAMINED = {"diagnostics", "gallery"}
"""Tables that a diagnosis leaves."""

Tables = dict[str, pd.DataFrame]
Parts = dict[Any, pd.DataFrame]


def tables(folder: Path) -> Tables:
    """Return the tables of the report in `folder`, by name, as far as there are any.

    Raises:
        UserError: one is damaged.
    """
    paths = {name: folder / f"{name}.parquet" for name in Rows._fields}
    return {
        name: with_later(name, read_table(path)[0].to_pandas())
        for name, path in paths.items()
        if path.exists()
    }


def trainings(tables: Tables) -> dict[str, Known]:
    """Return what a report's tables hold of each training, by where its files would lie.

    Nothing, where tables are missing or an older version wrote them: those do not tell which cards
    their rows are of.
    """
    if not tables.keys() >= ALWAYS:
        return {}
    if any(not IDENTIFIED.get(name, set()) <= {*table} for name, table in tables.items()):
        return {}
    parts = {name: _parts(table, RUN) for name, table in tables.items()}
    return {_folder(run, record): _known(run, parts) for run, record in parts["runs"].items()}


def _folder(run: tuple[Any, ...], record: pd.DataFrame) -> str:
    dataset, model, *_, seed = run
    return paths.run(dataset, model, record["rule"].item(), f"{seed}-{record['card'].item()}")


def _known(run: tuple[Any, ...], parts: dict[str, Parts]) -> Known:
    examined = {name: parts[name][run] for name in parts.keys() & EXAMINED}
    keys = [key for rows in examined.values() for key in rows["diagnosis_card"]]
    return Known(
        record=parts["runs"][run],
        curve=parts["curves"][run],
        suites=dict(_suites(parts["evaluations"][run], parts["verdicts"][run])),
        diagnosis=keys[0] if keys else None,
        examined=examined if keys else {},
    )


def _suites(evaluations: pd.DataFrame, verdicts: pd.DataFrame) -> Iterator[tuple[str, Judged]]:
    for (key,), told in _parts(evaluations, ["suite_card"]).items():
        yield key, Judged(verdicts[verdicts["attack"].isin(told["attack"])], told)


def _parts(table: pd.DataFrame, by: list[str]) -> Parts:
    """Return the rows of each value of `by`, without these columns; of others, none.

    A training may have failed in its first epoch, every attack for want of memory.
    """
    rest = table.drop(columns=by)
    return defaultdict(
        lambda: rest.iloc[:0],
        {key: rest.loc[rows.index] for key, rows in table.groupby(by, observed=True, sort=False)},
    )
