"""Does a file of rules/regularizers/ make the cells of the regularizer that it declares?"""

import re
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Protocol

from regbench.errors import UserError


class Rule(Protocol):
    """What a rule of Snakemake's is asked for here."""

    wildcard_constraints: dict[str, str]


def hold_names(path: Path, rules: Iterable[Rule], new: Set[str], others: Set[str]) -> None:
    """Refuse a file whose rules make the cells of none of the names it declares, or of others' too.

    Args:
        path: of the file.
        rules: those that it makes.
        new: the names that it declares.
        others: those of files before it.

    Raises:
        UserError: it is such a file.
    """
    constraints = [one.wildcard_constraints for one in rules]
    makes = [one["regularizer"] for one in constraints if "regularizer" in one]
    told = f"'{path}': under wildcard_constraints its rule has regularizer="
    for name in new if makes else ():
        if not any(_matches(pattern, name) for pattern in makes):
            raise UserError(
                f"{told}{', '.join(map(repr, makes))}, but it declares '{name}'; write"
                f" '{re.escape(name)}'"
            )
    for pattern in makes:
        taken_too = sorted(name for name in others if _matches(pattern, name))
        if taken_too:
            raise UserError(f"{told}'{pattern}', which is also '{taken_too[0]}'; write one name")


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return False
