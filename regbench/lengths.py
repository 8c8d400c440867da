"""Lengths in images of [0, 1], as a member's fields are declared: radii and steps."""

from typing import Annotated

from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat


def in_pixels(value: float) -> str:
    """Return the hint that `value` was meant in units of 1/255, if it may have been."""
    return f"; for images in [0, 1] write {value:g}/255" if value <= 255 else ""


def _within_an_image(value: float) -> float:
    if value > 1:
        raise ValueError(f"a length must lie in [0, 1]{in_pixels(value)}")
    return value


Length = Annotated[NonNegativeFloat, AfterValidator(_within_an_image)]
"""L∞, 0 to 1."""

StepSize = Annotated[PositiveFloat, AfterValidator(_within_an_image)]
"""L∞, above 0 and up to 1."""
