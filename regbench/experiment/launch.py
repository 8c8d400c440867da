"""What a run needs when it starts: GPUs, a folder to itself, what stages are told, a forecast.

Imports no torch.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from regbench.errors import ERROR, UserError, report
from regbench.experiment.config import Experiment
from regbench.storage.locks import taken


def devices(asked: str) -> int:
    """Return how many GPUs there are to use.

    Args:
        asked: `device:` of the config; `cpu`: none, `cuda`: at least 1, `auto`: those there are.
    """
    return 0 if asked == "cpu" else max(int(asked == "cuda"), gpus())


def gpus() -> int:
    """Return how many GPUs there are, those that $CUDA_VISIBLE_DEVICES hides left out."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        # as CUDA reads it: what stands behind a negative number does not count
        named = (one.strip() for one in visible.split(","))
        return len(list(takewhile(lambda one: one and not one.startswith("-"), named)))
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    return listed.stdout.count("GPU ")


def export(experiment: Experiment) -> None:
    """Tell the stages, which never read the config, where data lie and what to run on.

    By environment, not by command line: a moved folder must not retrain anything.
    """
    told = {
        "REGBENCH_DATA": experiment.data_root,
        "REGBENCH_DEVICE": experiment.device,
        "REGBENCH_DOWNLOAD": str(int(experiment.download)),
        "REGBENCH_RUNS_PER_GPU": str(experiment.runs_per_gpu),
        "REGBENCH_TIME_LIMIT": str(experiment.time_limit or "inf"),
    }
    if experiment.deterministic:
        told["REGBENCH_DETERMINISTIC"] = "1"
        told["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # which cuBLAS needs for it
    # what the environment says goes before the config; an empty word says nothing
    os.environ |= {name: value for name, value in told.items() if not os.environ.get(name)}


def alone(folder: Path) -> int:
    """Return a lock on `folder`, held as long as it is open; end the program if another has it.

    In place of Snakemake's own lock, which outlives a process that was killed and then waits for a
    person.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    if not taken(lock):
        told = "another snakemake is at work in this folder; wait for it or use another folder"
        sys.exit(report(UserError(told)))
    return lock


def failures(folder: Path, since: float) -> list[str]:
    """Return what the logs below `folder` say of failed stages, `LOG: its one line`.

    Args:
        folder: where they lie.
        since: those written to after this, seconds since 1970.
    """
    logs = sorted(log for log in folder.rglob("*.log") if log.stat().st_mtime >= since)
    ends = [(log, log.read_text(errors="replace").splitlines()[-1:]) for log in logs]
    return [f"{log}: {line}" for log, end in ends for line in end if line.startswith(ERROR)]


def forecast(manifest: str, targets: Iterable[str], jobs: int) -> None:
    """Tell what making `targets` will cost, before the first job.

    A GPU that is asked for and absent ends the program here.

    Args:
        manifest: path of the experiment's.
        targets: files of its runs.
        jobs: GPUs or, where there is none, cores.
    """
    command = [sys.executable, "-W", "ignore", "-m", "regbench.forecast", manifest]
    done = subprocess.run(
        [*command, "--jobs", str(jobs)], input="\n".join(sorted(targets)), text=True, check=False
    )
    if done.returncode == 2:  # a user's mistake; a forecast that failed otherwise is not missed
        sys.exit(2)
