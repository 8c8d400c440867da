"""The stored rows of an experiment, and the summaries that tables and figures share."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from regbench.seals import read_table

CELL = ["dataset", "model", "regularizer", "method"]
SHARED = [
    "rule", "cost", "epsilon", "member", "arguments", "source", "sweep", "value", "family", "split",
]  # fmt: skip
"""What the seeds of a method, under one attack, have in common."""

ALWAYS = {"verdicts", "evaluations", "runs", "curves"}
"""Tables that every report has."""

LATER: dict[str, dict[str, str | None]] = {
    "verdicts": {"fooled_by": None},
    "evaluations": {"status": "ok", "batch_size": None, "accuracy_after": None},
}
"""Columns that reports from before them lack, and what that means."""


MEASURED = ["quantity", "along", "across", "value", "n"]
UNMEASURED = pd.DataFrame(columns=[*CELL, "seed", *MEASURED]).astype(
    dict.fromkeys(["along", "across", "value"], float)
)

SHOWN = [
    "image", "label", "under", "epsilon", "prediction", "confidence", "correct", "channels",
    "height", "width", "pixels",
]  # fmt: skip
UNSHOWN = pd.DataFrame(columns=[*CELL, "seed", *SHOWN])


class Rows(NamedTuple):
    """The tables of regbench.collect; networks are not always diagnosed."""

    verdicts: pd.DataFrame
    evaluations: pd.DataFrame
    runs: pd.DataFrame
    curves: pd.DataFrame
    diagnostics: pd.DataFrame = UNMEASURED
    gallery: pd.DataFrame = UNSHOWN


def load(folder: Path) -> Rows:
    """Return the rows in a report's folder.

    Raises:
        UserError: a table is missing or damaged.
    """
    paths = {name: folder / f"{name}.parquet" for name in Rows._fields}
    there = {name: path for name, path in paths.items() if path.exists() or name in ALWAYS}
    return Rows(**{name: _with_later(name, path) for name, path in there.items()})


def _with_later(name: str, path: Path) -> pd.DataFrame:
    table: pd.DataFrame = read_table(path)[0].to_pandas()
    lacking = {
        column: value for column, value in LATER.get(name, {}).items() if column not in table
    }
    return table.assign(**lacking)


def results(rows: Rows) -> pd.DataFrame:
    """Return one row per run and attack: the accuracy with its 95 % Wilson interval, cost and time.

    An attack that did not fit in memory is a row without accuracy, of n = 0 images.

    Columns: dataset, model, regularizer, method, seed, attack, label, epsilon, split, checkpoint,
    n, correct, accuracy, low, high (shares, 0 to 1), member, arguments, source, sweep, value,
    family, attack_status (`ok` or `out of memory`), attack_seconds, batch_size, accuracy_after
    (each attack of an ensemble, JSON), warnings, rule, cost (forward+backward passes per image and
    step), train_seconds, best_epoch, status.
    """
    keys = [*CELL, "seed", "attack"]
    grouped = rows.verdicts.groupby(keys, observed=True)["correct"]
    table = grouped.agg(n="size", correct="sum").reset_index()
    table["accuracy"] = table["correct"] / table["n"]
    table["low"], table["high"] = proportion_confint(table["correct"], table["n"], method="wilson")
    told = rows.evaluations.rename(columns={"seconds": "attack_seconds", "status": "attack_status"})
    of_run = rows.runs[[*CELL, "seed", "rule", "cost", "train_seconds", "best_epoch", "status"]]
    table = table.merge(told.drop(columns="suite"), "right", on=keys, validate="1:1")
    table = table.fillna({"n": 0, "correct": 0}).astype({"n": int, "correct": int})
    table = table.sort_values(keys).merge(of_run, on=keys[:-1], validate="m:1")
    first = [*keys, "label", "epsilon", "split", "checkpoint"]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def failures(results: pd.DataFrame) -> list[str]:
    """Return each training and each attack that went wrong, and how, one line each.

    Args:
        results: of `results`.
    """
    trainings = results.drop_duplicates([*CELL, "seed"])
    trained = trainings[trainings["status"] != "ok"]
    attacked = results[results["attack_status"] != "ok"]
    return [
        *(f"{row.method}, seed {row.seed}: {row.status}" for row in trained.itertuples()),
        *(
            f"{row.method}, seed {row.seed}, {row.label}: {row.attack_status}"
            for row in attacked.itertuples()
        ),
    ]


def unswept(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the attacks that stand for themselves: the points of a sweep left out."""
    return table[table["sweep"].isna()]


def over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation of the accuracy over seeds, per method and attack.

    The standard deviation is that of a sample (n − 1); with one seed it is missing. Seeds without
    an accuracy are not among the `seeds`, but `failed`, which `failure` gives the reason of.
    """
    failure = results["attack_status"].where(results["accuracy"].isna())
    grouped = results.assign(failure=failure).groupby([*CELL, "attack", "label"], observed=True)
    return grouped.agg(
        mean=("accuracy", "mean"),
        sd=("accuracy", "std"),
        seeds=("accuracy", "count"),
        broken=("status", lambda status: int((status != "ok").sum())),
        failed=("failure", "count"),
        failure=("failure", "first"),
        n=("n", "max"),
        train_seconds=("train_seconds", "mean"),
        **{column: (column, "first") for column in SHARED},
    ).reset_index()
