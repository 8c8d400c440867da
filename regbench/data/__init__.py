"""Data sets: one file each, a frozen dataclass that, called with the data root, gives `Images`."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


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
