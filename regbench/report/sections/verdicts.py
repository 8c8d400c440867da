"""Robust, or only apparently so? What was found of each training, and the rule that judges it."""

from typing import Any, cast

import pandas as pd

from regbench.analysis.criteria import BASE, SIGNS, Criterion
from regbench.analysis.masking import VERDICTS
from regbench.analysis.rows import CELL
from regbench.report.origins import lines
from regbench.report.sheets import Place, Sheet
from regbench.report.wording import counted, epoch, items, markdown, short

TITLE = "Robust, or only apparently so?"

JUDGED = """\
Each run is judged by a written rule (`regbench/analysis/masking.py`), from the verdicts and from
what was measured of the trained network. Every quantity of every run, with the reasons and with
what could not be looked for, is in `masking.csv`. Of several seeds, from the lowest to the
highest:"""

JUDGED_ALL = """\
Each run is judged by a written rule (`regbench/analysis/masking.py`), from the verdicts and from
what was measured of the trained network. A verdict tells its reasons, a quantity its definition,
its bound and its source. In bold: a sign of masked gradients, each enough by itself where a network
looks robust."""

CHIEF = {
    "fgsm_minus_pgd": "FGSM − strongest PGD",
    "loss_dip": "loss falls again",
    "fgsm_to_rfgsm_loss_ratio": "FGSM : R-FGSM",
    "fgsm_to_ifgsm_loss_ratio": "FGSM : I-FGSM",
    "gradient_alignment": "alignment",
    "linearity_error": "linearity error",
    "zero_gradient": "zero gradients",
}
"""Columns of the panel that summary.md shows."""

NO_BREAK = "\N{NO-BREAK SPACE}"


def section(panel: pd.DataFrame) -> str:
    """Return each method's verdicts and the chief quantities, and the rule that was applied.

    Args:
        panel: of `regbench.analysis.masking.panel`.
    """
    if panel.empty:
        return "Not judged."
    table = pd.DataFrame(
        [_method(key, part) for key, part in panel.groupby(CELL, sort=False, observed=True)]
    )
    meanings = [f"*{name}*: {meaning}." for name, meaning, _ in VERDICTS]
    return "\n\n".join(
        (
            JUDGED,
            markdown([table]),
            *_not_looked_for(panel),
            "The first of these that holds is the verdict:",
            items(meanings),
            items([*map(_criterion, BASE)]),
            "Signs of masked gradients, each enough by itself where a network looks robust:",
            items([*map(_criterion, SIGNS)]),
        )
    )


def _method(key: tuple[object, ...], part: pd.DataFrame) -> dict[str, object]:
    cell = dict(zip(CELL, key, strict=True))
    del cell["regularizer"]
    return {
        **cell,
        "verdict": counted(part["verdict"]),
        **{label: _reach(part[name]) for name, label in CHIEF.items()},
        "overfits in epoch": ", ".join(_onsets(part)),
        "seeds": len(part),
    }


def _reach(values: pd.Series) -> str:
    """Return `0.13 to 0.21`, or the one value that there is."""
    ends = dict.fromkeys(short(value) for value in (values.min(), values.max()))
    return " to ".join(ends)


def _onsets(panel: pd.DataFrame) -> pd.Series:
    """The epoch in which each training begins to overfit."""
    return panel["overfitting_onset"].astype(object).map(epoch)


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


def _criterion(one: Criterion) -> str:
    return f"{one.name} ({one.bound}): {one.definition}. {one.source}."


def sheet(panel: pd.DataFrame) -> Sheet:
    """Return each run's verdict with every quantity that was found of any run.

    Args:
        panel: of `regbench.analysis.masking.panel`.
    """
    criteria = (*BASE, *SIGNS)
    found = {_header(one): one for one in criteria if panel[one.quantity].notna().any()}
    frame = panel[["dataset", "model", "method", "seed", "verdict"]].assign(
        **{name: panel[one.quantity].map(short) for name, one in found.items()},
        **{"overfits in epoch": _onsets(panel)},
    )
    runs = [*enumerate(cast("list[dict[str, Any]]", panel.to_dict("records")))]
    about: dict[Place, str] = {(place, "verdict"): lines(_verdict(run)) for place, run in runs}
    about |= {
        (place, name): lines(_quantity(one, run))
        for place, run in runs
        for name, one in found.items()
    }
    strong = {
        (place, name)
        for place, run in runs
        for name, one in found.items()
        if one in SIGNS and one.met(run)
    }
    rule = "; ".join(f"*{name}*, {meaning}" for name, meaning, _ in VERDICTS)
    notes = [JUDGED_ALL, f"The first of these that holds is the verdict: {rule}."]
    missing = [one.name for one in criteria if one not in found.values()]
    notes += [f"Not looked for, with any run: {'; '.join(missing)}."] if missing else []
    return Sheet.of(TITLE, notes, frame, about, strong)


def _header(one: Criterion) -> str:
    return f"{one.name} ({one.bound.replace(' ', NO_BREAK)})"


def _verdict(run: dict[str, Any]) -> dict[str, object]:
    meaning = next(meaning for name, meaning, _ in VERDICTS if name == run["verdict"])
    told = {"verdict": run["verdict"], "meaning": meaning, "reasons": run["reasons"],
            "not looked for": run["missing"]}  # fmt: skip
    return {name: words for name, words in told.items() if words}


def _quantity(one: Criterion, run: dict[str, Any]) -> dict[str, object]:
    met = {True: "met", False: "not met", None: "not known"}[one.met(run)]
    return {
        one.name: short(run[one.quantity]),
        "bound": f"{one.bound}, {met}",
        "definition": one.definition,
        "source": one.source,
    }
