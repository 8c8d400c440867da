"""Lengths, as a member's fields are declared: radii and steps.

In images of [0, 1], or as multiples of ε.
"""

from typing import Annotated

from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat


def in_pixels(value: float) -> str:
    """Return the hint that `value` was meant in units of 1/255, if it may have been."""
    return f"; for images in [0, 1] write {value:g}/255" if value <= 255 else ""


def _within_an_image(value: float) -> float:
    if value > 1:
        raise ValueError(f"a length must lie in [0, 1]{in_pixels(value)}")
    return value


def _comparable(value: float) -> float:
    if value and not 0.1 <= value <= 10:
        raise ValueError(
            "a multiple of ε must lie in 0.1 to 10, or be 0; a length is divided by ε: 10/255 at"
            " ε = 8/255 is 1.25"
        )
    return value


Length = Annotated[NonNegativeFloat, AfterValidator(_within_an_image)]
"""L∞, 0 to 1."""

StepSize = Annotated[PositiveFloat, AfterValidator(_within_an_image)]
"""L∞, above 0 and up to 1."""

Multiple = Annotated[NonNegativeFloat, AfterValidator(_comparable)]
"""Of ε: 0, or 0.1 to 10, so that a length in the units of the image is noticed."""
