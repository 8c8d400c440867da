"""Stage 4: the files of every cell -> tables of rows, from which all else is drawn.

verdicts.parquet has one row per image, attack and run; evaluations.parquet one per attack and run;
runs.parquet one per run; curves.parquet one per epoch and run; where networks were diagnosed,
diagnostics.parquet one per quantity, point and run, and gallery.parquet one per image that is
shown, attack and run.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from regbench.errors import UserError, program
from regbench.manifest import Manifest, Run
from regbench.seals import DamagedError, digest_of, read_record, read_table, write_table

Rows = dict[str, pd.DataFrame]

UNTOLD = ("shape", "classes")
"""Of run.json, what the network needs to be built anew; of a data set it is always the same."""

NULLABLE = {"fooled_by": "string", "accuracy_after": "string", "batch_size": "Int64"}
"""Columns that say nothing of some attacks, and that files from before them lack."""


def collect(manifest: Manifest, partial: bool = False) -> Rows:
    """Return the tables of an experiment; without diagnoses, what they leave is left out.

    Args:
        manifest: which cells there are, in the order that tables and figures keep.
        partial: leave out what has not been made yet, instead of refusing.

    Raises:
        UserError: a cell's file is missing or broken.
    """
    parts: dict[str, list[pd.DataFrame]] = {
        "verdicts": [], "evaluations": [], "runs": [], "curves": [], "diagnostics": [],
        "gallery": [],
    }  # fmt: skip
    for run in manifest.runs:
        files = [Path(run.folder, "run.json"), Path(run.folder, "curve.csv")]
        if partial and not all(file.exists() for file in files):
            continue
        parts["runs"].append(_run(run, files[0]))
        parts["curves"].append(_named(run, _read(pd.read_csv, files[1])))
        for path in run.verdicts.values():
            if not partial or Path(path).exists():
                rows, about = _verdicts(path)
                parts["verdicts"].append(_named(run, rows))
                parts["evaluations"].append(
                    _named(run, pd.DataFrame(_evaluations(manifest, run, about)))
                )
        for name, file in (("diagnostics", run.diagnosis), ("gallery", run.gallery)):
            if file and (not partial or Path(file).exists()):
                parts[name].append(_named(run, _plain(read_table(Path(file))[0])))
    order = _order(manifest)
    return {name: _typed(frames, order) for name, frames in parts.items() if frames}


def _run(run: Run, path: Path) -> pd.DataFrame:
    record = read_record(path)
    if record["card"] != run.card.key:
        raise DamagedError(path, f"it is of the run {record['card']}, not of {run.card.key}")
    for name, digest in record.pop("files").items():
        if name in {"card.json", "curve.csv"} and digest_of(path.with_name(name)) != digest:
            raise DamagedError(path.with_name(name), "its digest is not the one in run.json")
    known = {
        "rule": run.rule,
        "cost": run.cost,
        "epsilon": run.card.epsilon,
        "card": run.card.key,
        "hyperparameters": json.dumps(run.card.regularizer.hyperparameters, sort_keys=True),
        "training": json.dumps(run.card.training.model_dump(), sort_keys=True),
    }
    row = pd.DataFrame([{**known, **record}])
    return _named(run, row.drop(columns=[*UNTOLD], errors="ignore"))


def _plain(rows: pa.Table) -> pd.DataFrame:
    """Return rows, their dictionaries as text: those of two files do not agree."""
    frame: pd.DataFrame = rows.to_pandas()
    return frame.astype(dict.fromkeys(frame.select_dtypes("category"), str))


def _verdicts(path: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    table, about = read_table(Path(path))
    rows = table.to_pandas()
    return rows.assign(fooled_by=rows.get("fooled_by")), about


def _evaluations(
    manifest: Manifest, run: Run, about: dict[str, Any]
) -> Iterator[dict[str, object]]:
    for entry in manifest.attacks[run.dataset]:
        told = about["attacks"].get(entry.name)
        if told is None:
            continue
        yield {
            "attack": entry.name,
            "label": entry.label,
            "suite": entry.suite,
            "member": entry.card.attack,
            "arguments": json.dumps(told["arguments"], sort_keys=True),
            "source": entry.source,
            "sweep": entry.sweep,
            "value": entry.value,
            "family": entry.family,
            "epsilon": entry.card.arguments["epsilon"],
            "status": told.get("status", "ok"),
            "seconds": told["seconds"],
            "batch_size": told.get("batch_size"),
            "accuracy_after": json.dumps(told["accuracy_after"]) if _staged(told) else None,
            "warnings": "; ".join(told["warnings"]),
            "split": about["card"]["split"],
            "checkpoint": about["card"]["checkpoint"],
        }


def _staged(told: dict[str, Any]) -> bool:
    """Tell whether the accuracy after each attack of an ensemble is known."""
    return bool(told.get("accuracy_after"))


def _read(reader: Any, path: Path) -> Any:
    try:
        return reader(path)
    except FileNotFoundError as error:
        raise UserError(f"'{path}' is missing; run snakemake to make it") from error
    except Exception as error:
        raise UserError(f"'{path}' is broken ({error}); delete it and run snakemake") from error


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


def _stored(folder: Path) -> int:
    path = folder / "verdicts.parquet"
    return len(read_table(path)[0]) if path.exists() else 0


def main() -> None:
    """Read the command line and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m regbench.collect", description=__doc__)
    parser.add_argument("manifest", help="the experiment's manifest, a JSON file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="take what has been made so far, unless more than that is stored already",
    )
    arguments = parser.parse_args()
    manifest = Manifest.read(arguments.manifest)
    tables = collect(manifest, arguments.partial)
    arguments.out.mkdir(parents=True, exist_ok=True)
    stored = _stored(arguments.out) if arguments.partial else 0
    made = len(tables.get("verdicts", ()))
    if made < max(stored, 1):
        print(
            f"{arguments.out}: keeping the {stored} stored verdicts; results/ holds {made} of this"
            " experiment"
        )
        return
    if not manifest.diagnoses:  # any more
        for name in ("diagnostics", "gallery"):
            (arguments.out / f"{name}.parquet").unlink(missing_ok=True)
    for name, table in tables.items():
        rows = pa.Table.from_pandas(table, preserve_index=False)
        write_table(arguments.out / f"{name}.parquet", rows, {"rows": len(table)})
    done = len(tables["runs"])
    print(
        f"{arguments.out}: {done} of {len(manifest.runs)} runs, {len(tables['verdicts'])} verdicts"
    )


if __name__ == "__main__":
    program(main)
