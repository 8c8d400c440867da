"""What the harness itself costs: planning, a run in which nothing is to be done, and each job.

    python benchmarks/harness.py      # to benchmarks/results/harness.json

Measured in a copy of the repository; needs Snakemake.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from checkout import ROOT
from record import RESULTS, at_least_one, write

from regbench.overhead import computing

PARTS = ("Snakefile", "rules", "config", "profiles", "regbench", "reports")

TINY = {
    "experiment": "tiny",
    "training": {"epochs": 1, "batch_size": 64, "learning_rate": 0.1},
    "regularizers": {"natural": None, "fgsm_at": None},
    "attacks": {"white_box": {"clean": {"images": 50}, "fgsm": {"images": 50}}},
    "datasets": {
        "digits": {"epsilon": 0.25, "validation": 897, "models": {"small_cnn": {"width": 2}}}
    },
}


def run(folder: Path, *arguments: str) -> str:
    """Run Snakemake in a copy and return what it printed."""
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "snakemake", *arguments]
    done = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout + done.stderr


def seconds(folder: Path, *arguments: str) -> float:
    """Run Snakemake in a copy and return its wall time."""
    started = time.perf_counter()
    run(folder, "--quiet", "all", *arguments)
    return time.perf_counter() - started


def jobs(folder: Path, *arguments: str) -> int:
    """Return how many jobs a dry run plans, but for `all`, which does nothing."""
    planned = run(folder, "-n", "--quiet", "rules", *arguments)
    table = dict(re.findall(r"^(\w+) +(\d+)$", planned, flags=re.MULTILINE))
    return int(table["total"]) - int(table["all"])


def copy_to(folder: Path, seeds: int, cells: int) -> None:
    """Copy the workflow and write two configs: a tiny one, and one of many cells."""
    for part in PARTS:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    for name, count in (("tiny", seeds), ("many", cells // len(TINY["regularizers"]))):
        config = {**TINY, "experiment": name, "seeds": list(range(count))}
        text = yaml.safe_dump(config, sort_keys=False)
        (folder / f"config/{name}.yaml").write_text(text, encoding="utf-8")


def measure(folder: Path, cells: int) -> tuple[dict[str, float], int]:
    """Return each cost in seconds, and of how many jobs the cost of a job is the mean."""
    tiny, many = (("--configfile", f"config/{name}.yaml") for name in ("tiny", "many"))
    told = {
        "plan of config/config.yaml, first time": seconds(folder, "-n"),
        "plan of config/config.yaml": seconds(folder, "-n"),
        f"plan of {cells} trainings": seconds(folder, "-n", *many),
    }
    planned = jobs(folder, *tiny)
    began = time.time()
    wall = seconds(folder, "--cores", "1", *tiny)
    told["job, on one core"] = (wall - computing(folder / "results", began)) / planned
    told["run with nothing to do"] = seconds(folder, "--cores", "1", *tiny)
    return told, planned


def main() -> None:
    """Measure in a temporary folder, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--seeds", type=at_least_one, default=4, help="of the run whose jobs are timed"
    )
    parser.add_argument(
        "--cells", type=at_least_one, default=5_000, help="trainings of the large plan"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy_to(Path(folder), asked.seeds, asked.cells)
        told, planned = measure(Path(folder), asked.cells)
    for name, one in told.items():
        print(f"{one:7.2f} s  {name}")
    write(asked.out / "harness.json", torch.device("cpu"), {"jobs": planned, "seconds": told})


if __name__ == "__main__":
    main()
