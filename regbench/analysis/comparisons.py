"""Is a difference real? Each method against reference methods, on the images that both saw.

Two questions that one number cannot answer (Dietterich 1998; Bouthillier et al. 2021,
arXiv:2103.03098):

* do *these trained networks* differ on images of this kind? The paired test's p, Holm-corrected;
* do *the methods* differ, whatever the seed? The interval over seeds and images together, and the
  verdict on equivalence that is drawn from it; with one seed in common there is no such verdict.

Both are of `regbench.analysis.statistics`.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from regbench.analysis.attacked import AUTOATTACK, CLEAN, TOLERANCE
from regbench.analysis.rows import Rows, elsewhere, of_trained, unswept, widest
from regbench.analysis.statistics import Scores, interval, paired_test, verdict
from regbench.errors import UserError, did_you_mean

Cell = tuple[str, str, str, str]
"""(data set, network, regularizer, attack)"""

REFERENCES = ("fgsm_at", "pgd_at")
"""Compared with unless the config says otherwise: single-step and multi-step training."""

MARGIN = 0.05
"""Difference of accuracies up to which two methods are on par, unless the config says otherwise."""

ONE_SEED = "one seed"
"""In place of a verdict on methods: of one training each, an interval knows of images alone."""

INTERVALS = [
    "dataset", "model", "regularizer", "method", "attack", "label", "n", "seeds", "accuracy",
    "low", "high", "over",
]  # fmt: skip
COLUMNS = [
    "dataset", "model", "regularizer", "method", "reference", "against", "attack", "label", "n",
    "seeds", "difference", "low", "high", "low_90", "high_90", "over", "more", "fewer", "p",
    "p_holm", "margin", "verdict",
]  # fmt: skip
NONE = pd.DataFrame(columns=COLUMNS)


@dataclass(frozen=True, eq=False)
class Judged:
    """All trainings of one network on one data set, under one attack.

    Attributes:
        dataset: its name in the config; likewise `model` and `attack`.
        label: how tables call the attack.
        methods: how tables call each regularizer, by its name in the config and in its order.
        correct: 1, 0, or NaN for an image not seen; rows are images, columns (regularizer, seed).
        fixed: those that are one network, trained elsewhere: the same beside every seed of others.
    """

    dataset: str
    model: str
    attack: str
    label: str
    methods: dict[str, str]
    correct: pd.DataFrame
    fixed: frozenset[str] = frozenset()

    def scores(self, regularizer: str, reference: str | None = None) -> Scores:
        """Return a method's scores, minus those of a reference: images and seeds of both."""
        mine = pd.DataFrame(self.correct[regularizer])
        if reference is not None:
            theirs = pd.DataFrame(self.correct[reference])
            if regularizer in self.fixed:
                mine = _beside_each(mine, theirs)
            if reference in self.fixed:
                theirs = _beside_each(theirs, mine)
            mine = mine.sub(theirs).dropna(axis=1, how="all")
        return mine.dropna().to_numpy(np.int64)

    @property
    def best(self) -> str:
        """The regularizer of the highest mean accuracy, of those with the most seeds."""
        most = max(map(self.seeds, self.methods))
        among = [name for name in self.methods if self.seeds(name) == most]
        return max(among, key=lambda name: self.scores(name).mean())

    def seeds(self, regularizer: str) -> int:
        """Return how many trainings of a method there are; of a fixed one, as many as of any."""
        counts = {name: self.correct[name].shape[1] for name in self.methods}
        return max(counts.values()) if regularizer in self.fixed else counts[regularizer]


def judged(rows: Rows) -> list[Judged]:
    """Return the verdicts by data set, network and attack.

    Left out are the points of sweeps, and networks that were not trained.
    """
    told = unswept(rows.evaluations)
    labels = told.set_index(["dataset", "attack"])["label"].to_dict()
    fixed = frozenset(rows.runs.loc[elsewhere(rows.runs), "regularizer"].astype(str))
    groups = of_trained(rows).groupby(["dataset", "model", "attack"], observed=True)
    return [
        _judged((str(dataset), str(model), str(attack)), labels[dataset, attack], part, fixed)
        for (dataset, model, attack), part in groups
        if (dataset, attack) in labels
    ]


