"""What one attack promises and another takes away, on the images that both judged."""

from collections.abc import Mapping

import pandas as pd

from regbench.analysis.rows import CELL, Rows, of_trained, unswept
from regbench.errors import UserError, did_you_mean

Gaps = Mapping[str, pd.Series]
"""By data set: a column of the accuracy table, by `CELL`, its name both attacks' labels."""

NONE: Gaps = {}

IMAGE = [*CELL, "seed", "image"]


def gaps(rows: Rows, pair: tuple[str, str] | None) -> Gaps:
    """Return the mean accuracy under the first of two attacks minus that under the second.

    In percentage points, as text; a dash where they have not judged the same seeds. Of a data set
    that one of them has not judged at all there is no column.

    Args:
        rows: the experiment's.
        pair: names of attacks; none: no gaps.

    Raises:
        UserError: there is no such attack.
    """
    if pair is None:
        return NONE
    known = rows.evaluations["attack"].cat.categories
    for name in pair:
        if name not in known:
            raise UserError(f"--gap: no attack '{name}' here{did_you_mean(name, known)}")
    told, correct = unswept(rows.evaluations), of_trained(rows)
    labels = {
        str(dataset): part.drop_duplicates("attack").set_index("attack")["label"]
        for dataset, part in told.groupby("dataset", observed=True)
    }
    return {
        dataset: _gap(correct[correct["dataset"] == dataset], " − ".join(label[[*pair]]), pair)
        for dataset, label in labels.items()
        if {*pair} <= {*label.index}
    }


def _gap(correct: pd.DataFrame, label: str, pair: tuple[str, str]) -> pd.Series:
    first, second = (
        correct[correct["attack"] == name].set_index(IMAGE)["correct"].astype(float)
        for name in pair
    )
    per_seed = [*CELL, "seed"]
    judged = [one.groupby(per_seed, observed=True).size() for one in (first, second)]
    alike = pd.concat(judged, axis=1).notna().all(axis=1).groupby(CELL, observed=True).all()
    both = (first - second).dropna().groupby(per_seed, observed=True).mean()
    points = 100 * both.groupby(CELL, observed=True).mean()
    shown = points.map("{:.1f}".format).reindex(alike.index).where(alike)
    return shown.astype(object).fillna("–").rename(label)
