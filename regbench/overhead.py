"""How much of a run's time went into training, attacks and diagnoses, and how much elsewhere."""

import argparse
import json
import os
import time
from pathlib import Path

import pyarrow.parquet as pq

from regbench.errors import program


def computing(results: Path, since: float) -> float:
    """Return the seconds of work that the files made under `results` after `since` tell of.

    Interpreters, imports, reading and writing do not count.
    """
    records = [file for file in results.glob("*/*/*/*/run.json") if file.stat().st_mtime >= since]
    seconds = sum(json.loads(file.read_text(encoding="utf-8"))["seconds"] for file in records)
    for file in results.glob("*/*/*/*/*.parquet"):
        if file.stat().st_mtime >= since:
            about = json.loads(pq.read_schema(file).metadata[b"regbench"])
            # a suite tells of each of its attacks, a diagnosis of itself
            seconds += sum(told["seconds"] for told in about.get("attacks", {"": about}).values())
    return float(seconds)


def main() -> None:
    """Read the command line and print one line."""
    parser = argparse.ArgumentParser(prog="python -m regbench.overhead", description=__doc__)
    parser.add_argument("--since", type=float, required=True, help="when the run began, Unix time")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--cores", default="all", help="cores that were used: a number, or all")
    arguments = parser.parse_args()
    wall = time.time() - arguments.since
    busy = computing(arguments.results, arguments.since)
    if not busy:
        print("Nothing had to be trained, attacked or diagnosed.")
        return
    cores = os.cpu_count() or 1 if arguments.cores == "all" else int(arguments.cores)
    whole = wall * cores
    print(
        f"{wall:.0f} s on {cores} cores, of whose {whole:.0f} core-seconds {busy:.0f}"
        f" ({busy / whole:.0%}) were training, attacks and diagnoses; interpreters, imports, DAG,"
        f" tables, figures and idle cores took {1 - busy / whole:.0%}."
    )


if __name__ == "__main__":
    program(main)
