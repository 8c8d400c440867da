"""Stage 5c: rows, tables and figures -> index.html, one file that needs no network.

A browser shows it from the file system: the tables sorted and filtered by DataTables, which itables
brings along, what is known of each accuracy under the pointer or the keyboard's focus, the figures.
"""

import argparse
import ast
import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from regbench.doubts import RULES, doubts
from regbench.drafts import draft_of
from regbench.errors import UserError, program
from regbench.manifest import Manifest
from regbench.members import source
from regbench.origins import RUN, Remaking, of_mean, of_one, traced
from regbench.published import NOTHING, OURS, Published, compare, places
from regbench.published import load as load_published
from regbench.rows import CELL, Rows, load, over_seeds, unswept
from regbench.summary import BESIDE, DOUBTED, MARK, origins, reading
from regbench.tables import Gap, accuracy, labels

Place = tuple[str, ...]
"""Network, method and the label of an attack: a cell of a table of accuracy."""

WHERE = ["dataset", "model", "method", "seed", "attack"]

NAMED = {
    "dataset", "model", "method", "attack", "crafted on", "rule", "what should hold", "told",
    "what happened", "flags", "status", "verdict", "source",
}  # fmt: skip
"""Columns that are sorted as words; all others by the number that a cell begins with."""

NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")

