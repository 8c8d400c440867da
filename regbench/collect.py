"""Stage 4: the files of every cell -> tables of rows, from which all else is drawn.

verdicts.parquet has one row per image, attack and run; evaluations.parquet one per attack and run;
runs.parquet one per run; curves.parquet one per epoch and run; where networks were diagnosed,
diagnostics.parquet one per quantity, point and run, and gallery.parquet one per image that is
shown, attack and run.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

from regbench.analysis import stored
from regbench.analysis.known import Known, beyond, joined
from regbench.analysis.made import made
from regbench.analysis.stored import Tables
from regbench.errors import UserError, program
from regbench.experiment.manifest import Manifest, Run
from regbench.storage.seals import write_table

NULLABLE = {
    "fooled_by": "string", "accuracy_after": "string", "batch_size": "Int64",
    "cost": "float", "best_epoch": "Int64", "train_seconds": "float", "forward_passes": "float",
    "backward_passes": "float",
}  # fmt: skip
"""Columns that say nothing of some attacks, or of a network that was trained elsewhere."""


def collect(
    manifest: Manifest, partial: bool = False, before: Mapping[str, Known] | None = None
) -> Tables:
    """Return the tables of an experiment; without diagnoses, what they leave is left out.

    Args:
        manifest: which cells there are, in the order that tables and figures keep.
        partial: leave out what has not been made yet, instead of refusing.
        before: what a report holds of trainings, by their folders; of it, what the manifest asks
            for and results/ does not hold is taken over.

    Raises:
        UserError: a cell's file is missing or broken.
    """
    parts: dict[str, list[pd.DataFrame]] = {
        "verdicts": [], "evaluations": [], "runs": [], "curves": [], "diagnostics": [],
        "gallery": [],
    }  # fmt: skip
    for run in manifest.runs:
        held = (before or {}).get(run.folder)
        asked = held and held.of(manifest.judged(run), manifest.diagnosed(run))
        known = joined(made(manifest, run, partial), asked)
        if known is not None:
            for name, rows in _tables(manifest, run, known):
                parts[name].append(_named(run, rows))
    order = _order(manifest)
    return {name: _typed(frames, order) for name, frames in parts.items() if frames}


def _tables(manifest: Manifest, run: Run, known: Known) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield rows of a run, each with the table that they go into."""
    yield "runs", known.record
    yield "curves", known.curve
    for key in manifest.judged(run):
        if key in known.suites:
            yield "verdicts", known.suites[key].verdicts
            yield "evaluations", _evaluations(manifest, run, known.suites[key].told, key)
    for name, rows in known.examined.items():
        yield name, rows.assign(diagnosis_card=known.diagnosis)


def _evaluations(manifest: Manifest, run: Run, told: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return what the config says of each attack of a suite, and what is told of it.

    What a report tells includes the former, which the config may call otherwise by now.
    """
    entries = pd.DataFrame(
        {
            "attack": entry.name,
            "label": entry.label,
            "suite": entry.suite,
            "member": entry.card.attack,
            "source": entry.source,
            "sweep": entry.sweep,
            "value": entry.value,
            "family": entry.family,
            "epsilon": entry.card.arguments["epsilon"],
        }
        for entry in manifest.attacks[run.dataset]
    )
    measured = told.drop(columns=entries.columns.drop("attack"), errors="ignore")
    return entries.merge(measured, on="attack", validate="1:1").assign(suite_card=key)


def _named(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    names = {
        "dataset": run.dataset,
        "model": run.model,
        "regularizer": run.regularizer,
        "method": run.label,
        "seed": run.seed,
    }
    return pd.concat([pd.DataFrame(names, index=rows.index), rows], axis=1)


def _order(manifest: Manifest) -> dict[str, list[str]]:
    """Return, for each column of names, its values in the config's order."""
    columns: dict[str, list[str]] = {
        "dataset": [run.dataset for run in manifest.runs],
        "model": [run.model for run in manifest.runs],
        "regularizer": [run.regularizer for run in manifest.runs],
        "method": [run.label for run in manifest.runs],
        "attack": [one.name for entries in manifest.attacks.values() for one in entries],
    }
    return {column: list(dict.fromkeys(values)) for column, values in columns.items()}


def _typed(frames: list[pd.DataFrame], order: dict[str, list[str]]) -> pd.DataFrame:
    table = pd.concat(frames, ignore_index=True)
    for column in table.columns.intersection(list(order)):
        table[column] = pd.Categorical(table[column].astype(str), order[column], ordered=True)
    return table.astype({name: NULLABLE[name] for name in table.columns.intersection([*NULLABLE])})


def main() -> None:
    """Read the command line and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m regbench.collect", description=__doc__)
    parser.add_argument("manifest", help="the experiment's manifest, a JSON file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="take what has been made so far, and of the rest what is stored already; change"
        " nothing if more than the manifest asks for is stored",
    )
    parser.add_argument(
        "--replace", action="store_true", help="drop what is stored and not asked for"
    )
    arguments = parser.parse_args()
    manifest = Manifest.read(arguments.manifest)
    before = stored.tables(arguments.out) if arguments.partial else {}
    held = stored.trainings(before)
    tables = collect(manifest, arguments.partial, held)
    kept = _kept(before, held, tables) if before and not arguments.replace else ""
    if kept or not tables:
        print(f"{arguments.out}: {kept or 'nothing to collect yet'}")
        return
    _write(arguments.out, tables)
    done, verdicts = len(tables["runs"]), len(tables.get("verdicts", ()))
    print(f"{arguments.out}: {done} of {len(manifest.runs)} runs, {verdicts} verdicts")


def _kept(before: Tables, held: Mapping[str, Known], tables: Tables) -> str:
    """Return why a report is left as it is; nothing, if it loses nothing by new tables.

    Args:
        before: the report's tables.
        held: what they hold of trainings, by their folders; nothing where they do not tell.
        tables: the new ones.

    Raises:
        UserError: it would lose as well as gain by them.
    """
    found = stored.trainings(tables)
    lost, gained = _listed(beyond(held, found)), _listed(beyond(found, held))
    if not held:  # not comparable but by number
        more = len(before.get("verdicts", ())) > len(tables.get("verdicts", ()))
        lost = "rows of a version that did not tell their cards" if more else ""
    if not lost:
        return ""
    told = (
        f"it holds what this config does not ask for ({lost}); `snakemake replace_report`, with the"
        " same options, drops that"
    )
    if gained:
        raise UserError(f"the stored report was not changed: it lacks {gained}, but {told}")
    return f"kept as it is: {told}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{part} of {count} trainings" for part, count in counts.items())


def _write(folder: Path, tables: Tables) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in stored.EXAMINED - tables.keys():  # those there are of something else
        (folder / f"{name}.parquet").unlink(missing_ok=True)
    for name, table in tables.items():
        rows = pa.Table.from_pandas(table, preserve_index=False)
        write_table(folder / f"{name}.parquet", rows, {"rows": len(table)})


if __name__ == "__main__":
    program(main)
