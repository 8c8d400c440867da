"""What the harness itself costs: planning, a run in which nothing is to be done, and each job.

    python benchmarks/harness.py      # to benchmarks/results/harness.json

Measured in a copy of the repository; needs Snakemake.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from record import RESULTS, write

from regbench.overhead import computing

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "rules", "config", "profiles", "regbench", "reports")

TINY = {
    "experiment": "tiny",
    "seeds": [0, 1, 2, 3],
    "training": {"epochs": 1, "batch_size": 64, "learning_rate": 0.1},
    "regularizers": {"natural": None, "fgsm_at": None},
    "attacks": {"white_box": {"clean": {"images": 50}, "fgsm": {"images": 50}}},
    "datasets": {
        "digits": {"epsilon": 0.25, "validation": 897, "models": {"small_cnn": {"width": 2}}}
    },
}
CELLS = 5_000


def snakemake(folder: Path, *arguments: str) -> float:
    """Run Snakemake in a copy and return its wall time in seconds."""
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", *arguments]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


def copy_to(folder: Path) -> None:
    """Copy the workflow and write two configs: a tiny one, and one of many cells."""
    for part in PARTS:
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    many = {**TINY, "experiment": "many", "seeds": list(range(CELLS // 2))}
    for config in (TINY, many):
        text = yaml.safe_dump(config, sort_keys=False)
        (folder / f"config/{config['experiment']}.yaml").write_text(text, encoding="utf-8")


def measure(folder: Path) -> dict[str, float]:
    """Return each cost in seconds."""
    told = {
        "plan of config/config.yaml, first time": snakemake(folder, "-n"),
        "plan of config/config.yaml": snakemake(folder, "-n"),
        f"plan of {CELLS} trainings": snakemake(folder, "-n", "--configfile", "config/many.yaml"),
    }
    began = time.time()
    wall = snakemake(folder, "--cores", "1", "--configfile", "config/tiny.yaml")
    jobs = 2 * len(TINY["seeds"]) * len(TINY["regularizers"]) + 4
    told["job, on one core"] = (wall - computing(folder / "results", began)) / jobs
    told["run with nothing to do"] = snakemake(
        folder, "--cores", "1", "--configfile", "config/tiny.yaml"
    )
    return told


def main() -> None:
    """Measure in a temporary folder, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        copy_to(Path(folder))
        told = measure(Path(folder))
    for name, seconds in told.items():
        print(f"{seconds:7.2f} s  {name}")
    write(out / "harness.json", torch.device("cpu"), {"seconds": told})


if __name__ == "__main__":
    main()