PLACED = """\
Ranked together is what shares data set, radius, attack and its parameters; the method and the
network may be any. Where several attacks of ours are the published one, the strongest counts.
Networks and training differ between sources."""


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: what it shows.
        about: what it tells under the pointer or the focus, one `name: value` a line.
    """

    text: str
    about: str = ""

    @property
    def number(self) -> str:
        """What it is sorted by in a column of numbers; without one it stands below all."""
        found = NUMBER.match(self.text)
        return found[0] if found else ""


class Table(NamedTuple):
    """A table of the page.

    Attributes:
        title: its heading.
        notes: paragraphs above it, `code` in backticks.
        columns: their names.
        rows: its cells; there may be none.
    """

    title: str
    notes: list[str]
    columns: list[str]
    rows: list[list[Cell]]

    @property
    def anchor(self) -> str:
        """What links name it by."""
        return re.sub(r"\W+", "-", self.title.lower())

    def cells(self, row: list[Cell]) -> Iterator[tuple[str, Cell]]:
        """Yield each column with its cell."""
        return zip(self.columns, row, strict=True)

    def numeric(self, column: str) -> bool:
        """Tell whether a column is sorted by its numbers."""
        return column not in NAMED


class Figure(NamedTuple):
    """A figure: its name, what it shows in one line, its PNG as a data URI."""

    name: str
    caption: str
    uri: str


def page(
    folder: Path,
    rows: Rows,
    known: Published = NOTHING,
    gap: Gap | None = None,
    remaking: Remaking | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        folder: the report's, named as the experiment, with figures/*.png.
        rows: the experiment's.
        known: published numbers to stand beside ours.
        gap: two attacks whose difference is a column.
        remaking: what gives the command lines; none: there are none.
    """
    doubted = doubts(rows)
    numbers = traced(rows, doubted)
    means = over_seeds(numbers)
    tables = [
        _results(numbers, remaking),
        _published(known, means),
        _places(known, means),
        _doubts(doubted, numbers),
        _failures(numbers),
    ]
    environment = Environment(
        loader=PackageLoader("regbench", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    return environment.get_template("page.html").render(
        experiment=folder.name,
        datasets=", ".join(numbers["dataset"].astype(str).unique()),
        size=_size(rows),
        reading=reading(numbers).split("\n\n"),
        origins=_dated(origins(rows)),
        command=remaking.whole() if remaking else "",
        accuracies=_accuracies(means, numbers, gap, doubted, remaking),
        tables=tables,
        ours=OURS,
        figures=_figures(folder / "figures"),
        library=_uri(
            "text/javascript", files("itables").joinpath("html/dt_bundle.js").read_bytes()
        ),
    )


def _size(rows: Rows) -> str:
    runs = rows.runs
    told = {
        "data set": runs["dataset"].nunique(), "network": runs["model"].nunique(),
        "method": runs["method"].nunique(), "training": len(runs),
        "evaluation": len(rows.evaluations), "verdict": len(rows.verdicts),
    }  # fmt: skip
    return ", ".join(f"{count:,} {name}{'s' * (count != 1)}" for name, count in told.items())


def _dated(told: dict[str, str]) -> dict[str, str]:
    """Return what is told of the runs, where it has no date that of their commit."""
    when = told.get("date") or _day_of(told["commit"])
    return {"date": when, **told}


def _day_of(commit: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), "show", "-s", "--format=%cs", commit, "--"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "not recorded"
    return f"the commit is of {done.stdout.strip()}" if done.returncode == 0 else "not recorded"


# --- tables ---------------------------------------------------------------------------------------


def _accuracies(
    means: pd.DataFrame,
    numbers: pd.DataFrame,
    gap: Gap | None,
    doubted: pd.DataFrame,
    remaking: Remaking | None,
) -> list[Table]:
    """Return one table per data set, and one more of the attacks crafted on another network."""
    kinds = {"": (means["source"].isna(), gap), ", transferred": (means["source"].notna(), None)}
    tables = []
    for kind, (chosen, difference) in kinds.items():
        for dataset, table in accuracy(means[chosen], difference, doubted).items():
            marked = table.astype(str).stack().str.contains(MARK).any()
            notes = [f"{MARK} in doubt with one seed at least."] if marked else []
            told = _told_of_means(means[chosen & (means["dataset"] == dataset)], numbers, remaking)
            title = f"Accuracy on {dataset}{kind}"
            tables.append(_table(title, notes, table.drop(columns="dataset"), told))
    return tables


def _told_of_means(
    means: pd.DataFrame, numbers: pd.DataFrame, remaking: Remaking | None
) -> dict[Place, str]:
    """Return what is told of each cell of a table of accuracy, the means being of one data set."""
    cell = [*CELL, "attack"]
    seeds = dict(iter(numbers.groupby(cell, observed=True)))
    means = unswept(means)
    return {
        (mean["model"], mean["method"], label): of_mean(mean, seeds[tuple(mean[cell])], remaking)
        for (_, mean), label in zip(means.iterrows(), labels(means), strict=True)
    }


def _results(numbers: pd.DataFrame, remaking: Remaking | None) -> Table:
    shares = (100 * numbers[["accuracy", "low", "high"]]).map("{:.1f}".format).replace("nan", "–")
    failed = numbers["attack_status"].where(numbers["attack_status"] != "ok", numbers["status"])
    frame = numbers[["dataset", "model", "method", "seed"]].assign(
        **{
            "attack": numbers["label"],
            "crafted on": numbers["source"].astype(object).fillna(""),
            "ε": numbers["epsilon"].map("{:.4g}".format),
            "n": numbers["n"],
            "accuracy": shares["accuracy"],
            "95 % interval": shares["low"] + " to " + shares["high"],
            "attack (s)": numbers["attack_seconds"].map("{:.1f}".format),
            "best epoch": numbers["best_epoch"],
            "status": failed,
            "flags": numbers["flags"],
        }
    )
    frame = frame.loc[:, (frame != "").any()]
    about = [of_one(numbers.iloc[[place]], remaking) for place in range(len(numbers))]
    return Table(
        "Results per run and attack",
        ["Accuracy in percent, with its 95 % Wilson interval."],
        list(map(str, frame)),
        [
            [Cell(str(text), told if name == "accuracy" else "") for name, text in row.items()]
            for row, told in zip(frame.to_dict("records"), about, strict=True)
        ],
    )


def _published(known: Published, means: pd.DataFrame) -> Table:
    return _table("Beside published numbers", [BESIDE, *_when(known)], compare(known, means))


def _places(known: Published, means: pd.DataFrame) -> Table:
    return _table("Place among published numbers", [PLACED, *_when(known)], places(known, means))


def _when(known: Published) -> list[str]:
    return [f"Collected in {known.collected}."] if known.collected else []


def _doubts(doubted: pd.DataFrame, numbers: pd.DataFrame) -> Table:
    called = numbers.set_index(["dataset", "attack"])["label"].to_dict()
    holds = {rule.name: f"{rule.definition} ({rule.source})" for rule in RULES}
    keys = zip(doubted["dataset"], doubted["attack"], strict=True)
    frame = doubted.assign(
        attack=[called[key] for key in keys], **{"what should hold": doubted["rule"].map(holds)}
    )
    columns = [*WHERE, "rule", "what should hold", "told"]
    return _table("Doubts", [DOUBTED], frame[columns])


def _failures(numbers: pd.DataFrame) -> Table:
    """Return every training and attack that went wrong, and what attacks warned of."""
    numbers = numbers.assign(attack=numbers["label"].astype(str))
    trainings = numbers[numbers["status"] != "ok"].drop_duplicates(RUN).assign(attack="")
    attacked = numbers[numbers["attack_status"] != "ok"]
    warned = numbers[numbers["warnings"] != ""]
    parts = [(trainings, "status"), (attacked, "attack_status"), (warned, "warnings")]
    told = [part.assign(**{"what happened": part[column]}) for part, column in parts]
    frame = pd.concat(told)[[*WHERE, "what happened"]]
    return _table("What went wrong, and what the attacks warned of", [], frame)


def _table(
    title: str, notes: list[str], frame: pd.DataFrame, told: dict[Place, str] | None = None
) -> Table:
    """Return a frame as a table; `told` says something of the cells of a method and a column."""
    known = told or {}
    columns = list(map(str, frame))
    texts = [map(str, values) for values in frame.itertuples(index=False, name=None)]
    rows = [
        [
            Cell(text, known.get((row.get("model", ""), row.get("method", ""), name), ""))
            for name, text in row.items()
        ]
        for row in (dict(zip(columns, values, strict=True)) for values in texts)
    ]
    return Table(title, notes, columns, rows)


# --- figures --------------------------------------------------------------------------------------


def _figures(folder: Path) -> list[Figure]:
    return [
        Figure(path.stem, _caption(path.stem), _uri("image/png", path.read_bytes()))
        for path in sorted(folder.glob("*.png"))
    ]


def _caption(name: str) -> str:
    """Return the first line of the docstring of the module that draws a figure, else its name."""
    try:
        tree = ast.parse(source(f"regbench.figures.{name}").read_text(encoding="utf-8"))
    except UserError:
        return name.replace("_", " ")
    return (ast.get_docstring(tree) or name).partition("\n")[0]


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _code(text: str) -> Markup:
    """Return text as HTML, what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def main() -> None:
    """Read the command line and write the page beside the rows."""
    parser = argparse.ArgumentParser(prog="python -m regbench.page", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="the report's folder, with the rows and figures/*.png"
    )
    parser.add_argument(
        "--gap", nargs=2, metavar="ATTACK", help="add the accuracy under the first minus the second"
    )
    parser.add_argument(
        "--published", type=Path, help="published numbers to stand beside, a YAML file"
    )
    parser.add_argument("--manifest", help="the experiment's manifest, for the command lines")
    parser.add_argument(
        "--configfile", nargs="+", default=[], help="the experiment's config, for the command lines"
    )
    arguments = parser.parse_args()
    known = load_published(arguments.published) if arguments.published else NOTHING
    remaking = _remaking(arguments.manifest, arguments.configfile)
    folder = arguments.folder.resolve()
    text = page(folder, load(folder), known, arguments.gap, remaking)
    with draft_of(folder / "index.html") as draft:
        draft.write_text(text, encoding="utf-8")


def _remaking(manifest: str | None, configfiles: list[str]) -> Remaking | None:
    if manifest is None or not configfiles:
        return None
    return Remaking(Manifest.read(manifest), tuple(configfiles))


if __name__ == "__main__":
    program(main)
