"""What went wrong, and what the attacks warned of."""

import pandas as pd

from regbench.analysis.rows import RUN
from regbench.analysis.rows import failures as failed
from regbench.report.sheets import RUN_AND_ATTACK, Sheet
from regbench.report.wording import items

TITLE = "What went wrong, and what the attacks warned of"


def section(tidy: pd.DataFrame) -> str:
    """Return failed runs and the attacks' warnings as a list, or that there are none.

    Args:
        tidy: of `regbench.analysis.rows.results`.
    """
    warned = [
        f"{row.method}, seed {row.seed}, {row.label}: {row.warnings}"
        for row in tidy[tidy["warnings"] != ""].itertuples()
    ]
    return items([*failed(tidy), *warned]) or "Nothing."


def sheet(tidy: pd.DataFrame) -> Sheet:
    """Return every training and attack that went wrong, and what attacks warned of."""
    tidy = tidy.assign(attack=tidy["label"].astype(str))
    trainings = tidy[tidy["status"] != "ok"].drop_duplicates(RUN).assign(attack="")
    attacked = tidy[tidy["attack_status"] != "ok"]
    warned = tidy[tidy["warnings"] != ""]
    parts = [(trainings, "status"), (attacked, "attack_status"), (warned, "warnings")]
    told = [part.assign(**{"what happened": part[column]}) for part, column in parts]
    frame = pd.concat(told)[[*RUN_AND_ATTACK, "what happened"]]
    return Sheet.of(TITLE, [], frame)
