"""Published accuracies beside ours: do they agree, differ, or answer another question?"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.stats import t
from statsmodels.stats.proportion import proportion_confint

from regbench.config import Count, Name, Radius, canonical
from regbench.configfile import read
from regbench.errors import UserError
from regbench.rows import CELL

COLUMNS = [
    "dataset", "model", "method", "attack", "published", "images", "ours", "n", "seeds",
    "verdict", "source",
]  # fmt: skip

PLACES = [
    "dataset", "epsilon", "attack", "place", "accuracy", "images", "method", "model", "source",
]  # fmt: skip

OURS = "this experiment"
"""The source of a number of ours."""


Text = Annotated[str, Field(min_length=1)]


class Entry(BaseModel):
    """What one source says of one method on one data set.

    Attributes:
        dataset: the data set's entry in the config.
        rule: the regularizer's rule, rules/regularizers/NAME.smk.
        method: in place of a rule, how the source calls a method that is none of ours: it is ranked
            with ours, and stands beside none of them.
        model: the network, of a rule as the config calls it; none: a network of the size that is
            usual for the data set.
        epsilon: attack radius ε, L∞, images in [0, 1].
        images: how many test images were judged; none: the file's number, or not told.
        source: who says so, where and when.
        note: what else was different in its training.
        accuracy: in percent, by the names that the file's `attacks` explains.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: Name
    rule: Name | None = None
    method: Text | None = None
    model: Text | None = None
    epsilon: Radius
    images: Count | None = None
    source: str
    note: str = ""
    accuracy: dict[Name, Annotated[float, Field(ge=0, le=100)]]

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if (self.rule is None) == (self.method is None):
            given = "neither" if self.rule is None else "both"
            raise ValueError(
                f"an entry has either `rule`, a regularizer of ours, or `method`, any other's name;"
                f" got {given}"
            )
        return self

    def called(self, labels: Mapping[str, str]) -> str:
        """Return what tables call the method, a rule as in `labels`, if it is there."""
        return self.method or labels.get(self.rule or "", self.rule or "")


class Meaning(BaseModel):
    """An attack that an accuracy was published for: its label, its member, its parameters.

    Attributes:
        label: what tables call it.
        attack: its name among our attacks.
        unlike: parameters with values that make one of ours another attack.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    label: str
    attack: str
    unlike: dict[str, Any] = {}

    @property
    def arguments(self) -> dict[str, Any]:
        """The parameters that an attack of ours must share to be compared."""
        return {key: canonical(key, value) for key, value in (self.model_extra or {}).items()}

    def told_by(self, arguments: Mapping[str, Any]) -> bool:
        """Tell whether an attack of ours with these parameters is this one."""
        shared = all(arguments.get(key) == value for key, value in self.arguments.items())
        other = any(arguments.get(key) == value for key, value in self.unlike.items())
        return shared and not other


class Published(BaseModel):
    """A file of published numbers.

    Attributes:
        collected: when they were looked up.
        images: how many test images were judged, where an entry does not say.
        attacks: what each name of an attack means.
        entries: what each source says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    collected: str = ""
    images: Count | None = None
    attacks: dict[Name, Meaning]
    entries: tuple[Entry, ...]


WHOLE = 10_000
"""Images of the test sets that numbers are published for: all, where a source does not say."""

NOTHING = Published(attacks={}, entries=())


class Interval(NamedTuple):
    """An accuracy, 0 to 1, with half the width of its 95 % interval."""

    value: float
    half: float


def load(paths: Sequence[Path]) -> Published:
    """Return the numbers in files like config/published.yaml; of no file, none.

    Raises:
        UserError: one is not such a file, or two explain an attack differently.
    """
    files = {path: _load(path) for path in paths}
    attacks: dict[str, Meaning] = {}
    for path, published in files.items():
        for name, meaning in published.attacks.items():
            if attacks.setdefault(name, meaning) != meaning:
                raise UserError(
                    f"'{path}': '{name}' under `attacks:` is another attack than in a file before;"
                    " give one of them another name"
                )
    return Published(
        collected="; ".join(one.collected for one in files.values() if one.collected),
        attacks=attacks,
        entries=tuple(entry for one in files.values() for entry in one.entries),
    )


