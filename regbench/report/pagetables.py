"""The tables of index.html: which there are, and what each of their cells tells."""

from collections.abc import Mapping
from typing import Any, cast

import pandas as pd

from regbench.analysis.beside import compare, places
from regbench.analysis.comparisons import strongest
from regbench.analysis.doubts import RULES
from regbench.analysis.gaps import NONE as NO_GAPS
from regbench.analysis.gaps import Gaps
from regbench.analysis.masking import BASE, SIGNS, VERDICTS, Criterion
from regbench.analysis.published import Published
from regbench.analysis.rows import CELL, RUN, Rows, labels, unswept
from regbench.report.origins import Remaking, lines, of_mean, of_one
from regbench.report.sheets import Place, Sheet
from regbench.report.summary import (
    ALONE,
    COSTS,
    DOUBTED,
    MARK,
    RULED,
    chance,
    epoch,
    meanings,
    points,
    priced,
    read_beside,
    unheard,
)
from regbench.tables import accuracy

WHERE = ["dataset", "model", "method", "seed", "attack"]

PLACED = """\
Ranked together is what shares data set, radius, attack and its parameters; the method and the
network may be any. Where several attacks of ours are the published one, the strongest counts.
Networks, training and the number of images differ between sources."""

COMPARED = """\
Each method minus a reference, in percentage points, on the same images and seeds: under the
strongest white-box attack first, then under each other one."""

JUDGED = """\
Each run is judged by a written rule (`regbench/analysis/masking.py`), from the verdicts and from
what was measured of the trained network. A verdict tells its reasons, a quantity its definition,
its bound and its source. In bold: a sign of masked gradients, each enough by itself where a network
looks robust."""

NO_BREAK = "\N{NO-BREAK SPACE}"

Lines = dict[str, object]
"""What is told of a cell: names with values."""


