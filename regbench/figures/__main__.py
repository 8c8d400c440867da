"""Stage 5b: rows -> every figure of regbench/figures/, as PNG and PDF."""

import argparse
import os
from pathlib import Path

import matplotlib as mpl

from regbench.analysis.rows import failures, results
from regbench.analysis.rows import load as load_rows
from regbench.errors import program
from regbench.experiment.members import load, names
from regbench.figures import footnote, look


def main() -> None:
    """Read the command line and draw the figures beside the rows."""
    parser = argparse.ArgumentParser(prog="python -m regbench.figures", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="the report's folder, with regbench.collect's rows"
    )
    folder = parser.parse_args().folder
    os.environ["SOURCE_DATE_EPOCH"] = "0"  # no date in a PDF: the same rows give the same file
    mpl.use("Agg")
    look()
    rows = load_rows(folder)
    wrong = failures(results(rows))
    (folder / "figures").mkdir(exist_ok=True)
    for name in names("figures"):
        figure = load(f"regbench.figures.{name}")(rows)
        footnote(figure, wrong)
        for ending in ("png", "pdf"):
            figure.savefig(folder / "figures" / f"{name}.{ending}", dpi=150)


if __name__ == "__main__":
    program(main)
