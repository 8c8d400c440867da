"""Accuracy, and how to read it."""

import pandas as pd

from regbench.analysis.gaps import NONE as NO_GAPS
from regbench.analysis.gaps import Gaps
from regbench.analysis.rows import CELL, elsewhere, labels, unswept
from regbench.experiment.values import written
from regbench.report.accuracy import MARK, accuracy
from regbench.report.origins import Remaking, lines, of_mean
from regbench.report.sheets import Sheet
from regbench.report.wording import markdown

READING = """\
Accuracy in percent on {images}{chosen}.
Each run's 95 % Wilson interval is in `results.csv`. {radii}{precision}"""

CHOSEN = """\
: mean ± standard deviation
over seeds, of the weights with the {} validation accuracy, under I-FGSM unless the config's
`selection:` is `clean`"""

COST = """\
`passes`: forward and backward passes per image and training step, a pair of them being 1, a measure
of cost that knows no machine; `train (s)`: seconds of one training, mean over seeds, validation
left out, as the clock of the machine named here ran, which may have done other work.
"""

DIFFERENCE = """\
A difference column is in percentage points: what single-step accuracy promises and
multi-step attacks take away."""

GIVEN = """\
Trained elsewhere, and of the weights in their files: {}."""

SEEN = """\
Images of the validation split are training images of the data set: networks that were trained
elsewhere may have been trained on them."""

MARKED = f"""\
{MARK} in doubt with one seed at least: see "Doubts" below, and `flags` in `results.csv`."""

RULED = """\
`verdict`: by a written rule, over each run's signs of masked gradients; see "Robust, or only
apparently so?"."""

PAGE = """\
`index.html` beside this file has these tables to sort and filter, and what is known of each
number; where it is not, `snakemake report_figures` draws it."""

Told = dict[tuple[object, ...], str]
"""By network, method and column of a table of accuracy."""


def section(tables: list[pd.DataFrame], tidy: pd.DataFrame, lacking: str) -> str:
    """Return the tables, what they lack and how to read them.

    Args:
        tables: of `regbench.report.accuracy`.
        tidy: of `regbench.analysis.rows.results`.
        lacking: of `regbench.analysis.unfinished.unfinished`.
    """
    shown = markdown(tables)
    parts = [shown, lacking]
    parts += [MARKED] if MARK in shown else []
    parts += [reading(tidy)]
    parts += [RULED] if any("verdict" in table for table in tables) else []
    return "\n\n".join(filter(None, [*parts, PAGE]))


def reading(tidy: pd.DataFrame) -> str:
    """Return what the columns mean and on how many images."""
    tidy = unswept(tidy)
    tidy = tidy[tidy["n"] > 0]
    counts = tidy.groupby(["dataset", "split"], observed=True)["n"].unique().reset_index()
    images = ", ".join(
        f"{' or '.join(map(str, sorted(row['n'])))} {row['split']} images of {row['dataset']}"
        for row in counts.to_dict("records")
    )
    attacks = tidy[tidy["epsilon"] > 0].groupby(["dataset", "epsilon"], observed=True).size()
    radii = "; ".join(f"{dataset}: ε = {written(epsilon)}" for dataset, epsilon in attacks.index)
    ours = not elsewhere(tidy).all()
    which = {"best": "best", "last": "last epoch's, not the best,"}[tidy["checkpoint"].iloc[0]]
    told = READING.format(
        images=images,
        chosen=CHOSEN.format(which) if ours else "",
        radii=f"L∞, images in [0, 1]; {radii}.",
        precision=_crafted(tidy),
    )
    columns = (COST if ours else "") + DIFFERENCE
    return "\n\n".join(filter(None, [told, columns, _given(tidy)]))


def _given(tidy: pd.DataFrame) -> str:
    """Which methods are networks that were trained elsewhere, if any is."""
    given = tidy[elsewhere(tidy)]
    if given.empty:
        return ""
    seen = f" {SEEN}" if (given["split"] == "validation").any() else ""
    return GIVEN.format(", ".join(given["method"].unique())) + seen


def _crafted(tidy: pd.DataFrame) -> str:
    """What attacks computed in, if not in single precision."""
    others = sorted({*tidy["attack_precision"]} - {"fp32"})
    return f" Crafted in {', '.join(others)}, classified in fp32." if others else ""


def sheets(
    means: pd.DataFrame,
    numbers: pd.DataFrame,
    gaps: Gaps,
    doubted: pd.DataFrame,
    judged: pd.DataFrame,
    remaking: Remaking | None,
) -> list[Sheet]:
    """Return one table per data set, and one more of the attacks crafted on another network.

    Args:
        means: of `regbench.analysis.rows.over_seeds`, `regbench.analysis.comparisons.bounded`.
        numbers: of `regbench.report.origins.traced`, from which `means` are.
        gaps: of `regbench.analysis.gaps.gaps`.
        doubted: of `regbench.analysis.doubts.doubts`.
        judged: of `regbench.analysis.masking.panel`.
        remaking: what gives the command lines; none: there are none.
    """
    own = means["source"].isna()
    kinds = {"": (own, gaps), ", transferred": (~own, NO_GAPS)}
    made = []
    for kind, (chosen, difference) in kinds.items():
        for dataset, table in accuracy(means[chosen], difference, doubted, judged).items():
            of_data = means[chosen & (means["dataset"] == dataset)]
            told = _of_means(of_data, numbers, remaking)
            told |= _of_verdicts(judged[judged["dataset"] == dataset])
            made.append(_sheet(f"Accuracy on {dataset}{kind}", table, told))
    return made


def _sheet(title: str, table: pd.DataFrame, told: Told) -> Sheet:
    marked = table.astype(str).stack().str.contains(MARK).any()
    notes = [f"{MARK} in doubt with one seed at least."] if marked else []
    notes += [RULED] if "verdict" in table else []
    about = {
        (place, name): told[key]
        for place, row in enumerate(table.to_dict("records"))
        for name in map(str, table)
        if (key := (row["model"], row["method"], name)) in told
    }
    return Sheet.of(title, notes, table.drop(columns="dataset"), about)


def _of_means(means: pd.DataFrame, numbers: pd.DataFrame, remaking: Remaking | None) -> Told:
    cell = [*CELL, "attack"]
    seeds = dict(iter(numbers.groupby(cell, observed=True)))
    means = unswept(means)
    return {
        (mean["model"], mean["method"], label): of_mean(mean, seeds[tuple(mean[cell])], remaking)
        for (_, mean), label in zip(means.iterrows(), labels(means), strict=True)
    }


def _of_verdicts(judged: pd.DataFrame) -> Told:
    return {
        (model, method, "verdict"): lines(
            {
                f"seed {row['seed']}": f"{row['verdict']}{_because(row['reasons'])}"
                for row in runs.to_dict("records")
            }
        )
        for (model, method), runs in judged.groupby(["model", "method"], observed=True)
    }


def _because(reasons: str) -> str:
    return f", {reasons}" if reasons else ""
