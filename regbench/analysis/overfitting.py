"""Catastrophic overfitting, found in a stored learning curve."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from regbench.analysis.rows import RUN, Rows

FALL = 0.2
"""Accuracy that must be lost: Wong et al.'s train_fgsm.py ends a training at a fall of 0.2."""

COLUMNS = [*RUN, "onset", "drop"]


class Overfitting(NamedTuple):
    """Where robustness was lost, and how much of it.

    Attributes:
        onset: epoch, from 1; none: it was not.
        drop: accuracy, 0 to 1: the best before the onset minus the lowest from there on.
    """

    onset: int | None
    drop: float


def overfitting(curve: pd.DataFrame) -> Overfitting:
    """Return where a training overfits catastrophically.

    Wong, Rice & Kolter 2020 (arXiv:2001.03994): FGSM training suddenly loses its accuracy under
    multi-step attacks and keeps the rest. The onset is the first epoch whose validation accuracy
    under I-FGSM lies more than 20 points below the best before it, while the clean validation
    accuracy does not: a network that loses both has collapsed. A network that was never robust has
    nothing to lose, hence no onset.

    Args:
        curve: of one run: epoch, validation_ifgsm and validation_clean, accuracies from 0 to 1.
    """
    curve = curve.sort_values("epoch")
    epoch = curve["epoch"].to_numpy()
    robust, clean = (curve[f"validation_{name}"].to_numpy() for name in ("ifgsm", "clean"))
    fallen = _below_best(robust) > FALL
    kept = _below_best(clean) <= FALL
    if not (fallen & kept).any():
        return Overfitting(None, 0.0)
    onset = int((fallen & kept).argmax())
    return Overfitting(
        int(epoch[onset]), float(np.nanmax(robust[:onset]) - np.nanmin(robust[onset:]))
    )


def onsets(rows: Rows) -> pd.DataFrame:
    """Return one row per run, `COLUMNS`: the onset is missing where there is none.

    Args:
        rows: the experiment's.
    """
    told = [(*key, *overfitting(curve)) for key, curve in rows.curves.groupby(RUN, observed=True)]
    table = pd.DataFrame(told, columns=COLUMNS)
    return table.astype({"onset": "Int64", "drop": float})


def _below_best(accuracy: np.ndarray) -> np.ndarray:
    """How far each epoch lies below the best so far."""
    below: np.ndarray = np.fmax.accumulate(accuracy) - accuracy
    return below
