"""Kills a workflow at random moments, lets it go on, and compares what it leaves with a quiet run.

    python tests/faults/kills.py --kills 50      # n kills survived, identical or not

Each kill is drawn: when (some time after a stage, itself drawn, has begun); what (Snakemake and all
its jobs, Snakemake alone so that its jobs live on as orphans, or one job); and how (SIGTERM or
SIGKILL). What is left is then started again by the same command, as by a person who knows nothing.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "rules", "config", "profiles", "regbench")

CONFIG = {
    "experiment": "faults",
    "seeds": [0],
    "training": {"epochs": 10, "batch_size": 16, "learning_rate": 0.05},
    "regularizers": {"fgsm_at": None, "sat_r2": {"weight": 1, "alpha": 0.1}},
    "attacks": {
        "white_box": {
            "clean": {},
            "pgd": {"steps": 10},
            "more": {"attack": "pgd", "steps": 20},
        },
        "autoattack": {"autoattack": {"images": 4}},
    },
    "datasets": {
        "digits": {"epsilon": 0.2, "validation": 97, "models": {"small_cnn": {"width": 4}}}
    },
}
TABLES = ("verdicts", "evaluations", "runs", "curves", "diagnostics", "gallery")
CLOCKS = ("seconds", "train_seconds", "peak_memory", "date")
"""Columns that no two runs share, the day not if midnight passes between them."""


STAGES = ("regbench.train", "regbench.train", "regbench.attack", "regbench.attack",
          "regbench.diagnose", "regbench.forecast", "regbench.collect")  # fmt: skip
RETRIED = {
    "regbench.prepare", "regbench.train", "regbench.attack", "regbench.diagnose", "regbench.collect"
}  # fmt: skip
"""Jobs that Snakemake itself starts again when they are killed."""


@dataclass(frozen=True)
class Kill:
    """What is killed, and how."""

    target: str
    number: signal.Signals


KILLS = [
    Kill(target, number)
    for target in ("everything", "snakemake", "a job")
    for number in (signal.SIGTERM, signal.SIGKILL)
]


class Bench:
    """A copy of the workflow, and the Snakemake that may be at work in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in PARTS:
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
        (folder / "config/faults.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the workflow, in a process group of its own."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all"]
        environment = {
            **os.environ, "PYTHONPATH": str(self.folder), "REGBENCH_KEEP_EVERY": "0.2",
            "REGBENCH_DEVICE": "cpu",
        }  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--configfile", "config/faults.yaml"],
                cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def jobs(self) -> list[int]:
        """Return the process numbers of the stages that run in this copy."""
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and self._ours(entry)
        ]

    def clear(self) -> None:
        """Remove every result, so that there is something to do again."""
        for name in ("results", "reports"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _ours(self, entry: Path) -> bool:
        try:
            here = (entry / "cwd").readlink() == self.folder
            return here and b"-m\0regbench." in (entry / "cmdline").read_bytes()
        except OSError:  # it has ended
            return False


def wait_for(stage: str, bench: Bench, process: subprocess.Popen[bytes]) -> None:
    """Wait until `stage` is at work, or Snakemake has ended."""
    while process.poll() is None and stage not in map(_stage, bench.jobs()):
        time.sleep(0.05)


def kill(bench: Bench, process: subprocess.Popen[bytes], drawn: Kill, chance: random.Random) -> str:
    """Carry out what was drawn; return what was at work then."""
    jobs = bench.jobs()
    stages = [_stage(job) for job in jobs]
    if drawn.target == "a job" and jobs:
        victim = chance.randrange(len(jobs))
        _send(jobs[victim], drawn.number)
        return stages[victim]
    _send(process.pid, drawn.number)
    if drawn.target == "everything":
        for job in jobs:
            _send(job, drawn.number)
    return ", ".join(sorted(stages)) or "no job"


def _stage(job: int) -> str:
    try:
        words = Path(f"/proc/{job}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "a job that ended"
    return next((w.decode() for w in words if w.startswith(b"regbench.")), "a job")


def _send(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def survive(bench: Bench, kills: int, seed: int) -> Iterator[str]:
    """Kill the workflow `kills` times, starting it again each time; at last let it finish."""
    chance = random.Random(seed)
    done = 0
    while done < kills:
        process = bench.start()
        wait_for(chance.choice(STAGES), bench, process)
        try:
            process.wait(chance.uniform(0, 3))
        except subprocess.TimeoutExpired:
            drawn = chance.choice(KILLS)
            stages = kill(bench, process, drawn, chance)
            done += 1
            yield f"{done}: {drawn.number.name} to {drawn.target} during {stages}"
            ended = process.wait(600)
            if ended and drawn.target == "a job" and stages in RETRIED:
                raise SystemExit(f"the rest did not go on; see {bench.folder}/log") from None
        else:
            if process.returncode:
                raise SystemExit(f"it did not go on; see {bench.folder}/log")
            bench.clear()
            yield "finished between two kills; beginning anew"
    if bench.start().wait(1200):
        raise SystemExit(f"it did not finish; see {bench.folder}/log")


def differences(ours: Path, theirs: Path) -> list[str]:
    """Return what differs between two finished copies, clocks left out."""
    weights = sorted(path.relative_to(ours) for path in ours.glob("results/**/*.safetensors"))
    apart = [
        str(path) for path in weights if (ours / path).read_bytes() != (theirs / path).read_bytes()
    ]
    for name in TABLES:
        path = f"reports/faults/{name}.parquet"
        tables = [pd.read_parquet(folder / path) for folder in (ours, theirs)]
        kept = [table.drop(columns=table.columns.intersection(CLOCKS)) for table in tables]
        if not kept[0].equals(kept[1]):
            apart.append(f"{path} ({', '.join(_unequal(*kept)) or 'its shape'})")
    left = [str(path.relative_to(ours)) for path in ours.glob("results/**/state")]
    return apart + [f"{path} is left over" for path in left]


def _unequal(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[str]:
    shared = ours.columns.intersection(theirs.columns)
    return [name for name in shared if not ours[name].equals(theirs[name])]


def main() -> None:
    """Read the command line, kill, compare, tell."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as quiet, tempfile.TemporaryDirectory() as hurt:
        started = time.perf_counter()
        whole, bench = Bench(Path(quiet).resolve()), Bench(Path(hurt).resolve())
        if whole.start().wait(1200):
            raise SystemExit((whole.folder / "log").read_text())
        for line in survive(bench, arguments.kills, arguments.seed):
            print(line, flush=True)
        apart = differences(whole.folder, bench.folder)
    seconds = time.perf_counter() - started
    print(
        f"{arguments.kills} kills survived of {arguments.kills}; byte-identical:"
        f" {'no: ' + ', '.join(apart) if apart else 'yes'}; {seconds:.0f} s"
    )
    sys.exit(bool(apart))


if __name__ == "__main__":
    main()