def _beside_each(one: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of the only training in `one`, for each seed of `others`."""
    return pd.DataFrame(dict.fromkeys(others.columns, one.iloc[:, 0]))


def _judged(
    key: tuple[str, str, str], label: str, verdicts: pd.DataFrame, fixed: frozenset[str]
) -> Judged:
    trained = verdicts.groupby(["regularizer", "method", "seed"], observed=True)
    columns: dict[tuple[str, Hashable], pd.Series] = {}
    methods: dict[str, str] = {}
    for (regularizer, method, seed), part in trained:
        methods[str(regularizer)] = str(method)
        images = pd.Index(part["image"])
        columns[str(regularizer), seed] = pd.Series(part["correct"].to_numpy(np.float32), images)
    correct = pd.concat(columns, axis=1)
    return Judged(*key, label, methods, correct, fixed & methods.keys())


def references_of(rows: Rows, chosen: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the regularizers to compare with: those chosen, or `REFERENCES` as far as there.

    Raises:
        UserError: one is chosen that the experiment does not have.
    """
    column = rows.runs["regularizer"]
    # finished or not: the categories are all that the config has
    known = column.cat.categories if hasattr(column, "cat") else column.unique()
    if chosen is None:
        return tuple(name for name in REFERENCES if name in known)
    for name in chosen:
        if name not in known:
            raise UserError(
                f"--references: no regularizer '{name}' here{did_you_mean(name, known)}"
            )
    return tuple(chosen)


def intervals(tables: Sequence[Judged]) -> pd.DataFrame:
    """Return each method's accuracy under each attack: `INTERVALS`, shares from 0 to 1."""
    found = [
        [
            one.dataset, one.model, regularizer, method, one.attack, one.label, *scores.shape,
            about.value, about.low, about.high, about.over,
        ]
        for one in tables
        for regularizer, method in one.methods.items()
        for scores in [one.scores(regularizer)]
        for about in [interval(scores, lowest=0)]
    ]  # fmt: skip
    return pd.DataFrame(found, columns=INTERVALS)


def bounded(means: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds with the ends of their 95 % intervals, `low` and `high`.

    The points of sweeps have none.

    Args:
        means: of `regbench.analysis.rows.over_seeds`.
        found: of `intervals`.
    """
    keys = ["dataset", "model", "regularizer", "attack"]
    ends = found.set_index(keys)[["low", "high"]]
    each = ends.reindex(pd.MultiIndex.from_frame(means[keys].astype(str)))
    return means.assign(low=each["low"].to_numpy(), high=each["high"].to_numpy())


def comparisons(
    tables: Sequence[Judged], references: Sequence[str], margin: float = MARGIN
) -> pd.DataFrame:
    """Return one row per data set, network, attack, method and reference: `COLUMNS`.

    Two references are compared once. Where method and reference have no seed in common the row
    has no numbers. `p_holm` is corrected over all rows (Holm 1979).

    Args:
        tables: of `judged`.
        references: names in the config.
        margin: of equivalence, a share.
    """
    found = [
        {
            "dataset": one.dataset, "model": one.model, "regularizer": regularizer,
            "method": method, "reference": reference, "against": one.methods[reference],
            "attack": one.attack, "label": one.label, "margin": margin,
            **_compared(one.scores(regularizer, reference), margin),
        }
        for one in tables
        for regularizer, method in one.methods.items()
        for reference in _met(regularizer, one, references)
    ]  # fmt: skip
    table = pd.DataFrame(found, columns=COLUMNS)
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "p_holm"] = multipletests(table.loc[tested, "p"], method="holm")[1]
    return table


def leaders(tables: Sequence[Judged]) -> set[Cell]:
    """Return the best method of each network under each attack, and those on its level.

    On its level: the 95 % interval of the paired difference from it, over all seeds of both,
    includes 0.
    """
    return {
        (one.dataset, one.model, regularizer, one.attack)
        for one in tables
        for best in [one.best]
        for regularizer in one.methods
        if regularizer == best or _level(one, regularizer, best)
    }


def strongest(rows: Rows) -> dict[str, str]:
    """Return, for each data set, AutoAttack, or without it the last white-box attack of its ε.

    Of a report that is not finished, the strongest that the most methods were judged by.
    """
    told = unswept(rows.evaluations)
    told = told[told["source"].isna() & (told["member"] != CLEAN)]
    radius = rows.runs.groupby("dataset", observed=True)["epsilon"].first().to_dict()
    own = told["dataset"].astype(object).map(radius)
    told = told[(told["epsilon"] - own).abs() < TOLERANCE]
    told = widest(told)
    told = told[told["status"] == "ok"]
    told = told.assign(strength=told["member"] == AUTOATTACK).sort_values(["strength", "attack"])
    last = told.groupby("dataset", observed=True)["attack"].last()
    return {str(dataset): str(attack) for dataset, attack in last.items()}


def _met(regularizer: str, one: Judged, references: Sequence[str]) -> Iterator[str]:
    """The references that a method is compared with: of the others, those that it does not meet."""
    before = references[: references.index(regularizer) + 1] if regularizer in references else ()
    return (name for name in references if name in one.methods and name not in before)


def _compared(scores: Scores, margin: float) -> dict[str, object]:
    images, seeds = scores.shape if scores.size else (0, 0)
    told: dict[str, object] = {"n": images, "seeds": seeds}
    if not scores.size:
        return {**told, "more": 0, "fewer": 0, "verdict": "cannot be compared"}
    about = interval(scores, lowest=-1)
    favours = np.sign(scores.sum(1))
    return {
        **told,
        **about._asdict(),
        "difference": about.value,
        "more": int((favours > 0).sum()),
        "fewer": int((favours < 0).sum()),
        "p": paired_test(scores),
        "verdict": verdict(about.low_90, about.high_90, margin) if seeds > 1 else ONE_SEED,
    }


def _level(judged: Judged, regularizer: str, best: str) -> bool:
    scores = judged.scores(regularizer, best)
    every = max(map(judged.seeds, (regularizer, best)))
    if not scores.size or scores.shape[1] < every:
        return False
    about = interval(scores, lowest=-1)
    return about.low <= 0 <= about.high
