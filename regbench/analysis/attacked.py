"""A run under its attacks, as the stored rows tell it: what doubts and the masking panel ask."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

TOLERANCE = 1e-6
"""Within which two radii are one: float32 rounding of a pixel in [0, 1]."""

CLEAN = "regbench.attacks.clean"
AUTOATTACK = "regbench.attacks.autoattack"


@dataclass(frozen=True, eq=False)
class Attacked:
    """A run under one attack.

    Attributes:
        name: the attack's.
        label: how tables call it.
        member: the module of the attack.
        arguments: the attack's fields.
        epsilon: its radius, L∞.
        source: the network that it was crafted on; none: the judged one, white box.
        warnings: what it warned of.
        accuracy_after: of an ensemble, the accuracy that each of its attacks leaves, in order.
        verdicts: label, correct, distance and loss, by image.
    """

    name: str
    label: str
    member: str
    arguments: dict[str, Any]
    epsilon: float
    source: str | None
    warnings: str
    accuracy_after: dict[str, float]
    verdicts: pd.DataFrame

    @property
    def chance(self) -> float:
        """What the commonest label alone gets right, 0 to 1."""
        return float(self.verdicts["label"].value_counts(normalize=True).max())


Run = tuple[Attacked, ...]


def attacks_of(verdicts: pd.DataFrame, told: pd.DataFrame) -> Run:
    """Return the attacks on one run, from its verdicts and its evaluations; failed ones are not."""
    of = dict(iter(verdicts.set_index("image").groupby("attack", observed=True)))
    return tuple(
        Attacked(
            name=row["attack"],
            label=row["label"],
            member=row["member"],
            arguments=json.loads(row["arguments"]),
            epsilon=row["epsilon"],
            source=None if pd.isna(row["source"]) else row["source"],
            warnings=row["warnings"],
            accuracy_after=_of_ensemble(row.get("accuracy_after")),
            verdicts=of[row["attack"]],
        )
        for row in told.to_dict("records")
        if row["attack"] in of
    )


def _of_ensemble(told: object) -> dict[str, float]:
    """What was kept as JSON; nothing of an attack that is none, or of an older report."""
    return dict(json.loads(told)) if isinstance(told, str) else {}


def white_box(run: Run) -> Iterator[Attacked]:
    """Return the attacks that were crafted on the judged network itself."""
    return (one for one in run if one.source is None)


def of_one_radius(one: Attacked, other: Attacked) -> bool:
    """Tell whether both attacks have the same radius."""
    return abs(one.epsilon - other.epsilon) < TOLERANCE


def meet(one: Attacked, other: Attacked) -> bool:
    """Tell whether there is an image that both saw."""
    return not one.verdicts.index.intersection(other.verdicts.index).empty


def ahead(one: Attacked, other: Attacked) -> float:
    """Return by how much more withstand `one` than `other`, a share of the images that both saw."""
    mine, theirs = both(one, other, "correct")
    # counted before it is divided: 20 of 200 is 0.1, however many withstand each
    return (int(mine.sum()) - int(theirs.sum())) / len(mine)


def both(one: Attacked, other: Attacked, column: str) -> tuple[pd.Series, pd.Series]:
    """Return a column of both attacks' verdicts, on the images that both saw."""
    mine, others = one.verdicts[column].align(other.verdicts[column], join="inner")
    return mine, others
