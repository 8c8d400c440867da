"""Results per run and attack."""

import pandas as pd

from regbench.experiment.values import written
from regbench.report.origins import Remaking, of_one
from regbench.report.sheets import Sheet
from regbench.report.wording import LACKING


def sheet(numbers: pd.DataFrame, remaking: Remaking | None) -> Sheet:
    """Return one row per run and attack.

    Args:
        numbers: of `regbench.report.origins.traced`.
        remaking: what gives the command lines; none: there are none.
    """
    shares = (100 * numbers[["accuracy", "low", "high"]]).map("{:.1f}".format)
    shares = shares.replace("nan", LACKING)
    failed = numbers["attack_status"].where(numbers["attack_status"] != "ok", numbers["status"])
    frame = numbers[["dataset", "model", "method", "seed"]].assign(
        **{
            "attack": numbers["label"],
            "crafted on": numbers["source"].astype(object).fillna(""),
            "ε": numbers["epsilon"].map(written),
            "n": numbers["n"],
            "accuracy": shares["accuracy"],
            "95 % interval": shares["low"] + " to " + shares["high"],
            "attack (s)": numbers["attack_seconds"].map("{:.1f}".format),
            "best epoch": numbers["best_epoch"].astype(object).fillna(LACKING),
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
