"""What training costs."""

import pandas as pd

from regbench.report.sheets import Sheet
from regbench.report.wording import LACKING, markdown

TITLE = "What training costs"

COSTS = """\
Passes per image and training step, counted in one step of each training (–: not counted, and
`passes` as its rule declares them); their half sum over that of PGD-AT; seconds of an epoch's
training steps (median over epochs and seeds) and the most memory that any seed's training held, on
the GPU if there was one, else the process with all its libraries, both of the machine named
below. Its other work lengthens the seconds; the median over epochs feels that less than
`train (s)` above does."""

NOTHING = "None of these networks was trained here."


def section(costs: pd.DataFrame) -> str:
    """Return what training costs with each method.

    Args:
        costs: of `regbench.analysis.costs.costs`.
    """
    return NOTHING if costs.empty else f"{COSTS}\n\n{markdown([_priced(costs)])}"


def sheet(costs: pd.DataFrame) -> Sheet:
    """Return the same as a table of the page."""
    return Sheet.of(TITLE, [NOTHING if costs.empty else COSTS], _priced(costs))


def _priced(costs: pd.DataFrame) -> pd.DataFrame:
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


def _number(value: float) -> str:
    return LACKING if pd.isna(value) else f"{value:.2f}"
