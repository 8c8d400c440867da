"""Stage 5a: rows -> tables (.csv, .md, .tex) and the first page of the report, summary.md."""

import argparse
from pathlib import Path

import pandas as pd

from regbench.analysis.beside import compare
from regbench.analysis.comparisons import (
    MARGIN,
    REFERENCES,
    bounded,
    comparisons,
    intervals,
    judged,
    leaders,
    references_of,
)
from regbench.analysis.costs import costs
from regbench.analysis.doubts import doubts, flags
from regbench.analysis.gaps import NONE as NO_GAPS
from regbench.analysis.gaps import gaps
from regbench.analysis.masking import panel
from regbench.analysis.published import load as load_published
from regbench.analysis.rows import load, over_seeds, results
from regbench.analysis.unfinished import unfinished
from regbench.errors import program
from regbench.experiment.manifest import Manifest
from regbench.report.accuracy import accuracy, cells
from regbench.report.latex import latex
from regbench.report.summary import summary
from regbench.report.wording import markdown

DIGITS = "%.10g"
"""Of numbers in .csv: as many as are the same on every machine."""


def main() -> None:
    """Read the command line and write the tables beside the rows."""
    arguments = _parser().parse_args()
    folder, rows = arguments.folder, load(arguments.folder)
    gap = gaps(rows, arguments.gap)
    references = references_of(rows, arguments.references)
    broken, masked = doubts(rows), panel(rows)
    tidy = results(rows)
    tidy = tidy.assign(flags=flags(tidy, broken))
    trained = judged(rows)
    known = intervals(trained)
    means = bounded(over_seeds(tidy), known)
    white_box, transferred = means[means["source"].isna()], means[means["source"].notna()]
    printed = [
        (table, cells(part, broken)[dataset])
        for part, pair in ((white_box, gap), (transferred, NO_GAPS))
        for dataset, table in accuracy(part, pair, broken, masked).items()
    ]
    tables = [table for table, _ in printed]
    margin = arguments.margin / 100
    compared = comparisons(trained, references, margin)
    beside = compare(load_published(arguments.published), means, margin)
    lacking = unfinished(rows, Manifest.read(arguments.manifest)) if arguments.manifest else ""
    stored = {
        "results": tidy,
        "accuracy": pd.concat(accuracy(means, gap, broken, masked).values()),
        "intervals": known,
        "comparisons": compared,
        "published": beside,
        "doubts": broken,
        "masking": masked,
        "costs": costs(rows),
    }
    bold = leaders(trained)
    texts = {
        "accuracy.md": markdown(tables) + "\n",
        "accuracy.tex": "\n".join(latex(table, part, bold) for table, part in printed),
        "published.md": markdown([beside.drop(columns="margin")]) + "\n",
        "summary.md": summary(rows, tidy, tables, beside, broken, compared, masked, lacking),
    }
    for name, table in stored.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format=DIGITS)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m regbench.tables", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="the report's folder, with regbench.collect's rows"
    )
    options(parser)
    return parser


def options(parser: argparse.ArgumentParser) -> None:
    """Add what tables and page are told besides the rows."""
    parser.add_argument(
        "--gap", nargs=2, metavar="ATTACK", help="add the accuracy under the first minus the second"
    )
    parser.add_argument(
        "--published", type=Path, nargs="+", default=[], metavar="FILE",
        help="published numbers to stand beside, YAML files",
    )  # fmt: skip
    parser.add_argument(
        "--references", nargs="*", metavar="REGULARIZER",
        help=f"compare each method with these; else with {' and '.join(REFERENCES)}, if there",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=float, default=100 * MARGIN, metavar="POINTS",
        help="percentage points within which two methods are on par, or published numbers agree",
    )  # fmt: skip
    parser.add_argument(
        "--manifest", help="the experiment's manifest, to tell what is missing and how it is made"
    )


if __name__ == "__main__":
    program(main)
