"""Robust, or only apparently so? Each run's signs of masked gradients, and a verdict by a rule.

From stored rows alone: regbench.attack's verdicts, and what regbench.diagnose measured. What an
experiment lacks, an attack or the diagnostics, is a quantity that is missing, and is told.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isnan

import pandas as pd

from regbench.analysis.attacked import attacks_of
from regbench.analysis.criteria import AT_CHANCE, KEEPS, PROMISES, SIGNS, Criterion
from regbench.analysis.overfitting import onsets
from regbench.analysis.rows import RUN, Rows
from regbench.analysis.symptoms import QUANTITIES, Case

NEEDED = ("zero_gradient", "fgsm_to_ifgsm_loss_ratio")
"""Quantities without which nobody is called robust."""

SEARCHING = ("autoattack", "pgd_restarted")
"""Quantities of which nobody is called robust without any: one climb from one start can miss."""


@dataclass(frozen=True)
class Finding:
    """A run's quantities, held against the criteria."""

    values: dict[str, float]

    def met(self, criterion: Criterion) -> bool:
        """Tell whether a criterion is known to be met."""
        return criterion.met(self.values) is True

    def unmet(self, criterion: Criterion) -> bool:
        """Tell whether a criterion is known not to be met."""
        return criterion.met(self.values) is False

    @property
    def signs(self) -> list[Criterion]:
        """The signs of masking that are there."""
        return [one for one in SIGNS if self.met(one)]

    @property
    def missing(self) -> list[Criterion]:
        """The signs that could not be looked for."""
        return [one for one in SIGNS if one.met(self.values) is None]

    @property
    def examined(self) -> bool:
        """Whether enough was measured to call a run robust."""
        missing = {name for name, value in self.values.items() if isnan(value)}
        return missing.isdisjoint(NEEDED) and not missing.issuperset(SEARCHING)

    @property
    def decisive(self) -> list[Criterion]:
        """The criteria that the verdict rests on."""
        if self.met(AT_CHANCE):
            return [AT_CHANCE]
        if self.met(PROMISES) and self.signs:
            return self.signs
        return [one for one in (PROMISES, KEEPS) if one.met(self.values) is not None]


VERDICTS: tuple[tuple[str, str, Callable[[Finding], bool]], ...] = (
    (
        "collapsed",
        "clean accuracy is at chance",
        lambda found: found.met(AT_CHANCE),
    ),
    (
        "pseudo-robust",
        "looks robust, and shows a sign of masked gradients",
        lambda found: found.met(PROMISES) and bool(found.signs),
    ),
    (
        "not robust",
        "does not look robust, or does not withstand the strongest attack",
        lambda found: found.unmet(PROMISES) or found.unmet(KEEPS),
    ),
    (
        "robust",
        "withstands the strongest attack, AutoAttack or restarts among them; was examined, and"
        " shows no sign",
        lambda found: found.met(KEEPS) and found.examined,
    ),
    (
        "unknown",
        "attacks or diagnostics are missing",
        lambda _: True,
    ),
)
"""Name, meaning, and when; the first that holds is the verdict."""


def verdict(values: dict[str, float]) -> dict[str, str]:
    """Return the verdict on a run, the reasons and what is missing, by the written rule.

    Args:
        values: each of `QUANTITIES`, NaN where it is missing.
    """
    found = Finding(values)
    return {
        "verdict": next(name for name, _, holds in VERDICTS if holds(found)),
        "reasons": "; ".join(one.told(values) for one in found.decisive),
        "missing": "; ".join(one.name for one in found.missing),
    }


COLUMNS = [*RUN, "verdict", "reasons", "missing", *QUANTITIES, "overfitting_onset",
           "overfitting_drop"]  # fmt: skip
NONE = pd.DataFrame(columns=COLUMNS)


def panel(rows: Rows) -> pd.DataFrame:
    """Return one row per run: its verdict with the reasons, and every quantity, `COLUMNS`.

    A run that nothing was asked of yet, be it that others are crafted on it, has none.

    Args:
        rows: the experiment's.
    """
    table = pd.DataFrame(
        _judged(rows), columns=[*RUN, "verdict", "reasons", "missing", *QUANTITIES]
    )
    overfit = onsets(rows).rename(
        columns={"onset": "overfitting_onset", "drop": "overfitting_drop"}
    )
    keys = dict.fromkeys(RUN[:-1], str)
    return table.merge(overfit.astype(keys), "left", on=RUN, validate="1:1")


def _judged(rows: Rows) -> Iterator[dict[str, object]]:
    told = dict(iter(rows.evaluations.groupby(RUN, observed=True)))
    measured = dict(iter(rows.diagnostics.groupby(RUN, observed=True)))
    verdicts = dict(iter(rows.verdicts.groupby(RUN, observed=True)))
    for run in rows.runs.to_dict("records"):
        key = tuple(run[name] for name in RUN)
        if key not in told and key not in measured:
            continue
        case = Case(
            epsilon=run["epsilon"],
            attacks=attacks_of(verdicts[key], told[key]) if key in verdicts else (),
            measured=measured.get(key, rows.diagnostics.iloc[:0]),
        )
        values = {name: float(quantity(case)) for name, quantity in QUANTITIES.items()}
        yield {**dict(zip(RUN, key, strict=True)), **verdict(values), **values}
