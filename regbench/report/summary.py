"""The first page of a report: the table, how to read it, and where its numbers come from."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from regbench.analysis import masking
from regbench.analysis.comparisons import NONE as NOT_COMPARED
from regbench.analysis.comparisons import strongest
from regbench.analysis.costs import costs
from regbench.analysis.doubts import NONE, RULES, silent
from regbench.analysis.masking import BASE, SIGNS, VERDICTS, Criterion
from regbench.analysis.rows import CELL, Rows, failures, unswept
from regbench.analysis.soundness import LEVEL

READING = """\
Accuracy in percent on {images}: mean ± standard deviation
over seeds, of the weights with the {checkpoint} validation accuracy under I-FGSM.
Each run's 95 % Wilson interval is in `results.csv`. {radii}{precision}

`passes`: forward and backward passes per image and training step, a pair of them being 1, a measure
of cost that knows no machine; `train (s)`: seconds of one training, mean over seeds, validation
left out, as the clock of the machine named here ran, which may have done other work.
A difference column is in percentage points: what single-step accuracy promises and
multi-step attacks take away."""


MARK = "†"
"""Stands behind a number that is in doubt."""

BESIDE = """\
Ours: mean over seeds, in percent, with its 95 % interval over seeds and images, of one seed over
images alone, as theirs. `verdict`, of the
95 % interval of the difference: `differ`: it leaves out 0; `agree`: it includes 0 and lies within
± {margin:g} points; `open`: too wide to say. `cannot be compared`: no attack here has the
published one's kind, radius and steps. Networks and training differ between sources."""


PAGE = """\
`index.html` beside this file has these tables to sort and filter, and what is known of each
number."""


MARKED = f"""\
{MARK} in doubt with one seed at least: see "Doubts" below, and `flags` in `results.csv`.

"""

DOUBTED = f"""\
Each run's verdicts were held against {len(RULES)} rules that a sound evaluation keeps
(`regbench/analysis/doubts.py`); comparisons are tested on one side at the level {LEVEL:g}, shared
by those of one attack. Where there is nothing to compare, a rule is silent. A broken rule proves no
mistake; it is a reason to look before the number is quoted."""


COMPARED = """\
Each method minus a reference, in percentage points, on the same images and seeds, under the
strongest white-box attack; `comparisons.csv` has every attack, `intervals.csv` each accuracy."""

DIFFERENCE = """\
`difference` with its 95 % interval over seeds and images together: where it may lie with other
  trainings and other images. An interval that includes 0 does not tell the methods apart."""

P = """\
`p`: the exact paired test (McNemar's, for several seeds at once) of whether *these* networks
  differ on images of this kind, Holm-corrected over {count} comparisons. It is silent about
  retraining: a small p beside an interval around 0 says that the networks differ, not the methods.\
"""

VERDICT = """\
`verdict`, within a margin of ± {margin:g} points: `on par`: the 90 % interval lies within it (two
  one-sided tests at 5 %); `not below`: it rules out only being worse by more than the margin;
  `below`, `above`: beyond it; `open`: too wide to say; `one seed`: none, since one training of each
  says nothing of others. Two networks that withstand nothing are on par as well."""

ALONE = """\
One seed: the interval is over images alone; another training may differ by more."""

RULED = """\
`verdict`: by a written rule, over each run's signs of masked gradients; see "Robust, or only
apparently so?"."""

JUDGED = """\
Each run is judged by a written rule (`regbench/analysis/masking.py`), from the verdicts and from
what was measured of the trained network. Every quantity of every run, with the reasons and with
what could not be looked for, is in `masking.csv`. Of several seeds, from the lowest to the
highest:"""

COSTS = """\
Passes per image and training step, counted in one step of each training (–: not counted, and
`passes` as its rule declares them); their half sum over that of PGD-AT; seconds of an epoch's
training steps (median over epochs and seeds) and the most memory that any seed's training held, on
the GPU if there was one, else the process with all its libraries, both of the machine named
below. Its other work lengthens the seconds; the median over epochs feels that less than
`train (s)` above does."""

PANEL = {
    "fgsm_minus_pgd": "FGSM − strongest PGD",
    "loss_dip": "loss falls again",
    "fgsm_to_rfgsm_loss_ratio": "FGSM : R-FGSM",
    "fgsm_to_ifgsm_loss_ratio": "FGSM : I-FGSM",
    "gradient_alignment": "alignment",
    "linearity_error": "linearity error",
    "zero_gradient": "zero gradients",
}
"""Columns of the panel that the page shows."""


