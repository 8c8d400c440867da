"""The stored rows of an experiment, and the summaries that tables and figures share."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from regbench.errors import UserError
from regbench.experiment.paths import PRETRAINED
from regbench.storage.seals import read_table

CELL = ["dataset", "model", "regularizer", "method"]
RUN = [*CELL, "seed"]

SHARED = [
    "rule", "epsilon", "member", "arguments", "source", "sweep", "value", "family", "split",
]  # fmt: skip
"""What the seeds of a method, under one attack, have in common."""

ALWAYS = {"verdicts", "evaluations", "runs", "curves"}
"""Tables that every report has."""

LATER: dict[str, dict[str, str | float | None]] = {
    "verdicts": {"fooled_by": None},
    "evaluations": {
        "status": "ok",
        "batch_size": None,
        "accuracy_after": None,
        "precision": "fp32",
    },
    "runs": dict.fromkeys(
        ["forward_passes", "backward_passes", "peak_memory", "peak_gpu_memory"], float("nan")
    ),
    "curves": dict.fromkeys(
        ["loss_under_half_fgsm", "loss_under_fgsm", "loss_under_rfgsm", "loss_under_ifgsm"],
        float("nan"),
    ),
}
"""Columns that reports from before them lack, and what that means."""

MEASURED = ["quantity", "along", "across", "value", "n"]

SHOWN = [
    "image", "label", "under", "epsilon", "prediction", "confidence", "correct", "channels",
    "height", "width", "pixels",
]  # fmt: skip

NEEDED = {
    "verdicts": [*CELL, "seed", "attack", "image", "label", "correct", "distance", "loss"],
    "evaluations": [
        *CELL, "seed", "attack", "label", "suite", "member", "arguments", "source", "sweep",
        "value", "family", "epsilon", "seconds", "warnings", "split", "checkpoint",
    ],
    "runs": [
        *CELL, "seed", "rule", "cost", "epsilon", "card", "hyperparameters", "training",
        "status", "best_epoch", "train_seconds", "seconds", "device", "commit", "dirty",
    ],
    "curves": [
        *CELL, "seed", "epoch", "loss", "penalty", "validation_clean", "validation_ifgsm",
        "seconds",
    ],
    "diagnostics": [*CELL, "seed", *MEASURED],
    "gallery": [*CELL, "seed", *SHOWN],
}  # fmt: skip
"""Columns that tables, figures and page are drawn from, besides `LATER`."""

UNMEASURED = pd.DataFrame(columns=[*CELL, "seed", *MEASURED]).astype(
    dict.fromkeys(["along", "across", "value"], float)
)

UNSHOWN = pd.DataFrame(columns=[*CELL, "seed", *SHOWN])


class Rows(NamedTuple):
    """The tables of regbench.collect; networks are not always diagnosed."""

    verdicts: pd.DataFrame
    evaluations: pd.DataFrame
    runs: pd.DataFrame
    curves: pd.DataFrame
    diagnostics: pd.DataFrame = UNMEASURED
    gallery: pd.DataFrame = UNSHOWN


def widest(told: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of those attacks of each data set that the most methods were judged by.

    Args:
        told: with the columns `CELL` and `attack`, like evaluations.
    """
    cells = told.drop_duplicates([*CELL, "attack"])
    counts = cells.groupby(["dataset", "attack"], observed=True).size().rename("judged")
    judged = told[["dataset", "attack"]].join(counts, on=["dataset", "attack"])
    most = judged.groupby("dataset", observed=True)["judged"].transform("max")
    return told[judged["judged"] == most]


def load(folder: Path) -> Rows:
    """Return the rows in a report's folder.

    Raises:
        UserError: a table is missing or damaged, or an older version wrote it without a column that
            nothing can stand for.
    """
    paths = {name: folder / f"{name}.parquet" for name in Rows._fields}
    there = {name: path for name, path in paths.items() if path.exists() or name in ALWAYS}
    return Rows(**{name: _table(name, path) for name, path in there.items()})


def _table(name: str, path: Path) -> pd.DataFrame:
    table: pd.DataFrame = read_table(path)[0].to_pandas()
    lost = [column for column in NEEDED[name] if column not in table]
    if lost:
        raise UserError(
            f"'{path}' has no {', '.join(map(repr, lost))}: an older version wrote it, and tables,"
            " figures and page are drawn from that; run the experiment again"
        )
    return with_later(name, table)


