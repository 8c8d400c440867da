"""The evaluation doubted: rules that the verdicts of a sound evaluation keep, and who breaks them.

A broken rule is no proof of a mistake, it is a reason to look before the number is quoted. That
images stay in [0, 1] is no rule here: the referee, regbench.evaluation.verdicts, clips them itself.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

import pandas as pd

from regbench.analysis.attacked import Run, attacks_of
from regbench.analysis.rows import RUN, Rows
from regbench.analysis.soundness import (
    Doubt,
    above_clean,
    climbing,
    every_other,
    fools_fewer,
    huge,
    leaves_the_ball,
    loses_loss,
    not_finite,
    one_by_one,
    pairs,
    transferred,
    unattacked,
    with_less,
    withstands_a_huge_radius,
)

COLUMNS = ["dataset", "model", "regularizer", "method", "seed", "attack", "rule", "told"]
NONE = pd.DataFrame(columns=COLUMNS)


@dataclass(frozen=True)
class Rule:
    """What a sound evaluation keeps.

    Attributes:
        name: what a number is flagged with that breaks it.
        definition: what holds, in one line.
        source: who says so.
        check: the doubts about one run.
        looks: at how many attacks, or pairs of them, it looks for that.
    """

    name: str
    definition: str
    source: str
    check: Callable[[Run], Iterator[Doubt]]
    looks: Callable[[Run], int]


def doubts(rows: Rows) -> pd.DataFrame:
    """Return one row per run, attack and rule that is broken: `COLUMNS`, `told` with the numbers.

    Args:
        rows: the experiment's.
    """
    broken = [
        (*key, doubt.attack, rule.name, doubt.told)
        for key, run in _runs(rows)
        for rule in RULES
        for doubt in rule.check(run)
    ]
    return pd.DataFrame(broken, columns=COLUMNS)


def silent(rows: Rows) -> list[Rule]:
    """Return the rules that find nothing to compare in any run: nobody can break them."""
    runs = [run for _, run in _runs(rows)]
    return [rule for rule in RULES if not any(map(rule.looks, runs))]


def _runs(rows: Rows) -> Iterator[tuple[tuple[Hashable, ...], Run]]:
    told = dict(iter(rows.evaluations.groupby(RUN, observed=True)))
    for key, verdicts in rows.verdicts.groupby(RUN, observed=True):
        yield key, attacks_of(verdicts, told[key])


def flags(table: pd.DataFrame, doubts: pd.DataFrame) -> pd.Series:
    """Return the names of the rules that each row of `table` breaks, joined by `; `, or nothing.

    Args:
        table: of runs and attacks; without a column `seed`, any seed's doubt counts.
        doubts: of `doubts`.
    """
    keys = [key for key in (*RUN, "attack") if key in table]
    named: dict[tuple[object, ...], list[str]] = {}
    for row in doubts.to_dict("records"):
        names = named.setdefault(tuple(row[key] for key in keys), [])
        names += [row["rule"]] if row["rule"] not in names else []
    rows = table[keys].itertuples(index=False, name=None)
    return pd.Series(["; ".join(named.get(key, ())) for key in rows], table.index, dtype=object)


REFEREE = "by construction of the referee, regbench.evaluation.verdicts"
EVALUATING = "Carlini et al. 2019, arXiv:1902.06705"
OBFUSCATED = "Athalye et al. 2018, arXiv:1802.00420"

RULES = (
    Rule(
        "outside the ball",
        "an adversarial image lies within ε of the image, L∞",
        REFEREE,
        leaves_the_ball,
        len,
    ),
    Rule(
        "not finite",
        "loss and distance of every image are numbers",
        REFEREE,
        not_finite,
        len,
    ),
    Rule(
        "above clean accuracy",
        "an image that is wrong without attack is wrong under it",
        REFEREE,
        above_clean,
        pairs(unattacked),
    ),
    Rule(
        "weaker with more steps",
        "a white-box attack fools no fewer images with more steps",
        OBFUSCATED,
        fools_fewer(with_less("steps")),
        pairs(with_less("steps")),
    ),
    Rule(
        "weaker with more restarts",
        "a white-box attack fools no fewer images with more restarts",
        EVALUATING,
        fools_fewer(with_less("restarts")),
        pairs(with_less("restarts")),
    ),
    Rule(
        "weaker at a larger radius",
        "a white-box attack fools no fewer images at a larger ε",
        OBFUSCATED,
        fools_fewer(with_less("epsilon")),
        pairs(with_less("epsilon")),
    ),
    Rule(
        "AutoAttack beaten",
        "no white-box attack of AutoAttack's radius or less fools more images than AutoAttack",
        "Croce & Hein 2020, arXiv:2003.01690",
        fools_fewer(every_other),
        pairs(every_other),
    ),
    Rule(
        "loss falls with more steps",
        "the mean cross entropy that a white-box attack reaches is no lower with more steps",
        EVALUATING,
        loses_loss(climbing(with_less("steps"))),
        pairs(climbing(with_less("steps"))),
    ),
    Rule(
        "withstands a huge radius",
        "accuracy under a white-box attack of several steps at ε ≥ 0.5 is at most chance",
        OBFUSCATED,
        withstands_a_huge_radius,
        one_by_one(huge),
    ),
    Rule(
        "black box beats white box",
        "no transferred attack fools more images than the strongest white-box attack of its radius",
        OBFUSCATED,
        fools_fewer(transferred),
        pairs(transferred),
    ),
)
