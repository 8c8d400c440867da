"""What a layer keeps for a second derivative."""

from typing import NamedTuple

from torch import Tensor


class Held(NamedTuple):
    """A layer's input with its graph, out of autograd's sight.

    The way back to the weights takes the input for a constant, so that an attack does not compute
    it. Where the gradient of the weights is itself differentiated, it depends on this.
    """

    x: Tensor