def accuracies(
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
    sheets = []
    for kind, (chosen, difference) in kinds.items():
        for dataset, table in accuracy(means[chosen], difference, doubted, judged).items():
            marked = table.astype(str).stack().str.contains(MARK).any()
            notes = [f"{MARK} in doubt with one seed at least."] if marked else []
            notes += [RULED] if "verdict" in table else []
            of_data = means[chosen & (means["dataset"] == dataset)]
            told = _of_means(of_data, numbers, remaking)
            told |= _of_verdicts(judged[judged["dataset"] == dataset])
            about = {
                (place, name): told[key]
                for place, row in enumerate(table.to_dict("records"))
                for name in map(str, table)
                if (key := (row["model"], row["method"], name)) in told
            }
            title = f"Accuracy on {dataset}{kind}"
            sheets.append(Sheet.of(title, notes, table.drop(columns="dataset"), about))
    return sheets


Told = dict[tuple[object, ...], str]
"""By network, method and column of a table of accuracy."""


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


# --- findings -------------------------------------------------------------------------------------


def panel(judged: pd.DataFrame) -> Sheet:
    """Return each run's verdict with every quantity that was found of any run.

    Args:
        judged: of `regbench.analysis.masking.panel`.
    """
    criteria = (*BASE, *SIGNS)
    found = {_header(one): one for one in criteria if judged[one.quantity].notna().any()}
    runs = cast("list[dict[str, Any]]", judged.to_dict("records"))
    frame = judged[["dataset", "model", "method", "seed", "verdict"]].assign(
        **{name: judged[one.quantity].map(_short) for name, one in found.items()},
        **{"overfits in epoch": judged["overfitting_onset"].astype(object).map(epoch)},
    )
    about: dict[Place, str] = {
        (place, "verdict"): lines(_verdict(run)) for place, run in enumerate(runs)
    }
    about |= {
        (place, name): lines(_quantity(one, run))
        for place, run in enumerate(runs)
        for name, one in found.items()
    }
    strong = {
        (place, name)
        for place, run in enumerate(runs)
        for name, one in found.items()
        if one in SIGNS and one.met(run)
    }
    rule = "; ".join(f"*{name}*, {meaning}" for name, meaning, _ in VERDICTS)
    notes = [JUDGED, f"The first of these that holds is the verdict: {rule}."]
    missing = [one.name for one in criteria if one not in found.values()]
    notes += [f"Not looked for, with any run: {'; '.join(missing)}."] if missing else []
    return Sheet.of("Robust, or only apparently so?", notes, frame, about, strong)


def _header(one: Criterion) -> str:
    return f"{one.name} ({one.bound.replace(' ', NO_BREAK)})"


def _verdict(run: dict[str, Any]) -> Lines:
    meaning = next(meaning for name, meaning, _ in VERDICTS if name == run["verdict"])
    told = {"verdict": run["verdict"], "meaning": meaning, "reasons": run["reasons"],
            "not looked for": run["missing"]}  # fmt: skip
    return {name: words for name, words in told.items() if words}


def _quantity(one: Criterion, run: dict[str, Any]) -> Lines:
    met = {True: "met", False: "not met", None: "not known"}[one.met(run)]
    return {
        one.name: _short(run[one.quantity]),
        "bound": f"{one.bound}, {met}",
        "definition": one.definition,
        "source": one.source,
    }


def comparisons(compared: pd.DataFrame, rows: Rows) -> Sheet:
    """Return every paired comparison, those under the strongest attack first.

    Args:
        compared: of `regbench.analysis.comparisons.comparisons`.
        rows: the experiment's.
    """
    title = "Is the difference real?"
    if compared.empty:
        return Sheet.of(title, ["There is no reference method to compare with."], compared)
    last = compared["attack"] != compared["dataset"].map(strongest(rows))
    compared = compared.loc[last.sort_values(kind="stable").index]
    told = compared.to_dict("records")
    frame = pd.DataFrame(
        {
            **{name: compared[name] for name in ("dataset", "model", "method", "against")},
            "attack": compared["label"],
            "difference": [points(row["difference"]) for row in told],
            "95 % interval": [_between(row["low"], row["high"]) for row in told],
            "p (Holm)": compared["p_holm"].map(chance),
            "verdict": compared["verdict"],
            "margin": (100 * compared["margin"]).map("{:g}".format),
            "n": compared["n"],
            "seeds": compared["seeds"],
        }
    )
    about = {(place, "difference"): lines(_difference(row)) for place, row in enumerate(told)}
    alone = [ALONE] if compared["seeds"].eq(1).any() else []
    return Sheet.of(title, [COMPARED, *meanings(compared), *alone], frame, about)


def _difference(row: Mapping[Any, Any]) -> Lines:
    if row["seeds"] == 0:
        return {"difference": "no seed in common"}
    return {
        f"{row['method']} − {row['against']}": f"{points(row['difference'])} points",
        "95 % interval": f"{_between(row['low'], row['high'])}, over {row['over']}",
        "90 % interval": f"{_between(row['low_90'], row['high_90'])}, for the verdict",
        "images": f"{row['n']}: more often right on {row['more']}, less often on {row['fewer']}",
        "seeds": row["seeds"],
        "p": f"{chance(row['p_holm'])} by Holm, {chance(row['p'])} by itself",
        "margin": f"± {100 * row['margin']:g} points",
    }


def _between(low: float, high: float) -> str:
    return "–" if pd.isna(low) else f"{points(low)} to {points(high)}"


def costs(table: pd.DataFrame) -> Sheet:
    """Return what training costs with each method.

    Args:
        table: of `regbench.analysis.costs.costs`.
    """
    return Sheet.of("What training costs", [COSTS], priced(table))


# --- numbers --------------------------------------------------------------------------------------


def results(numbers: pd.DataFrame, remaking: Remaking | None) -> Sheet:
    """Return one row per run and attack.

    Args:
        numbers: of `regbench.report.origins.traced`.
        remaking: what gives the command lines; none: there are none.
    """
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
    about = {
        (place, "accuracy"): of_one(numbers.iloc[[place]], remaking)
        for place in range(len(numbers))
    }
    return Sheet.of(
        "Results per run and attack",
        ["Accuracy in percent, with its 95 % Wilson interval."],
        frame.loc[:, (frame != "").any()],
        about,
    )


def published(known: Published, means: pd.DataFrame, margin: float) -> Sheet:
    """Return the published numbers that methods of ours stand beside."""
    title, beside = "Beside published numbers", compare(known, means, margin)
    return Sheet.of(title, [read_beside(margin), *_when(known)], beside.drop(columns="margin"))


def ranking(known: Published, means: pd.DataFrame) -> Sheet:
    """Return our place among the published numbers."""
    return Sheet.of("Place among published numbers", [PLACED, *_when(known)], places(known, means))


def _when(known: Published) -> list[str]:
    return [f"Collected: {known.collected}."] if known.collected else []


def doubts(doubted: pd.DataFrame, numbers: pd.DataFrame, rows: Rows) -> Sheet:
    """Return each broken rule of a sound evaluation, and which had nothing to compare."""
    called = numbers.set_index(["dataset", "attack"])["label"].to_dict()
    holds = {rule.name: f"{rule.definition} ({rule.source})" for rule in RULES}
    keys = zip(doubted["dataset"], doubted["attack"], strict=True)
    frame = doubted.assign(
        attack=[called[key] for key in keys], **{"what should hold": doubted["rule"].map(holds)}
    )
    columns = [*WHERE, "rule", "what should hold", "told"]
    return Sheet.of("Doubts", [DOUBTED, *unheard(rows)], frame[columns])


def failures(numbers: pd.DataFrame) -> Sheet:
    """Return every training and attack that went wrong, and what attacks warned of."""
    numbers = numbers.assign(attack=numbers["label"].astype(str))
    trainings = numbers[numbers["status"] != "ok"].drop_duplicates(RUN).assign(attack="")
    attacked = numbers[numbers["attack_status"] != "ok"]
    warned = numbers[numbers["warnings"] != ""]
    parts = [(trainings, "status"), (attacked, "attack_status"), (warned, "warnings")]
    told = [part.assign(**{"what happened": part[column]}) for part, column in parts]
    frame = pd.concat(told)[[*WHERE, "what happened"]]
    return Sheet.of("What went wrong, and what the attacks warned of", [], frame)


def _short(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3g}"