def with_later(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return a report's table with the columns that those from before them lack (`LATER`)."""
    lacking = {
        column: value for column, value in LATER.get(name, {}).items() if column not in table
    }
    return table.assign(**lacking)


def results(rows: Rows) -> pd.DataFrame:
    """Return one row per run and attack: the accuracy with its 95 % Wilson interval, cost and time.

    An attack that did not fit in memory is a row without accuracy, of n = 0 images.

    Columns: dataset, model, regularizer, method, seed, attack, label, epsilon, split, checkpoint,
    n, correct, accuracy, low, high (shares, 0 to 1), member, arguments, source, sweep, value,
    family, attack_status (`ok` or `out of memory`), attack_seconds, batch_size, attack_precision,
    accuracy_after (each attack of an ensemble, JSON), warnings, rule, cost (of `passes`),
    train_seconds, best_epoch, status.
    """
    keys = [*CELL, "seed", "attack"]
    grouped = rows.verdicts.groupby(keys, observed=True)["correct"]
    table = grouped.agg(n="size", correct="sum").reset_index()
    table["accuracy"] = table["correct"] / table["n"]
    table["low"], table["high"] = proportion_confint(table["correct"], table["n"], method="wilson")
    told = rows.evaluations.rename(
        columns={name: f"attack_{name}" for name in ("seconds", "status", "precision")}
    )
    runs = rows.runs.assign(cost=passes(rows.runs))
    of_run = runs[[*CELL, "seed", "rule", "cost", "train_seconds", "best_epoch", "status"]]
    table = table.merge(
        told.drop(columns=["suite", "suite_card"], errors="ignore"),
        "right",
        on=keys,
        validate="1:1",
    )
    table = table.fillna({"n": 0, "correct": 0}).astype({"n": int, "correct": int})
    table = table.sort_values(keys).merge(of_run, on=keys[:-1], validate="m:1")
    first = [*keys, "label", "epsilon", "split", "checkpoint"]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def passes(runs: pd.DataFrame) -> pd.Series:
    """Return what each run costs per image and training step: natural training costs 1.

    Half of its forward and backward passes as counted; as its rule declares, where none were.
    """
    counted = (runs["forward_passes"] + runs["backward_passes"]) / 2
    return counted.astype(float).fillna(runs["cost"])


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


def labels(table: pd.DataFrame) -> pd.Series:
    """Return the labels, those of attacks that saw fewer images than others with their number.

    Args:
        table: of `results` or `over_seeds`, of one data set and without the points of sweeps.
    """
    count = table.groupby("attack", observed=True)["n"].transform("max")
    fewer = (count > 0) & (count < count.max())
    counted = table["label"] + " (n = " + count.astype(str) + ")"
    return table["label"].where(~fewer, counted)


UNTRAINED = "not trained"
"""Told of a network that diverged in its first epoch: its weights are those that it began with."""


def trained(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Tell of each row whether its network is of an epoch, not the one that training began with.

    Of a network that was trained elsewhere the epoch is not known.
    """
    return (runs["best_epoch"] != 0).fillna(True).astype(bool)


def elsewhere(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Tell of each row whether its network was trained elsewhere."""
    return runs["rule"] == PRETRAINED


def of_trained(rows: Rows) -> pd.DataFrame:
    """Return the verdicts on networks that were trained."""
    there = rows.runs.loc[trained(rows.runs), RUN].astype(str)
    chosen = pd.MultiIndex.from_frame(rows.verdicts[RUN].astype(str))
    return rows.verdicts[chosen.isin(pd.MultiIndex.from_frame(there))]


def over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation and range of the accuracy over seeds, per method and attack.

    The standard deviation is that of a sample (n − 1); with one seed it is missing. The range is
    from `lowest` to `highest`; `those` are the seeds. Seeds without an accuracy, or whose network
    was not trained, are not among the `seeds`, but `failed`, which `failure` gives the reason of.
    """
    untrained = ~trained(results)
    accuracy = results["accuracy"].mask(untrained)
    failure = results["attack_status"].where(accuracy.isna()).mask(untrained, UNTRAINED)
    there = results["seed"].where(accuracy.notna())
    told = results.assign(
        accuracy=accuracy,
        failure=failure,
        there=there,
        untrained=untrained,
        train_seconds=results["train_seconds"].mask(untrained),
    )
    grouped = told.groupby([*CELL, "attack", "label"], observed=True)
    return grouped.agg(
        mean=("accuracy", "mean"),
        sd=("accuracy", "std"),
        lowest=("accuracy", "min"),
        highest=("accuracy", "max"),
        seeds=("accuracy", "count"),
        those=("there", lambda seeds: tuple(sorted(seeds.dropna().astype(int)))),
        broken=("status", lambda status: int((status != "ok").sum())),
        untrained=("untrained", "sum"),
        failed=("failure", "count"),
        failure=("failure", "first"),
        n=("n", "max"),
        cost=("cost", "mean"),
        train_seconds=("train_seconds", "mean"),
        **{column: (column, "first") for column in SHARED},
    ).reset_index()
