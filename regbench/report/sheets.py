"""Tables as the page shows them: cells that tell more, columns sorted as words or as numbers."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, Self

import pandas as pd

Place = tuple[int, str]
"""A row, from 0, and a column of a table."""

RUN_AND_ATTACK = ["dataset", "model", "method", "seed", "attack"]
"""Columns that name what a row is about."""

NAMED = {
    "dataset", "model", "method", "against", "attack", "crafted on", "rule", "what should hold",
    "told", "what happened", "flags", "status", "verdict", "source",
}  # fmt: skip
"""Columns that are sorted as words; all others by the number that a cell begins with."""

NUMBER = re.compile(r"(?:< |\+)?([-−]?\d+(?:\.\d+)?(?:e-?\d+)?)")


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: what it shows.
        about: what it tells under the pointer or the focus, one `name: value` a line.
        strong: whether it stands out.
    """

    text: str
    about: str = ""
    strong: bool = False

    @property
    def number(self) -> str:
        """What it is sorted by in a column of numbers; without one it stands below all."""
        found = NUMBER.match(self.text)
        return found[1].replace("−", "-") if found else ""


class Sheet(NamedTuple):
    """A table of the page.

    Attributes:
        title: its heading.
        notes: paragraphs above it, `code` in backticks, *emphasis* in asterisks.
        columns: their names.
        rows: its cells; there may be none.
    """

    title: str
    notes: list[str]
    columns: list[str]
    rows: list[list[Cell]]

    @classmethod
    def of(
        cls,
        title: str,
        notes: list[str],
        frame: pd.DataFrame,
        about: Mapping[Place, str] | None = None,
        strong: Collection[Place] = frozenset(),
    ) -> Self:
        """Return a frame as a table; `about` tells more of some cells, `strong` ones stand out."""
        told = about or {}
        columns = list(map(str, frame))
        rows = [
            [
                Cell(str(value), told.get((place, name), ""), (place, name) in strong)
                for name, value in zip(columns, values, strict=True)
            ]
            for place, values in enumerate(frame.itertuples(index=False, name=None))
        ]
        return cls(title, notes, columns, rows)

    @property
    def anchor(self) -> str:
        """What links name it by."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")

    def cells(self, row: list[Cell]) -> Iterator[tuple[str, Cell]]:
        """Yield each column with its cell."""
        return zip(self.columns, row, strict=True)

    def numeric(self, column: str) -> bool:
        """Tell whether a column is sorted by its numbers."""
        return column not in NAMED
