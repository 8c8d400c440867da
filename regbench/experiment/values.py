"""The values of a config's keys: how they may be written, and what they may be."""

import json
import math
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from regbench.errors import UserError
from regbench.lengths import in_pixels

FRACTION = r"^\s*\d+(\.\d+)?\s*/\s*\d+(\.\d+)?\s*$"
EXPONENT = r"^\d+(\.\d+)?[eE][+-]?\d+$"
IDENTIFIER = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"
REFERENCE = r"[A-Za-z_]\w*((\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)?"
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"


def number(value: Any) -> Any:
    """Return `8/255` and `5e-4`, which YAML takes for a text, as a float; else what came."""
    if isinstance(value, str) and re.match(EXPONENT, value):
        return float(value)
    if isinstance(value, str) and re.match(FRACTION, value):
        top, bottom = (Fraction(part.strip()) for part in value.split("/"))
        if bottom == 0:
            raise ValueError(f"'{value}' divides by zero")
        return _as_float(top / bottom)
    return value


def written(length: float) -> str:
    """Return a length as a config writes it: 8/255 where it is whole in 255ths, else 4 digits, 0.3.

    Of 0.2, which is 51/255, the decimal is the shorter.
    """
    pixels = 255 * length
    whole, short = float(f"{pixels:.0f}"), float(f"{length:.2g}")
    if math.isclose(pixels, whole, abs_tol=1e-3) and not math.isclose(length, short, abs_tol=1e-6):
        return f"{whole:.0f}/255"
    return f"{length:.4g}"


def _as_float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def canonical(name: str, value: Any) -> Any:
    """Return a parameter in the one form that its card keeps: 1, 1.0 and 3/3 are the same.

    Raises:
        UserError: infinite, divided by zero, or what JSON has no word for: a date, a set.
    """
    try:
        value = number(value)
        if isinstance(value, int | float) and not math.isfinite(value):
            raise UserError(f"config: '{name}' must be finite, got {value}")
        json.dumps(value, sort_keys=True, allow_nan=False)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise UserError(f"config: '{name}' is no value that a card can hold: {error}") from error
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _radius(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"ε must lie in [0, 1], got {value:g}{in_pixels(value)}")
    return value


def _each_once(told: str) -> AfterValidator:
    """Refuse a list that holds a value twice; `told` has a place for the value."""

    def check(values: list[Any]) -> list[Any]:
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise ValueError(told.format(min(twice)))
        return values

    return AfterValidator(check)


def _reference(value: str) -> str:
    if not re.fullmatch(REFERENCE, value):
        raise ValueError("expected the name of a file there, or package.module:Class")
    return value


Text = Annotated[str, Field(pattern=f"{FRACTION}|{EXPONENT}")]
WRITTEN = BeforeValidator(number, json_schema_input_type=float | Text)
Radius = Annotated[float, Field(strict=True), AfterValidator(_radius), WRITTEN]
Share = Annotated[float, Field(gt=0, lt=1, strict=True), WRITTEN]
Count = Annotated[int, Field(gt=0, lt=2**31, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Values = Annotated[
    list[Annotated[float, Field(strict=True), WRITTEN]],
    Field(min_length=2),
    _each_once("{:g} is given twice; each value is one attack"),
]
Seeds = Annotated[
    list[Seed],
    Field(min_length=1),
    _each_once("seed {} is given twice; each seed is one training"),
]
Name = Annotated[str, Field(pattern=IDENTIFIER, max_length=64)]
References = Annotated[list[Name], _each_once("'{}' is given twice; each method is one reference")]
Label = Annotated[str, Field(min_length=1, max_length=64, pattern=PRINTABLE)]
Reference = Annotated[str, AfterValidator(_reference)]
