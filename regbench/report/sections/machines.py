"""Where these numbers come from: machines, versions, commits, time."""

from regbench.analysis.rows import Rows
from regbench.report.wording import counted, items

TITLE = "Where these numbers come from"


def section(rows: Rows) -> str:
    """Return machines, versions and commits as a list, each with its number of runs."""
    return items([f"{name}: {told}" for name, told in machines(rows).items()])


def machines(rows: Rows) -> dict[str, str]:
    """Return days, machines, versions, commits and time, each with its number of runs."""
    columns = ["date", "device", "instructions", "threads", "platform", "python", "torch"]
    columns += ["torchvision", "robustbench", "pyautoattack", "numpy", "commit", "dirty"]
    known = [column for column in columns if column in rows.runs]  # older runs have no date
    train, attack = rows.runs["train_seconds"].sum(), rows.evaluations["seconds"].sum()
    time = f"{train:.0f} s of training steps, {attack:.0f} s of attacking, all runs added"
    return {**{column: counted(rows.runs[column]) for column in known}, "time": time}
