"""The accuracy table as LaTeX: booktabs, the best in bold, notes below; every text escaped."""

import json
from collections.abc import Hashable, Mapping, Set
from typing import Any

import pandas as pd

from regbench.analysis.comparisons import Cell
from regbench.experiment.values import written
from regbench.report.accuracy import MARK

GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta",
    "η": "eta", "θ": "theta", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi",
    "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "varphi", "χ": "chi", "ψ": "psi",
    "ω": "omega", "∞": "infty", "×": "times", "±": "pm", "≤": "le", "≥": "ge",
}  # fmt: skip

TEX = str.maketrans(
    {
        **{character: "\\" + character for character in "_%&#${}"},
        **{character: f"$\\{name}$" for character, name in GREEK.items()},
        **{character: f"${character}$" for character in "<>"},
        **{character: f"{{{character}}}" for character in "[]*"},  # which \\ takes for its own
        "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "|": r"\textbar{}",
        "−": "$-$", "–": "--", MARK: r"$^\dagger$",
    }
)  # fmt: skip

BOLD = (
    "Bold: the best of a network, and each whose paired difference from it has a 95 % interval,"
    " over {}, that includes 0; none of fewer seeds than others."
)
OF_EPSILON = {"start_radius"}
"""Parameters that are told as shares of ε."""

PASSES = "passes: forward and backward passes per image and training step, a pair being 1."
VERDICT = "verdict: by a written rule, over each run's signs of masked gradients."
DOUBT = f"{MARK}: in doubt with one seed at least."


def latex(table: pd.DataFrame, cells: pd.DataFrame, bold: Set[Cell]) -> str:
    """Return an accuracy table as a paper prints it, with notes on n, seeds and attacks below.

    What is the same in all rows (data set, network, seeds) is said in the notes. It needs booktabs
    alone, and stands in a `table` with a caption, or anywhere.

    Args:
        table: of `regbench.report.accuracy.accuracy`, one data set's.
        cells: of `regbench.report.accuracy.cells`, those that the table shows.
        bold: of `regbench.analysis.comparisons.leaders`.
    """
    once = [name for name in ("model", "seeds") if table[name].nunique() == 1]
    text = table.drop(columns=["dataset", "train (s)", *once]).astype(str).map(_tex)
    best = {
        (row.model, row.method, row.column)
        for row in cells.itertuples()
        if (row.dataset, row.model, row.regularizer, row.attack) in bold
    }
    for column in cells["column"].unique():
        rows = zip(table["model"], table["method"], text[column], strict=True)
        text[column] = [
            rf"\textbf{{{words}}}" if (model, method, column) in best else words
            for model, method, words in rows
        ]
    headers = {column: _tex(column) for column in map(str, text)}
    over = _over(cells["seeds"])
    notes = [_protocol(table, cells, once), BOLD.format(over), PASSES]
    notes += [VERDICT] if "verdict" in table else []
    notes += [DOUBT] if cells["cell"].str.contains(MARK).any() else []
    attacks = cells.sort_values("attack").drop_duplicates("attack").to_dict("records")
    told = [(one, words) for one in attacks if (words := _attack(one, cells))]
    for number, (one, words) in enumerate(told, start=1):
        headers[one["column"]] = f"{_tex(one['label'])}$^{{{number}}}$"
        notes.append(f"({number}) {words}.")
    return "\n".join(
        [
            _tabular(text.rename(columns=headers)).rstrip(),
            r"\par\smallskip",
            rf"{{\footnotesize {_tex(' '.join(notes))}\par}}",
            "",
        ]
    )


def _over(seeds: pd.Series) -> str:
    if seeds.max() <= 1:
        return "images"
    return "seeds and images" + ", of one seed each over images alone" * bool(seeds.eq(1).any())


def _tabular(text: pd.DataFrame) -> str:
    words = text.columns.isin(["dataset", "model", "method", "verdict"])
    aligned = "".join("l" if word else "r" for word in words)
    return str(text.style.hide(axis="index").to_latex(hrules=True, column_format=aligned))


def _protocol(table: pd.DataFrame, cells: pd.DataFrame, once: list[str]) -> str:
    """On what, how often and at which radius."""
    first = table.iloc[0]
    seeds = f" over {first['seeds']} seeds" if "seeds" in once else " over seeds"
    spread = f", mean ± standard deviation{seeds}" if cells["sd"].notna().any() else ", one seed"
    network = f", {first['model']}" if "model" in once else ""
    return (
        f"{first['dataset']}{network}: accuracy in %{spread}, on {cells['n'].max()}"
        f" {cells['split'].iloc[0]} images; L∞, ε = {written(_radius(cells))}."
    )


def _radius(cells: pd.DataFrame) -> float:
    """The data set's ε: that of most attacks."""
    return float(cells["epsilon"].mode().iloc[0])


def _attack(row: Mapping[Hashable, Any], cells: pd.DataFrame) -> str:
    """An attack's parameters, or nothing where its name says all."""
    arguments = json.loads(row["arguments"])
    usual = {"epsilon": _radius(cells), "restarts": 1}
    said = [
        _parameter(name, value)
        for name, value in arguments.items()
        if value not in (None, False) and value != usual.get(name)
    ]
    said += [] if pd.isna(row["source"]) else [f"crafted on {row['source']}"]
    said += [f"n = {row['n']}"] if row["column"] != row["label"] else []
    return f"{row['member'].rpartition('.')[2]}: {', '.join(said)}" if said else ""


def _parameter(name: str, value: object) -> str:
    words = name.replace("_", " ")
    if value is True:
        return words
    unit = " ε" if name in OF_EPSILON else ""
    return f"{words} {value:.4g}{unit}" if isinstance(value, float) else f"{words} {value}{unit}"


def _tex(text: str) -> str:
    return text.translate(TEX)
