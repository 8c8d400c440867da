"""Where the files of an experiment lie.

results/DATASET/data-KEY.safetensors, results/DATASET/MODEL/RULE/SEED-KEY/ and, in there,
SUITE-KEY.parquet, diagnostics-KEY.parquet and gallery-KEY.parquet. KEY is the hash of the card, so
experiments share the cells they agree on.
"""

import os
from pathlib import Path

from regbench.experiment.cards import DiagnosisCard, SuiteCard

RESULTS = "results"

PRETRAINED = "pretrained"
"""In place of a rule's name, for networks that were trained elsewhere."""

DIAGNOSTICS, GALLERY = "diagnostics", "gallery"
"""What lies beside a run's suites, so that no suite can have these names."""


def data_root() -> Path:
    """Return where data sets and weights from elsewhere lie: $REGBENCH_DATA, else `data`."""
    return Path(os.environ.get("REGBENCH_DATA") or "data")


def data(dataset: str, key: str) -> str:
    """Return where a prepared data set lies."""
    return f"{RESULTS}/{dataset}/data-{key}.safetensors"


def run(dataset: str, model: str, rule: str, name: str) -> str:
    """Return the folder of a training's files; `name` is SEED-KEY."""
    return f"{RESULTS}/{dataset}/{model}/{rule}/{name}"


def diagnosis(folder: str, card: DiagnosisCard) -> str:
    """Return where the diagnostics of the run in `folder` lie."""
    return f"{folder}/{DIAGNOSTICS}-{card.key}.parquet"


def gallery(folder: str, card: DiagnosisCard) -> str:
    """Return where the images lie that its diagnosis keeps."""
    return f"{folder}/{GALLERY}-{card.key}.parquet"


def verdicts(folder: str, suite: str, card: SuiteCard) -> str:
    """Return where the verdicts of a suite on the run in `folder` lie."""
    return f"{folder}/{suite}-{card.key}.parquet"