def summary(
    rows: Rows,
    tidy: pd.DataFrame,
    tables: list[pd.DataFrame],
    beside: pd.DataFrame,
    doubts: pd.DataFrame = NONE,
    compared: pd.DataFrame = NOT_COMPARED,
    panel: pd.DataFrame = masking.NONE,
    lacking: str = "",
) -> str:
    """Return the page as Markdown.

    Args:
        rows: the experiment's.
        tidy: of `regbench.analysis.rows.results`.
        tables: of `regbench.tables.accuracy`.
        beside: of `regbench.analysis.beside.compare`.
        doubts: of `regbench.analysis.doubts.doubts`.
        compared: of `regbench.analysis.comparisons.comparisons`.
        panel: of `regbench.analysis.masking.panel`.
        lacking: of `regbench.analysis.unfinished.unfinished`.
    """
    shown = markdown(tables)
    parts = (
        f"# Robust accuracy on {', '.join(tidy['dataset'].unique())}",
        shown,
        *([lacking] if lacking else []),
        MARKED * (MARK in shown) + reading(tidy),
        *([RULED] if any("verdict" in table for table in tables) else []),
        PAGE,
        "## Is the difference real?",
        differences(compared, rows),
        "## Robust, or only apparently so?",
        judged(panel),
        "## What training costs",
        f"{COSTS}\n\n{markdown([priced(costs(rows))])}",
        "## Doubts",
        "\n\n".join([DOUBTED, *unheard(rows), doubted(doubts, tidy)]),
        "## Beside published numbers",
        published(beside),
        "## Where these numbers come from",
        origin(rows),
        "## What went wrong, and what the attacks warned of",
        notes(tidy),
    )
    return "\n\n".join(parts) + "\n"


def markdown(tables: list[pd.DataFrame]) -> str:
    """Return the tables as Markdown, one below the other."""
    return "\n\n".join(table.to_markdown(index=False, disable_numparse=True) for table in tables)


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
    radii = "; ".join(f"{dataset}: ε = {epsilon:.4g}" for dataset, epsilon in attacks.index)
    which = {"best": "best", "last": "last epoch's, not the best,"}[tidy["checkpoint"].iloc[0]]
    return READING.format(
        images=images,
        checkpoint=which,
        radii=f"L∞, images in [0, 1]; {radii}.",
        precision=_crafted(tidy),
    )


def _crafted(tidy: pd.DataFrame) -> str:
    """What attacks computed in, if not in single precision."""
    others = sorted({*tidy["attack_precision"]} - {"fp32"})
    return f" Crafted in {', '.join(others)}, classified in fp32." if others else ""


def judged(panel: pd.DataFrame) -> str:
    """Return each method's verdicts and the chief quantities, and the rule that was applied."""
    if panel.empty:
        return "Not judged."
    table = pd.DataFrame(
        [_method(key, part) for key, part in panel.groupby(CELL, sort=False, observed=True)]
    )
    meanings = [f"* *{name}*: {meaning}." for name, meaning, _ in VERDICTS]
    return "\n\n".join(
        (
            JUDGED,
            markdown([table]),
            *_not_looked_for(panel),
            "The first of these that holds is the verdict:",
            "\n".join([*meanings, "", *map(_criterion, BASE)]),
            "Signs of masked gradients, each enough by itself where a network looks robust:",
            "\n".join(map(_criterion, SIGNS)),
        )
    )


def _not_looked_for(panel: pd.DataFrame) -> list[str]:
    """Return which signs could not be looked for, with every run or with some."""
    lacking = [set(missing.split("; ")) - {""} for missing in panel["missing"]]
    everywhere = set.intersection(*lacking)
    somewhere = set.union(*lacking) - everywhere
    told = {"Not looked for": everywhere, "Not looked for with some runs": somewhere}
    return [
        f"{words}: {'; '.join(one.name for one in SIGNS if one.name in names)}."
        for words, names in told.items()
        if names
    ]


def priced(costs: pd.DataFrame) -> pd.DataFrame:
    """Return what training costs with each method, as it is printed.

    Args:
        costs: of `regbench.analysis.costs.costs`.
    """
    held = costs["peak_gpu_memory"].fillna(costs["peak_memory"])
    return pd.DataFrame(
        {
            **{name: costs[name] for name in ("dataset", "model", "method")},
            "forward": costs["forward_passes"].map(_number),
            "backward": costs["backward_passes"].map(_number),
            "of PGD-AT": costs["relative"].map(_number),
            "s per epoch": costs["seconds_per_epoch"].map(_number),
            "memory (GB)": (held / 1e9).map(_number),
        }
    )


def _criterion(one: Criterion) -> str:
    return f"* {one.name} ({one.bound}): {one.definition}. {one.source}."


def _method(key: tuple[object, ...], part: pd.DataFrame) -> dict[str, object]:
    cell = dict(zip(CELL, key, strict=True))
    del cell["regularizer"]
    return {
        **cell,
        "verdict": counted(part["verdict"]),
        **{label: _reach(part[name]) for name, label in PANEL.items()},
        "overfits in epoch": ", ".join(part["overfitting_onset"].astype(object).map(epoch)),
        "seeds": len(part),
    }


def _reach(values: pd.Series) -> str:
    """Return `0.13 to 0.21`, or the one value that there is."""
    ends = dict.fromkeys(f"{value:.3g}" for value in (values.min(), values.max()))
    return " to ".join(ends) if values.notna().any() else "–"


