"""What is told of one number: of how many images and seeds, how sure, from where, made how."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from regbench.analysis.doubts import flags
from regbench.analysis.rows import RUN, Rows, results
from regbench.experiment import paths
from regbench.experiment.manifest import Manifest
from regbench.report.wording import percent


@dataclass(frozen=True)
class Remaking:
    """The experiment as it stands in its config, from which a number can be made again.

    Attributes:
        manifest: every cell of it.
        configfiles: where the config lies.
    """

    manifest: Manifest
    configfiles: tuple[str, ...]

    def whole(self) -> str:
        """Return the command line that makes the experiment."""
        return f"snakemake --cores all --configfile {shlex.join(self.configfiles)}"

    def command(self, runs: pd.DataFrame) -> str:
        """Return the command line that makes some verdicts, or nothing if no cell is theirs now.

        Args:
            runs: rows of `traced`.
        """
        cells = zip(runs["run"], runs["suite"], strict=True)
        targets = [self._verdicts.get(cell, "") for cell in cells]
        if not all(targets):
            return ""
        files = shlex.join(self.configfiles)
        return f"snakemake --cores all {shlex.join(targets)} --configfile {files}"

    @cached_property
    def _verdicts(self) -> dict[tuple[str, str], str]:
        """Where the verdicts lie, by the run's folder and the suite."""
        return {
            (run.folder, suite): path
            for run in self.manifest.runs
            for suite, path in run.verdicts.items()
        }


def traced(rows: Rows, doubts: pd.DataFrame) -> pd.DataFrame:
    """Return `regbench.analysis.rows.results` with where each number comes from.

    Columns besides: flags (of `regbench.analysis.doubts.flags`), suite, card, run (the folder of
    its training), device, commit, dirty, hyperparameters and training (JSON).
    """
    tidy = results(rows)
    tidy = tidy.assign(flags=flags(tidy, doubts))
    suites = rows.evaluations[[*RUN, "attack", "suite"]]
    runs = rows.runs[[*RUN, "card", "device", "commit", "dirty", "hyperparameters", "training"]]
    table = tidy.merge(suites, on=[*RUN, "attack"], validate="1:1")
    table = table.merge(runs, on=RUN, validate="m:1")
    folders = [
        paths.run(row["dataset"], row["model"], row["rule"], f"{row['seed']}-{row['card']}")
        for row in table.to_dict("records")
    ]
    return table.assign(run=folders)


def of_one(run: pd.DataFrame, remaking: Remaking | None = None) -> str:
    """Return what is told of one accuracy of one run, one `name: value` a line.

    Args:
        run: one row of `traced`.
        remaking: what gives the command line; none: it is left out.
    """
    row = run.iloc[0]
    return lines({"accuracy": _seed(row), **_origin(run), **_again(run, remaking)})


def of_mean(mean: pd.Series, runs: pd.DataFrame, remaking: Remaking | None = None) -> str:
    """Return what is told of a mean over seeds, one `name: value` a line.

    Args:
        mean: a row of `regbench.analysis.rows.over_seeds`, `regbench.analysis.comparisons.bounded`.
        runs: the rows of `traced` that it is the mean of.
        remaking: what gives the command line; none: it is left out.
    """
    return lines({**_mean(mean), **_seeds(runs), **_origin(runs), **_again(runs, remaking)})


def _mean(mean: pd.Series) -> dict[str, str]:
    if pd.isna(mean["mean"]):
        return {"accuracy": str(mean["failure"])}
    over = "seeds and images" if mean["seeds"] > 1 else "images"
    return {
        "accuracy": f"{percent(mean['mean'], mean['sd'])} %",
        "95 % interval": f"{100 * mean['low']:.1f} to {100 * mean['high']:.1f}, over {over}",
    }


def _seeds(runs: pd.DataFrame) -> dict[str, str]:
    return {f"seed {row['seed']}": _seed(row) for _, row in runs.iterrows()}


def _seed(row: pd.Series) -> str:
    if row["attack_status"] != "ok":
        return str(row["attack_status"])
    share = f"{100 * row['accuracy']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
    return f"{share}, {row['correct']} of {row['n']}{_unless_ok(row['status'])}"


def _unless_ok(status: str) -> str:
    return "" if status == "ok" else f", training {status}"


def _origin(runs: pd.DataFrame) -> dict[str, str]:
    first = runs.iloc[0]
    weights = "" if first["rule"] == paths.PRETRAINED else f", {first['checkpoint']} epoch"
    return {
        "images": f"n = {_each(runs['n'])}, {first['split']}",
        "flags": _each(runs["flags"][runs["flags"] != ""]) or "none",
        "attack": f"{first['member'].rpartition('.')[2]}{_told(first['arguments'])}{_from(first)}"
        f"{_crafted_in(first['attack_precision'])}",
        "training": f"{first['rule']}{_told(first['hyperparameters'])}"
        f"{_computed(first['training'])}{weights}",
        "run": _each(runs["run"]),
        "device": _each(runs["device"]),
        "commit": _each(runs["commit"].str[:10] + runs["dirty"].map({True: " (dirty)"}).fillna("")),
    }


def _told(arguments: str) -> str:
    """Return parameters as `, steps 50, restarts 5`; those that are none are left out."""
    known = json.loads(arguments).items()
    return "".join(f", {key} {value}" for key, value in known if value is not None)


def _computed(training: str) -> str:
    """Return how a training was computed, if not in single precision by the network as it is."""
    settings = json.loads(training)
    precision = settings.get("precision", "fp32")
    ways = [f"in {precision}"] * (precision != "fp32") + ["compiled"] * settings.get("compiled", 0)
    return "".join(f", {way}" for way in ways)


def _from(row: pd.Series) -> str:
    return "" if pd.isna(row["source"]) else f", crafted on {row['source']}"


def _crafted_in(precision: str) -> str:
    return "" if precision == "fp32" else f", crafted in {precision}"


def _each(values: pd.Series) -> str:
    return ", ".join(values.astype(str).drop_duplicates())


def _again(runs: pd.DataFrame, remaking: Remaking | None) -> dict[str, str]:
    command = remaking.command(runs) if remaking else ""
    return {"to make it again": command} if command else {}


def lines(told: Mapping[str, object]) -> str:
    """Return `name: value`, one a line."""
    return "\n".join(f"{name}: {value}" for name, value in told.items())
