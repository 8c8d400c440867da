"""Data sets: one file each, a frozen dataclass that gives `Images`.

It is called with the data root and whether it may download there what is missing.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Size(NamedTuple):
    """What is known of a data set without reading it.

    A data set that has it as its class's `size` need not be downloaded to forecast a run.
    """

    train: int
    test: int
    shape: tuple[int, int, int]
    classes: int


class Images(NamedTuple):
    """A data set as it is published, before it is split.

    Attributes:
        x_train: training images, (n, C, H, W), uint8, 0 to `scale`.
        y_train: labels, (n,), 0 to K − 1.
        x_test: test images, likewise.
        y_test: their labels.
        scale: the pixel value that means 1.
        classes: K.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    scale: int
    classes: int