def _load(path: Path) -> Published:
    try:
        published = Published.model_validate(read(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"'{path}': '{where}': {message}") from error
    for entry in published.entries:
        for name in entry.accuracy:
            if name not in published.attacks:
                raise UserError(f"'{path}': '{name}' of {entry.called({})} is not under `attacks:`")
    told = [
        entry if entry.images else entry.model_copy(update={"images": published.images})
        for entry in published.entries
    ]
    return published.model_copy(update={"entries": tuple(told)})


def compare(published: Published, means: pd.DataFrame) -> pd.DataFrame:
    """Return one row per published number that a method of ours stands beside, in percent.

    `verdict` is `agree` where the two 95 % intervals of a difference include 0, else `differ`; or
    `cannot be compared`, where no attack of ours has the parameters of the published one. Where
    several have them, the strongest is compared. A source that does not say how many images it
    judged is taken to have judged `WHOLE`.

    Args:
        published: of `load`.
        means: of `regbench.rows.over_seeds`.
    """
    rows = [
        _row(entry, published.attacks[name], percent, cell)
        for entry in published.entries
        for _, cell in means.groupby(CELL, observed=True)
        if _stands_beside(entry, cell)
        for name, percent in entry.accuracy.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def interval(mean: pd.Series) -> Interval:
    """Return a mean over seeds with its 95 % interval, over the draw of the seeds and the images.

    Args:
        mean: a row of `regbench.rows.over_seeds`.
    """
    low, high = proportion_confint(mean["mean"] * mean["n"], mean["n"], method="wilson")
    half = (high - low) / 2
    if mean["seeds"] > 1:
        half = np.hypot(half, t.ppf(0.975, mean["seeds"] - 1) * mean["sd"] / np.sqrt(mean["seeds"]))
    return Interval(mean["mean"], float(half))


def places(published: Published, means: pd.DataFrame) -> pd.DataFrame:
    """Return our accuracies ranked among the published ones, under each attack, in percent.

    Ranked together is what shares data set, radius, attack and its parameters; the method and the
    network may be any. Where several attacks of ours are the published one, the strongest counts.
    Equal accuracies share the better place. Without one of ours there is no ranking.

    Args:
        published: of `load`.
        means: of `regbench.rows.over_seeds`.
    """
    models = {(entry.dataset, entry.epsilon) for entry in published.entries}
    rankings = [
        _ranked(published, name, dataset, epsilon, means)
        for dataset, epsilon in sorted(models)
        for name in published.attacks
    ]
    return pd.concat([pd.DataFrame(columns=PLACES), *rankings], ignore_index=True)


def _ranked(
    published: Published, name: str, dataset: str, epsilon: float, means: pd.DataFrame
) -> pd.DataFrame:
    meaning = published.attacks[name]
    of_data = means[means["dataset"] == dataset]
    labels = dict(of_data[["rule", "method"]].astype(str).drop_duplicates("rule").to_numpy())
    same = np.array([_is(meaning, epsilon, row) for _, row in of_data.iterrows()], dtype=bool)
    judged = of_data[same & of_data["mean"].notna()].sort_values("mean", kind="stable")
    strongest = judged.drop_duplicates(CELL).sort_values(CELL)
    ours = [
        (row["mean"], row["n"], row["method"], row["model"], OURS)
        for _, row in strongest.iterrows()
    ]
    theirs = [
        (
            entry.accuracy[name] / 100,
            entry.images or "–",
            entry.called(labels),
            entry.model,
            _source(entry),
        )
        for entry in published.entries
        if (entry.dataset, entry.epsilon) == (dataset, epsilon) and name in entry.accuracy
    ]
    if not (ours and theirs):
        return pd.DataFrame(columns=PLACES)
    columns = ["accuracy", "images", "method", "model", "source"]
    table = pd.DataFrame([*ours, *theirs], columns=columns)
    place = table["accuracy"].rank(ascending=False, method="min").astype(int)
    table = table.assign(
        dataset=dataset,
        epsilon=f"{epsilon:.4g}",
        attack=meaning.label,
        place=place.astype(str) + f" of {len(table)}",
        accuracy=(100 * table["accuracy"]).map("{:.2f}".format),
        model=table["model"].astype(object).fillna("–"),
    )
    return table.loc[place.sort_values(kind="stable").index, PLACES]


def _stands_beside(entry: Entry, cell: pd.DataFrame) -> bool:
    first = cell.iloc[0]
    same = (first["dataset"], first["rule"]) == (entry.dataset, entry.rule)
    return same and entry.model in {None, first["model"]}


def _row(entry: Entry, meaning: Meaning, percent: float, cell: pd.DataFrame) -> dict[str, object]:
    first = cell.iloc[0]
    told = {
        "dataset": entry.dataset, "model": first["model"], "method": first["method"],
        "attack": meaning.label, "published": f"{percent:g}", "images": entry.images or "–",
        "source": _source(entry),
    }  # fmt: skip
    ours = cell[[_is(meaning, entry.epsilon, row) for _, row in cell.iterrows()]]
    ours = ours[ours["mean"].notna()]
    if ours.empty:
        return {**told, "ours": "–", "n": 0, "seeds": 0, "verdict": "cannot be compared"}
    row = ours.sort_values("mean", kind="stable").iloc[0]
    mine, theirs = interval(row), _theirs(percent, entry.images or WHOLE)
    apart = abs(mine.value - theirs.value) > np.hypot(mine.half, theirs.half)
    return {
        **told,
        "ours": f"{100 * mine.value:.1f} ± {100 * mine.half:.1f}",
        "n": row["n"],
        "seeds": row["seeds"],
        "verdict": "differ" if apart else "agree",
    }


def _source(entry: Entry) -> str:
    return entry.source + (f" ({entry.note})" if entry.note else "")


def _is(meaning: Meaning, epsilon: float, row: pd.Series) -> bool:
    """Tell whether an attack of ours is the published one; a swept or transferred one is not."""
    return (
        pd.isna(row["sweep"])
        and pd.isna(row["source"])
        and row["member"] == f"regbench.attacks.{meaning.attack}"
        and (meaning.attack == "clean" or bool(np.isclose(row["epsilon"], epsilon, atol=1e-4)))
        and meaning.told_by(json.loads(row["arguments"]))
    )


def _theirs(percent: float, images: int) -> Interval:
    low, high = proportion_confint(percent / 100 * images, images, method="wilson")
    return Interval(percent / 100, (high - low) / 2)
