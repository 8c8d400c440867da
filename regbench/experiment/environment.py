"""Numbers that the environment tells the stages."""

import math
import os

from regbench.errors import UserError


def positive(name: str, default: float) -> float:
    """Return the number above 0 that the variable `name` holds; unset or empty: `default`.

    Raises:
        UserError: it holds something else.
    """
    told = os.environ.get(name)
    if not told:
        return default
    try:
        number = float(told)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise UserError(
            f"${name}: expected a number above 0, got '{told}'; set another or unset it"
        )
    return number
