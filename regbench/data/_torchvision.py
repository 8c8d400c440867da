"""What the data sets that torchvision publishes share."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regbench.data import Images
from regbench.errors import UserError


def images(source: Any, root: Path, download: bool) -> Images:
    """Return the two parts of a torchvision data set, checked against its own checksums.

    Args:
        source: a class of `torchvision.datasets` with `data` and `targets`.
        root: the data root that torchvision gets.
        download: fetch what is not there.

    Raises:
        UserError: the files are not there, or not whole.
    """
    try:
        train = source(root, train=True, download=download)
        test = source(root, train=False, download=download)
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(
            f"{source.__name__} is not whole under '{root}' ({error}); set data_root in the config"
            " or REGBENCH_DATA to where it lies, or `download: true` to fetch it"
        ) from error
    return Images(
        _nchw(train.data), np.asarray(train.targets, np.int64),
        _nchw(test.data), np.asarray(test.targets, np.int64),
        scale=255, classes=len(train.classes),
    )  # fmt: skip


def _nchw(pixels: Any) -> NDArray[np.uint8]:
    array = np.asarray(pixels, np.uint8)
    return array[:, None] if array.ndim == 3 else np.ascontiguousarray(array.transpose(0, 3, 1, 2))
