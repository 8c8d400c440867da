"""The stored rows of an experiment, and the summaries that tables and figures share."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from regbench.seals import read_table

CELL = ["dataset", "model", "regularizer", "method"]
SHARED = ["rule", "cost", "epsilon", "member", "arguments", "source", "sweep", "value", "family"]
"""What the seeds of a method, under one attack, have in common."""


class Rows(NamedTuple):
    """The four tables of regbench.collect."""

    verdicts: pd.DataFrame
    evaluations: pd.DataFrame
    runs: pd.DataFrame
    curves: pd.DataFrame


def load(folder: Path) -> Rows:
    """Return the rows in a report's folder.

    Raises:
        UserError: a table is missing or damaged.
    """
    tables = (read_table(folder / f"{name}.parquet")[0] for name in Rows._fields)
    return Rows(*(table.to_pandas() for table in tables))


def results(rows: Rows) -> pd.DataFrame:
    """Return one row per run and attack: the accuracy with its 95 % Wilson interval, cost and time.

    Columns: dataset, model, regularizer, method, seed, attack, label, epsilon, split, checkpoint,
    n, correct, accuracy, low, high (shares, 0 to 1), member, arguments, source, sweep, value,
    family, attack_seconds, warnings, rule, cost (forward+backward passes per image and step),
    train_seconds, best_epoch, status.
    """
    keys = [*CELL, "seed", "attack"]
    grouped = rows.verdicts.groupby(keys, observed=True)["correct"]
    table = grouped.agg(n="size", correct="sum").reset_index()
    table["accuracy"] = table["correct"] / table["n"]
    table["low"], table["high"] = proportion_confint(table["correct"], table["n"], method="wilson")
    told = rows.evaluations.rename(columns={"seconds": "attack_seconds"}).drop(columns="suite")
    of_run = rows.runs[[*CELL, "seed", "rule", "cost", "train_seconds", "best_epoch", "status"]]
    table = table.merge(told, on=keys, validate="1:1").merge(of_run, on=keys[:-1], validate="m:1")
    first = [*keys, "label", "epsilon", "split", "checkpoint"]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def unswept(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the attacks that stand for themselves: the points of a sweep left out."""
    return table[table["sweep"].isna()]


def over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation of the accuracy over seeds, per method and attack.

    The standard deviation is that of a sample (n − 1); with one seed it is missing.
    """
    grouped = results.groupby([*CELL, "attack", "label"], observed=True)
    return grouped.agg(
        mean=("accuracy", "mean"),
        sd=("accuracy", "std"),
        seeds=("seed", "nunique"),
        n=("n", "min"),
        train_seconds=("train_seconds", "mean"),
        **{column: (column, "first") for column in SHARED},
    ).reset_index()