def epoch(onset: int | None) -> str:
    """Return an epoch, or a dash where there is none."""
    return "–" if pd.isna(onset) else str(onset)


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}"


def published(beside: pd.DataFrame) -> str:
    """Return the published numbers beside ours, or that there are none."""
    if beside.empty:
        return "None are known for these data sets and methods."
    shown = markdown([beside.drop(columns="margin")])
    return f"{read_beside(beside['margin'].iloc[0])}\n\n{shown}"


def read_beside(margin: float) -> str:
    """Return how to read the published numbers beside ours; `margin` is a share."""
    return BESIDE.format(margin=100 * margin)


def unheard(rows: Rows) -> list[str]:
    """Return which rules had nothing to compare, if there are such."""
    names = "; ".join(rule.name for rule in silent(rows))
    return [f"Nothing to compare for: {names}."] if names else []


def doubted(doubts: pd.DataFrame, tidy: pd.DataFrame) -> str:
    """Return each broken rule with the numbers that break it, or that there are none."""
    labels = tidy.set_index(["dataset", "attack"])["label"].to_dict()
    parts = []
    for rule in RULES:
        lines = [
            f"* {row.dataset}, {row.model}, {row.method}, seed {row.seed},"
            f" {labels[row.dataset, row.attack]}: {row.told}"
            for row in doubts[doubts["rule"] == rule.name].itertuples()
        ]
        if lines:
            told = f"**{rule.name}.** What should hold: {rule.definition} ({rule.source})."
            parts.append("\n".join([told, "", *lines]))
    return "\n\n".join(parts) or "None."


def differences(compared: pd.DataFrame, rows: Rows) -> str:
    """Return what `comparisons.csv` says of the strongest attack, or that there is nothing."""
    attacks = strongest(rows) if len(compared) else {}
    shown = compared[compared["attack"] == compared["dataset"].map(attacks)]
    if shown.empty:
        return "There is no reference method to compare with."
    table = pd.DataFrame(
        {
            **{name: shown[name] for name in ("dataset", "model", "method", "against")},
            "attack": shown["label"],
            "difference": [_difference(row) for row in shown.to_dict("records")],
            "p": [chance(p) for p in shown["p_holm"]],
            "verdict": shown["verdict"],
        }
    )
    columns = "\n".join(f"* {one}" for one in meanings(compared))
    alone = [ALONE] if shown["seeds"].eq(1).any() else []
    return "\n\n".join([COMPARED, columns, *alone, markdown([table])])


def meanings(compared: pd.DataFrame) -> list[str]:
    """Return what the columns of comparisons mean: difference, p, verdict.

    Args:
        compared: of `regbench.analysis.comparisons.comparisons`, not empty.
    """
    count, margin = compared["p"].notna().sum(), 100 * compared["margin"].iloc[0]
    return [DIFFERENCE, P.format(count=count), VERDICT.format(margin=margin)]


def _difference(row: Mapping[Hashable, Any]) -> str:
    if row["seeds"] == 0:
        return "no seed in common"
    middle, low, high = (points(row[name]) for name in ("difference", "low", "high"))
    return f"{middle} [{low}, {high}]{' (one seed)' if row['seeds'] == 1 else ''}"


def points(share: float) -> str:
    """Return a difference of shares in percentage points, `+10.2`."""
    return "–" if pd.isna(share) else f"{100 * share:+.1f}".replace("-", "−")


def chance(p: float) -> str:
    """Return a p, `0.042`."""
    if pd.isna(p):
        return "–"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def origin(rows: Rows) -> str:
    """Return machines, versions and commits as a list, each with its number of runs."""
    return "\n".join(f"* {name}: {told}" for name, told in origins(rows).items())


def origins(rows: Rows) -> dict[str, str]:
    """Return days, machines, versions, commits and time, each with its number of runs."""
    columns = ["date", "device", "instructions", "threads", "platform", "python", "torch"]
    columns += ["torchvision", "robustbench", "pyautoattack", "numpy", "commit", "dirty"]
    known = [column for column in columns if column in rows.runs]  # older runs have no date
    train, attack = rows.runs["train_seconds"].sum(), rows.evaluations["seconds"].sum()
    time = f"{train:.0f} s of training steps, {attack:.0f} s of attacking, all runs added"
    return {**{column: counted(rows.runs[column]) for column in known}, "time": time}


def notes(tidy: pd.DataFrame) -> str:
    """Return failed runs and the attacks' warnings as a list, or that there are none."""
    lines = [f"* {line}" for line in failures(tidy)]
    warned = tidy[tidy["warnings"] != ""]
    lines += [
        f"* {row.method}, seed {row.seed}, {row.label}: {row.warnings}"
        for row in warned.itertuples()
    ]
    return "\n".join(lines) or "Nothing."


def counted(values: pd.Series) -> str:
    """Return the values of runs, each with its number of runs where they are not all the same."""
    counts = values.astype(object).fillna("not recorded").astype(str).value_counts()
    if len(counts) == 1:
        return str(counts.index[0])
    return ", ".join(f"{value} ({count} runs)" for value, count in counts.items())
