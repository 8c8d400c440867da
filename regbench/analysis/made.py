"""What the files of a cell under results/ hold of its training."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from regbench.analysis.known import Judged, Known
from regbench.errors import UserError
from regbench.experiment.manifest import Manifest, Run
from regbench.storage.seals import DamagedError, MissingError, digest_of, read_record, read_table

UNTOLD = ("shape", "classes", "validation_clean", "file")
"""Of run.json, what the network needs to be built anew, and what one from elsewhere was."""


def made(manifest: Manifest, run: Run, partial: bool) -> Known | None:
    """Return what there is of a cell.

    Args:
        manifest: of the experiment.
        run: the cell.
        partial: leave out what has not been made yet, all of it if that is the training, instead of
            refusing.

    Raises:
        UserError: a file is missing or broken.
    """
    record, curve = Path(run.folder, "run.json"), Path(run.folder, "curve.csv")
    if partial and not (record.exists() and curve.exists()):
        return None
    trained = _record(run, record)
    judged = {key: _found(trained, path, partial) for key, path in manifest.judged(run).items()}
    examined = {
        name: _found(trained, path, partial)
        for name, path in (("diagnostics", run.diagnosis), ("gallery", run.gallery))
        if path
    }
    return Known(
        record=trained,
        curve=_curve(curve),
        suites={key: _verdicts(*found) for key, found in judged.items() if found},
        diagnosis=manifest.diagnosed(run),
        examined={name: _plain(found[0]) for name, found in examined.items() if found},
    )


def _found(
    trained: pd.DataFrame, path: str, partial: bool
) -> tuple[pa.Table, dict[str, Any]] | None:
    """Return a table of what was found of a run's network; none: not made yet.

    A training that was repeated leaves tables of another network until they are made again.
    """
    if partial and not Path(path).exists():
        return None
    rows, about = read_table(Path(path))
    if "weights" not in about:  # written before this was told
        return rows, about
    if about["weights"] == trained[f"{about['card']['checkpoint']}_weights"].item():
        return rows, about
    if partial:
        return None
    raise DamagedError(Path(path), "it is of other weights than those beside it")


def _record(run: Run, path: Path) -> pd.DataFrame:
    record = read_record(path)
    if record["card"] != run.card.key:
        raise DamagedError(path, f"it is of the run {record['card']}, not of {run.card.key}")
    files = record.pop("files")
    for name, digest in files.items():
        if name in {"card.json", "curve.csv"} and digest_of(path.with_name(name)) != digest:
            raise DamagedError(path.with_name(name), "its digest is not the one in run.json")
    known = {
        "rule": run.rule,
        "cost": run.cost,
        "epsilon": run.card.epsilon,
        "card": run.card.key,
        "best_weights": files.get("best.safetensors"),
        "last_weights": files.get("last.safetensors"),
        **{name: json.dumps(told, sort_keys=True) for name, told in run.card.made.items()},
    }
    return pd.DataFrame([{**known, **record}]).drop(columns=[*UNTOLD], errors="ignore")


def _verdicts(table: pa.Table, about: dict[str, Any]) -> Judged:
    rows = table.to_pandas()
    told = [
        {
            "attack": attack,
            "arguments": json.dumps(one["arguments"], sort_keys=True),
            "status": one.get("status", "ok"),
            "seconds": one["seconds"],
            "batch_size": one.get("batch_size"),
            "precision": one.get("precision", about["card"].get("precision", "fp32")),
            "accuracy_after": json.dumps(one["accuracy_after"]) if _staged(one) else None,
            "warnings": "; ".join(one["warnings"]),
            "split": about["card"]["split"],
            "checkpoint": about["card"]["checkpoint"],
        }
        for attack, one in about["attacks"].items()
    ]
    return Judged(rows.assign(fooled_by=rows.get("fooled_by")), pd.DataFrame(told))


def _staged(told: dict[str, Any]) -> bool:
    """Tell whether the accuracy after each attack of an ensemble is known."""
    return bool(told.get("accuracy_after"))


def _plain(rows: pa.Table) -> pd.DataFrame:
    """Return rows, their dictionaries as text: those of two files do not agree."""
    frame: pd.DataFrame = rows.to_pandas()
    return frame.astype(dict.fromkeys(frame.select_dtypes("category"), str))


def _curve(path: Path) -> pd.DataFrame:
    try:
        curve = pd.read_csv(path)
    except FileNotFoundError as error:
        raise MissingError(path) from error
    except Exception as error:
        raise UserError(f"'{path}' is broken ({error}); delete it and run snakemake") from error
    # nothing has a type
    return curve.astype({"epoch": int, **dict.fromkeys(curve.columns.drop("epoch"), float)})
