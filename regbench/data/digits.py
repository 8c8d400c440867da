"""scikit-learn's digits: 1,797 real 8×8 images in 17 greys, inside the package, no download."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regbench.data import Images

__all__ = ["Digits"]


@dataclass(frozen=True)
class Digits:
    """The UCI hand-written digits (Alpaydin & Kaynak 1998), cut into training and test images.

    Attributes:
        test: number of test images; the data set comes without a cut of its own.
        test_seed: seed of the permutation that picks them.
    """

    test: int = 500
    test_seed: int = 0

    def __call__(self, root: Path, download: bool) -> Images:  # noqa: ARG002
        """Return the images; they are part of scikit-learn."""
        from sklearn.datasets import load_digits  # noqa: PLC0415 - a second of imports

        digits = load_digits()
        x = digits.images.astype(np.uint8)[:, None]
        y = digits.target.astype(np.int64)
        order = np.random.default_rng(self.test_seed).permutation(len(x))
        train, test = np.split(order, [len(x) - self.test])
        return Images(x[train], y[train], x[test], y[test], scale=16, classes=10)
