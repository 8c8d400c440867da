"""Stage 5c: rows, tables and figures -> index.html, one file that needs no network.

A browser shows it from the file system: the tables sorted and filtered by DataTables, which itables
brings along, what is known of each accuracy under the pointer or the keyboard's focus, the figures.
"""

import argparse
import ast
import re
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup, escape

from regbench.analysis.beside import OURS
from regbench.analysis.comparisons import (
    MARGIN,
    bounded,
    comparisons,
    intervals,
    judged,
    references_of,
)
from regbench.analysis.costs import costs
from regbench.analysis.doubts import doubts
from regbench.analysis.gaps import gaps
from regbench.analysis.masking import panel
from regbench.analysis.published import NOTHING, Published
from regbench.analysis.published import load as load_published
from regbench.analysis.rows import Rows, elsewhere, load, over_seeds
from regbench.analysis.unfinished import unfinished
from regbench.errors import UserError, program
from regbench.experiment.manifest import Manifest
from regbench.experiment.members import source
from regbench.report import sections
from regbench.report.origins import Remaking, traced
from regbench.storage.drafts import draft_of
from regbench.tables import options


class Figure(NamedTuple):
    """A figure: its name, what it shows in one line, how to read it, its PNG as a data URI."""

    name: str
    caption: str
    reading: str
    uri: str


def page(
    folder: Path,
    rows: Rows,
    known: Published = NOTHING,
    gap: tuple[str, str] | None = None,
    remaking: Remaking | None = None,
    lacking: str = "",
    references: Sequence[str] = (),
    margin: float = MARGIN,
) -> str:
    """Return the page as HTML.

    Args:
        folder: the report's, named as the experiment, with figures/*.png.
        rows: the experiment's.
        known: published numbers to stand beside ours.
        gap: two attacks whose difference is a column.
        remaking: what gives the command lines; none: there are none.
        lacking: of `regbench.analysis.unfinished.unfinished`.
        references: regularizers that each method is compared with.
        margin: a share, within which two methods are on par, or published numbers agree.
    """
    doubted, masked = doubts(rows), panel(rows)
    numbers, trained = traced(rows, doubted), judged(rows)
    means = bounded(over_seeds(numbers), intervals(trained))
    compared = comparisons(trained, references, margin)
    return _template().render(
        experiment=folder.name,
        datasets=", ".join(numbers["dataset"].astype(str).unique()),
        size=_size(rows),
        lacking=lacking,
        reading=sections.reading.reading(numbers).split("\n\n"),
        origins=_dated(sections.machines.machines(rows)),
        command=remaking.whole() if remaking else "",
        accuracies=sections.reading.sheets(
            means, numbers, gaps(rows, gap), doubted, masked, remaking
        ),
        findings=[
            sections.verdicts.sheet(masked),
            sections.differences.sheet(compared, rows),
            sections.costs.sheet(costs(rows)),
        ],
        tables=[
            sections.results.sheet(numbers, remaking),
            sections.published.sheet(known, means, margin),
            sections.published.ranking(known, means),
            sections.doubts.sheet(doubted, numbers, rows),
            sections.failures.sheet(numbers),
        ],
        ours=OURS,
        figures=_figures(folder / "figures"),
        library=_uri(
            "text/javascript", files("itables").joinpath("html/dt_bundle.js").read_bytes()
        ),
    )


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("regbench.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["marked"] = _marked
    return environment.get_template("page.html")


def _size(rows: Rows) -> str:
    runs, given = rows.runs, elsewhere(rows.runs)
    told = {
        "data set": runs["dataset"].nunique(), "network": runs["model"].nunique(),
        "method": runs["method"].nunique(), "training": int((~given).sum()),
        "pretrained network": int(given.sum()), "evaluation": len(rows.evaluations),
        "verdict": len(rows.verdicts),
    }  # fmt: skip
    counts = {name: count for name, count in told.items() if count}
    return ", ".join(f"{count:,} {name}{'s' * (count != 1)}" for name, count in counts.items())


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


# --- figures --------------------------------------------------------------------------------------


def _figures(folder: Path) -> list[Figure]:
    return [
        Figure(path.stem, *_words(path.stem), _uri("image/png", path.read_bytes()))
        for path in sorted(folder.glob("*.png"))
    ]


def _words(name: str) -> tuple[str, str]:
    """Return what a figure asks and how to read it, from the docstrings of what draws it.

    The first line of the module's, and all but the first paragraph of the function's.
    """
    try:
        tree = ast.parse(source(f"regbench.figures.{name}").read_text(encoding="utf-8"))
    except UserError:
        return name.replace("_", " "), ""
    drawn = (one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == name)
    read = [(ast.get_docstring(one) or "").partition("\n\n")[2] for one in drawn]
    return (ast.get_docstring(tree) or name).partition("\n")[0], " ".join(" ".join(read).split())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _marked(text: str) -> Markup:
    """Return text as HTML, what stands in backticks as code, in asterisks as emphasis."""
    code = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*([^*]+)\*", r"<em>\1</em>", code))


def main() -> None:
    """Read the command line and write the page beside the rows."""
    parser = argparse.ArgumentParser(prog="python -m regbench.page", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="the report's folder, with the rows and figures/*.png"
    )
    options(parser)
    parser.add_argument(
        "--configfile", nargs="+", default=[], help="the experiment's config, for the command lines"
    )
    arguments = parser.parse_args()
    remaking = _remaking(arguments.manifest, arguments.configfile)
    folder = arguments.folder.resolve()
    rows, known = load(folder), load_published(arguments.published)
    references = references_of(rows, arguments.references)
    lacking = unfinished(rows, remaking.manifest) if remaking else ""
    margin = arguments.margin / 100
    text = page(folder, rows, known, arguments.gap, remaking, lacking, references, margin)
    with draft_of(folder / "index.html") as draft:
        draft.write_text(text, encoding="utf-8")


def _remaking(manifest: str | None, configfiles: list[str]) -> Remaking | None:
    if manifest is None or not configfiles:
        return None
    return Remaking(Manifest.read(manifest), tuple(configfiles))


if __name__ == "__main__":
    program(main)
