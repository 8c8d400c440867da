"""What of an experiment its report does not hold yet, in words."""

from collections import Counter, defaultdict
from itertools import starmap

import pandas as pd

from regbench.analysis.rows import Rows
from regbench.experiment.manifest import Manifest, Run

TRAINING = ["dataset", "model", "regularizer", "seed"]

Key = tuple[object, ...]


def unfinished(rows: Rows, manifest: Manifest) -> str:
    """Return what the config asks for and the report lacks; nothing, if it is whole.

    Args:
        rows: the report's.
        manifest: the experiment's.
    """
    trained, judged = _keys(rows.runs, TRAINING), _keys(rows.evaluations, [*TRAINING, "attack"])
    there = [run for run in manifest.runs if _key(run) in trained]
    absent = [run for run in manifest.runs if _key(run) not in trained]
    lacking = _listed([run for run in absent if not run.weights])
    given = _listed([run for run in absent if run.weights])
    waiting = Counter(
        attack
        for run in there
        for attack in {
            label for name, label in _asked(run, manifest) if (*_key(run), name) not in judged
        }
    )
    examined = _keys(rows.diagnostics, TRAINING)
    unexamined = sum(bool(run.diagnosis) and _key(run) not in examined for run in there)
    if not absent and not waiting and not unexamined:
        return ""
    attacks = [f"{attack} ({count} trainings)" for attack, count in sorted(waiting.items())]
    parts = [
        f"Not finished: {len(there)} of {len(manifest.runs)} trainings are here.",
        f"Not trained: {'; '.join(lacking)}." if lacking else "",
        f"Pretrained, and not read: {'; '.join(given)}." if given else "",
        f"Not judged by {', '.join(attacks)}." if attacks else "",
        f"Not examined by diagnostics: {unexamined} trainings." if unexamined else "",
    ]
    return " ".join(filter(None, parts))


def _listed(runs: list[Run]) -> list[str]:
    """Return methods with their seeds, those of one data set and network together."""
    tasks: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        tasks[f"{run.dataset}, {run.model}"][run.label].append(str(run.seed))
    return [
        f"{task}: {', '.join(starmap(_seeded, found.items()))}" for task, found in tasks.items()
    ]


def _seeded(method: str, seeds: list[str]) -> str:
    return f"{method} (seed {', '.join(seeds)})"


def _asked(run: Run, manifest: Manifest) -> list[tuple[str, str]]:
    """Return name and label of each attack that a cell is to be judged by, of a sweep the whole."""
    labels = {entry.name: entry.family or entry.label for entry in manifest.attacks[run.dataset]}
    suites = [manifest.suites[path] for path in run.verdicts.values()]
    return [(name, labels[name]) for suite in suites for name in suite.attacks]


def _keys(table: pd.DataFrame, columns: list[str]) -> set[Key]:
    return set(table[columns].astype({"seed": int}).itertuples(index=False, name=None))


def _key(run: Run) -> Key:
    return run.dataset, run.model, run.regularizer, run.seed
