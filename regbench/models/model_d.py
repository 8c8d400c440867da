"""Model D of Ensemble Adversarial Training, a source of black-box attacks on MNIST."""

import itertools
from math import prod

from torch import nn

__all__ = ["ModelD"]


class ModelD(nn.Sequential):
    """Four times fc 300, ReLU, dropout ½; then fc K (arXiv:1705.07204, table 5).

    Args:
        shape: (C, H, W) of an image.
        classes: K.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        sizes = [prod(shape), 300, 300, 300, 300]
        hidden = [
            layer
            for before, after in itertools.pairwise(sizes)
            for layer in (nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.5))
        ]
        super().__init__(nn.Flatten(), *hidden, nn.Linear(300, classes))
